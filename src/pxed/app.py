"""The composition root: a configuration becomes a running server. The only module that knows everything."""

import asyncio
import contextlib
import gc
import os
import pwd
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from msgspec.structs import fields, replace

from pxed import boot, log
from pxed.api.control import Reloaded, ServiceStatus
from pxed.api.server import ApiServer
from pxed.config import Config, load
from pxed.control import ServerControl
from pxed.errors import OperatorError
from pxed.images.library import Library
from pxed.net import diagnose, igmp
from pxed.net.connection import Limits
from pxed.net.interfaces import Interfaces, served, speed
from pxed.service.cast import CastService
from pxed.service.dhcp import DhcpService
from pxed.service.http import MachineHttp
from pxed.service.metrics import Inventory, Metrics
from pxed.service.metrics_http import MetricsHttp
from pxed.service.names import Names
from pxed.service.peers import Peers
from pxed.service.quiet import DropReport
from pxed.service.rates import Rates
from pxed.service.tftp import TftpService
from pxed.service.traffic import Snapshots
from pxed.service.transactions import Transactions

__all__ = ["Server", "run"]

TICK = 1.0  # seconds between two looks at the jobs' deadlines
STOP_GRACE = 5.0  # seconds that responses in progress get at a stop; agents resume where they are cut off

# A descriptor per HTTP connection and per file in transfer; the soft limit of a login shell is 1024.
DESCRIPTORS = 65536

# What a reload takes over, by key or whole section; every other key needs a restart, keeps its running value until
# then, and every reload says so.
RELOADED = frozenset(
    {
        "log",
        "transaction",
        "jobs",
        "environment",
        "dhcp.boot_programs",
        "dhcp.boot_program_dir",
        "mtftp.machines",
        "mtftp.architectures",
        "mtftp.client_port",
        "mtftp.listen",
        "mtftp.delay",
        "mtftp.files",
        "mtftp.ipxe",
        "tftp.root",
        "tftp.rate",
        "tftp.running",
        "server.rates",
        "images.public",
        "cast.rate",
        "cast.rates",
        "cast.session_rate",
        "cast.floor",
        "cast.hours",
        "cast.start",
    }
)


class Server:
    """Everything that runs. `Server.open` binds, `start` answers, `stop` ends in order."""

    def __init__(self, config: Config, config_path: Path, transactions: Transactions) -> None:
        self.config = config
        self._path = config_path
        self._log = structlog.get_logger("pxed")
        self.transactions = transactions
        self.library = Library(config.images_dir)
        self._interfaces = Interfaces(config.server.addresses)
        self._peers = Peers()
        self.metrics = Metrics()
        transactions.observe(self.metrics.changed)
        self._rates = Rates(config, interface_of=self._interfaces.interface_of, speed_of=speed)
        self._names = self._make_names()
        self._dhcp = self._make_dhcp()
        self._cast = self._make_cast() if config.cast.enabled else None
        self._http = self._make_http()
        self._tftp = self._make_tftp()
        self._queriers = igmp.QuerierWatch()
        parts = self._parts()
        self.metrics.watch(parts, self._inventory)
        self._drops = DropReport({part: parts[part] for part in ("tftp", "dhcp")})
        self._scraped = MetricsHttp(place, self.metrics) if (place := config.metrics.place) else None
        self.control = self._make_control()
        self._api = ApiServer(self.control, config.server.socket)
        self._ticker: asyncio.Task[None] | None = None

    # -- what it is made of ------------------------------------------------------------------------------------------

    def _make_names(self) -> Names:
        return Names(
            self.config,
            self.transactions,
            self._peers,
            self._interfaces.toward,
            has_image=self.library.has,
            metrics=self.metrics,
            ipv4_for=self._interfaces.ipv4_for,
        )

    def _make_dhcp(self) -> DhcpService:
        return DhcpService(
            self._interfaces,
            self.config.dhcp.same_host_dhcp,
            boot.Site.from_config(self.config),
            self.transactions,
            self._peers,
            missing=self._names.missing_programs,
            large=self._names.large_programs,
        )

    def _make_cast(self) -> CastService:
        return CastService(
            self.config,
            self.library,
            self.transactions,
            interface_of=self._interfaces.interface_of,
            ipv4_for=self._interfaces.ipv4_for,
            speed_of=speed,
            mac_of=self._peers.mac,
            line=self._rates.line,
        )

    def _make_http(self) -> MachineHttp:
        http = self.config.http
        return MachineHttp(
            self.config.server.addresses,
            http.port,
            self._names,
            self.transactions,
            self.library,
            limits=Limits(connections=http.connections, per_address=http.connections_per_address),
            metrics=self.metrics,
            mac_of=self._peers.mac,
            public_images=self.config.images.public,
            casts=self._cast,
        )

    def _make_tftp(self) -> TftpService:
        tftp = self.config.tftp
        service = TftpService(
            self.config.server.addresses,
            tftp.port,
            self._names,
            threads=tftp.threads,
            mtftp=self.config.mtftp,
            metrics=self.metrics,
            mac_of=self._peers.mac,
            rates=self._rates,
            transfer_ports=tftp.transfer_ports,
        )
        service.assign_groups(self.config.mtftp_groups)
        return service

    def _make_control(self) -> ServerControl:
        figures = Snapshots(
            self._tftp, self._http, self.metrics, self.transactions, self._peers, casts=self._parts()["cast"]
        )
        return ServerControl(
            self.config.server.addresses,
            self.transactions,
            self.library,
            services=self._services,
            counters=self._counters,
            metrics=self.metrics,
            traffic=figures.take,
            warnings=self._warnings,
            reread=self.reload,
            casts=self._cast,
            queriers=lambda: {name: self._queriers.heard(name) for name in self._multicast_interfaces()},
        )

    # -- its life ----------------------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: Config, config_path: Path) -> "Server":
        """Open the database and bind every port. Raises OperatorError, and nothing stays open."""
        _raise_descriptor_limit()
        _make_state_dir(Path(config.server.state_dir))
        server = cls(config, config_path, await Transactions.open(config))
        try:
            server._interfaces.refresh()
            if config.dhcp.enabled:
                server._dhcp.open()
            server._http.open()
            server._tftp.open()
            if server._cast is not None:
                server._cast.open()
            if server._scraped is not None:
                server._scraped.open()
            server._listen_for_queriers()
            await server._api.start()
            _drop_privileges(config, server.library)
        except BaseException:
            await server.stop()
            raise
        return server

    def _listen_for_queriers(self) -> None:
        try:
            self._queriers.open()
        except OperatorError as error:  # nothing depends on it
            self._log.info(str(error))

    def start(self) -> None:
        """Begin to answer."""
        self._queriers.start()
        if self.config.dhcp.enabled:
            self._dhcp.start()
        self._http.start()
        self._tftp.start()
        if self._cast is not None:
            self._cast.start()
        if self._scraped is not None:
            self._scraped.start()
        self._ticker = asyncio.get_running_loop().create_task(_tick(self._tick))
        # What is here now stays: the garbage collector's long pauses, in which no packet is answered, skip it.
        gc.collect()
        gc.freeze()

    def _tick(self, now: float) -> None:
        self.transactions.tick(now)
        self._drops.look(now)

    async def stop(self) -> None:
        """Stop answering, let responses in progress end, save everything. Safe after a failed `open`."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._dhcp.close()
        self._queriers.close()
        await self._tftp.stop()
        if self._cast is not None:
            await self._cast.stop()
        await self._http.stop(STOP_GRACE)
        if self._scraped is not None:
            await self._scraped.stop()
        await self._api.stop()
        await self.transactions.close()
        self.library.close()

    def reload(self) -> Reloaded:
        """Read the configuration again; running transfers do not notice. Raises ConfigError and changes nothing."""
        wanted = load(self._path)
        changed = _changed_keys(self.config, wanted)
        restart = tuple(key for key in changed if not _reloads(key))
        self.config = new = _taken_over(self.config, wanted)
        log.set_up(new.log.level, new.log.format)
        self.transactions.configure(new)
        self._names.configure(new)
        self._dhcp.site = boot.Site.from_config(new)
        self._http.public_images = new.images.public
        self._rates.configure(new)
        self._tftp.share_places()
        self._tftp.assign_groups(new.mtftp_groups)
        if self._cast is not None:
            self._cast.configure(new)
        self._log.info("configuration read again", changed=list(changed), needs_restart=list(restart))
        return Reloaded(changed=changed, restart=restart)

    # -- what it tells -----------------------------------------------------------------------------------------------

    def _services(self) -> tuple[ServiceStatus, ...]:
        config = self.config
        where, by_dhcp = ", ".join(config.server.addresses), ", ".join(config.server.ipv4)
        beside = "beside another daemon on this host" if config.dhcp.same_host_dhcp else "ports 67 and 4011"
        return (
            ServiceStatus("proxyDHCP", "running" if config.dhcp.enabled else "off", f"{by_dhcp}, {beside}"),
            ServiceStatus("TFTP", "running", f"{where}, port {config.tftp.port}"),
            ServiceStatus(
                "multicast TFTP", "running" if config.mtftp.enabled else "off", f"{by_dhcp}, port {config.mtftp.port}"
            ),
            ServiceStatus(
                "multicast images", "running" if self._cast else "off", f"{by_dhcp}, port {config.cast.port}"
            ),
            ServiceStatus("boot HTTP", "running", f"{where}, port {config.http.port}"),
            ServiceStatus("admin API", "running", config.server.socket),
            ServiceStatus("metrics", "running" if self._scraped else "off", config.metrics.listen or "admin API only"),
        )

    def _parts(self) -> dict[str, Callable[[], dict[str, int]]]:
        return {
            "dhcp": lambda: self._dhcp.statistics,
            "tftp": lambda: self._tftp.statistics,
            "http": lambda: self._http.statistics,
            "cast": lambda: self._cast.statistics if self._cast is not None else {},
        }

    def _counters(self) -> dict[str, int]:
        return {f"{part}.{name}": value for part, read in self._parts().items() for name, value in read().items()}

    def _inventory(self) -> Inventory:
        machines = self.transactions.machines()
        states = Counter(job.state for job in self.transactions.jobs())
        return Inventory(len(machines), sum(machine.known for machine in machines), states)

    def _multicast_interfaces(self) -> list[str]:
        multicast = self.config.mtftp.enabled or self.config.cast.enabled
        return [entry.name for entry in served(self.config.server.ipv4)] if multicast else []

    def _warnings(self) -> tuple[str, ...]:
        said = [finding.text for finding in diagnose.tftp_root(self.config)]
        missing = self._names.environment_missing()
        if missing:
            said.append(missing[0].upper() + missing[1:])
        try:
            self.library.store.check_writable()
        except OperatorError as error:
            said.append(f"Images cannot be imported or removed. {error}")
        said += [igmp.missing(name) for name in self._multicast_interfaces() if self._queriers.misses(name)]
        return tuple(said)


async def run(config: Config, config_path: Path) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads. Says on stdout, in one line, when it is ready."""
    log.set_up(config.log.level, config.log.format)
    logger = structlog.get_logger("pxed")
    server = await Server.open(config, config_path)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, server)
    try:
        server.start()
        for warning in server._warnings():
            logger.warning(warning)
        ready = f"pxed is ready on {', '.join(config.server.addresses)}; admin socket {config.server.socket}\n"
        log.SteadyStream(sys.stdout).write(ready)  # nobody has to listen
        await stop.wait()
        logger.info("stopping")
    finally:
        await server.stop()


async def _tick(tick: Callable[[float], None]) -> None:
    """Call `tick` with the time, again and again: one failure must not end the watch over all jobs."""
    told = ""
    while True:
        try:
            tick(time.time())
            told = ""
        except Exception as error:  # a bug of ours; told once, not each second
            if repr(error) != told:
                told = repr(error)
                structlog.get_logger("pxed").exception("the jobs' deadlines could not be looked at")
        await asyncio.sleep(TICK)


def _reload(server: Server) -> None:
    """SIGHUP: a mistake in the file is told, and the old configuration stays."""
    try:
        server.reload()
    except OperatorError as error:
        structlog.get_logger("pxed").error("configuration not taken over", error=str(error))


def _reloads(key: str) -> bool:
    """Whether a reload takes over 'section.key'."""
    return key in RELOADED or key.partition(".")[0] in RELOADED


def _keys() -> Iterator[tuple[str, str]]:
    """Every (section, key) of the configuration."""
    for section in fields(Config):
        for key in fields(section.type):
            yield section.name, key.name


def _changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """The keys that differ, as 'section.key'."""
    return tuple(
        f"{section}.{key}"
        for section, key in _keys()
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    )


def _taken_over(running: Config, wanted: Config) -> Config:
    """The running configuration with what a reload may change."""
    for section, key in _keys():
        if _reloads(f"{section}.{key}"):
            part = replace(getattr(running, section), **{key: getattr(getattr(wanted, section), key)})
            running = replace(running, **{section: part})
    return running


def _make_state_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OperatorError(f"server.state_dir {path} cannot be made: {error.strerror}") from error


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _drop_privileges(config: Config, library: Library) -> None:
    """Become `server.user`, who must own what the server writes."""
    if not config.server.user:
        return
    try:
        entry = pwd.getpwnam(config.server.user)
    except KeyError:
        raise OperatorError(f"server.user {config.server.user}: there is no such user on this host") from None
    for root, names, files in os.walk(config.server.state_dir):
        for name in (".", *names, *files):
            os.chown(os.path.join(root, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)  # noqa: PTH118
    library.give(entry.pw_uid, entry.pw_gid)  # images.dir may lie elsewhere
    _make_readable(Path(config.environment_dir))
    os.chown(config.server.socket, entry.pw_uid, entry.pw_gid)
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _make_readable(environment: Path) -> None:
    """Let `server.user` read the environment that root built: every machine gets it anyway."""
    with contextlib.suppress(OSError):  # not built yet, or elsewhere than this host may write
        environment.chmod(environment.stat().st_mode | 0o555)
        for path in environment.iterdir():
            if path.is_file() and not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444)
