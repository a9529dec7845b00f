"""Two network namespaces joined by a cable (veth), and servers in one of them. Needs root, iproute2 and util-linux.

The namespaces have no names: each lives as long as a shell that waits on a pipe of ours, so they go away with us,
however we end. So do servers: each is in a process namespace whose first process the kernel kills when we die. To let
the kernel kill the server itself is not enough: dnsmasq changes its capabilities, and the kernel forgets the wish.
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from pxed.bench.measure import Seat, Target
from pxed.bench.namespace import Stage
from pxed.bench.peers import PEERS, Place, find
from pxed.bench.process import Group, check_memory, cpu_seconds, tree
from pxed.errors import OperatorError

__all__ = ["CLIENTS", "FILE", "WITH_US", "Lab", "come_first", "content", "own_version", "stop"]

FILE = "bench.bin"

_NETWORK = "10.99"
_PREFIX = 16
# Client addresses need not be configured one by one: the whole block is local to the clients' namespace.
_CLIENT_BLOCK = f"{_NETWORK}.64.0/18"
FIRST_CLIENT = f"{_NETWORK}.64.1"
CLIENTS = (1 << 14) - 2
_GATEWAY = f"{_NETWORK}.63.254"
_PROGRAMS = ("undionly.kpxe", "snponly.efi")  # offered, not loaded
_MTU = 1500
_PRIORITY = -20
# What follows these words ends with us, in a process namespace of its own; `stop` ends it.
WITH_US = (
    "setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh",
)  # fmt: skip
_AUTOGROUP = Path("/proc/self/autogroup")  # sched(7): where it is on, priorities count within a session only


def stop(outer: "subprocess.Popen[bytes]") -> None:
    """End a process namespace: `outer` waits for its first process, whose end is that of all within."""
    for process in tree(outer.pid)[1:2] or [outer.pid]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    outer.wait()


class Lab(Stage):
    """The namespaces, the file that is served, and the servers; everything ends with the `with` block.

    size: bytes of the file. threads: of pxed's TFTP. peers_cache: where peers that are not installed are unpacked.
    dhcp: the servers answer PXE clients too, whom they do not know and who are behind a relay. Only one server can have
    the DHCP ports: such a lab is for one. multicast: the servers give TFTP clients multicast that ask for it.
    """

    def __init__(
        self, size: int, clients: int, threads: int = 1, peers_cache: Path | None = None, *, dhcp: bool = False,
        multicast: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if clients > CLIENTS:
            raise OperatorError(f"A lab has addresses for {CLIENTS} clients.")
        check_memory(size)
        self.content = content(size)
        self._clients = clients
        self._threads = threads
        self._cache = peers_cache
        self._dhcp = dhcp
        self._multicast = multicast
        self._servers = 0

    def _build(self) -> None:
        come_first(self._stack)
        self._work = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pxed-bench-")))
        self.root = self._work / "tftp"
        self.root.mkdir()
        (self.root / FILE).write_bytes(self.content)
        # Files of this very moment may still be changing, and servers that cache know it.
        os.utime(self.root / FILE, (1_000_000_000, 1_000_000_000))
        for name in _PROGRAMS if self._dhcp else ():
            (self.root / name).touch()
        for path in (self._work, self.root, self.root / FILE):
            path.chmod(0o755)
        self.server_side = self._namespace()
        self._connect()

    def _connect(self) -> None:
        """Bring the clients to the server."""
        self.client_side = self._namespace()
        self.server_side.run(
            "ip", "link", "add", "name", "bench0", "mtu", str(_MTU), "type", "veth",
            "peer", "name", "bench0", "mtu", str(_MTU), "netns", str(self.client_side.pid),
        )  # fmt: skip
        for side, address in ((self.server_side, f"{_NETWORK}.0.1"), (self.client_side, _GATEWAY)):
            side.run("ip", "address", "add", f"{address}/{_PREFIX}", "dev", "bench0")
            side.run("ip", "link", "set", "dev", "bench0", "up")
        self.client_side.run("ip", "route", "add", "local", _CLIENT_BLOCK, "dev", "lo")
        if self._dhcp:
            self.server_side.run("ip", "route", "add", _CLIENT_BLOCK, "via", _GATEWAY)
        self.link = ("bench0", self.client_side.mac("bench0"), self.server_side.mac("bench0"))

    @property
    def seat(self) -> Seat:
        """Where this lab's clients are."""
        return Seat(FIRST_CLIENT, self.client_side.entered, self.server_side.pid, self.link)

    def start(self, name: str, port: int, note: Callable[[str], None] = lambda text: None) -> Target:
        """Start a server ("pxed" or one of PEERS) on an address of its own; it is not yet waited for.

        port: where it is going to be measured.
        """
        address = self._address()
        if name == "pxed":
            return self._start(name, own_version(), address, port, self._pxed(address), {})
        program = find(name, self._cache, note)
        proxied = (_CLIENT_BLOCK,) if self._dhcp else ()
        place = Place(address, self.root, self._clients, self._work, proxied, self._multicast)
        command = program.command + PEERS[name].command(place)
        return self._start(name, program.version, address, port, command, program.environment)

    def start_command(self, words: str, port: int, **values: object) -> Target:
        """Start any server from its command line; {address}, {root}, {file} and the keys of `values` are filled in."""
        address = self._address()
        try:
            filled = [
                word.format(address=address, root=self.root, file=self.root / FILE, **values)
                for word in shlex.split(words)
            ]
        except (KeyError, ValueError, IndexError) as error:
            raise OperatorError(f"The command line `{words}` cannot be filled in: {error}.") from error
        if not filled or shutil.which(filled[0]) is None:
            raise OperatorError(f"There is no program `{filled[0] if filled else words}`.")
        return self._start(Path(filled[0]).name, "", address, port, filled, {})

    def _address(self) -> str:
        self._servers += 1
        address = f"{_NETWORK}.0.{self._servers}"
        if self._servers > 1:
            self.server_side.run("ip", "address", "add", f"{address}/{_PREFIX}", "dev", "bench0")
        return address

    def _start(
        self, name: str, release: str, address: str, port: int, command: list[str], environment: dict[str, str]
    ) -> Target:
        join, meter = self._meter(name)
        log = self._work / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*join, *WITH_US, "nsenter", f"--net=/proc/{self.server_side.pid}/ns/net", "--",
                 *command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environment},
            )  # fmt: skip
        self._stack.callback(stop, process)

        def alive() -> None:
            if process.poll() is not None:
                said = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise OperatorError(f"{name} ended by itself: {' / '.join(said) or 'it said nothing'}")

        return Target(name, release, address, FILE, port, cpu=meter or (lambda: cpu_seconds(process.pid)), alive=alive)

    def _meter(self, name: str) -> tuple[list[str], Callable[[], float] | None]:
        """The words before a command that is to be metered, and the meter; nothing where there are no groups."""
        try:
            group = Group(name)
        except OSError:
            return [], None
        self._stack.callback(group.close)
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group.entrance)], group.cpu_seconds

    def _pxed(self, address: str) -> list[str]:
        config = self._work / "pxed.toml"
        # A peer answers anybody; of pxed that is what "hold" comes nearest to.
        dhcp = 'enabled = true\n[transaction]\nunknown_machines = "hold"' if self._dhcp else "enabled = false"
        config.write_text(
            f'[server]\naddress = "{address}"\nstate_dir = "{self._work}/state"\nsocket = "{self._work}/pxed.sock"\n'
            f'[log]\nlevel = "warning"\n[tftp]\nroot = "{self.root}"\n'
            f"threads = {self._threads}\n[dhcp]\n{dhcp}\n[mtftp]\nenabled = {str(self._multicast).lower()}\n"
        )
        return [sys.executable, "-c", "from pxed.cli import main; main()", "--config", str(config), "serve"]


def come_first(stack: ExitStack) -> None:
    """What this process starts comes before what else the host does, until the stack closes; SIGTERM closes it too."""
    if threading.current_thread() is threading.main_thread():
        # `kill` shall clean up like Ctrl-C does.
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _terminated))
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        stack.callback(os.setpriority, os.PRIO_PROCESS, 0, before)
        of_group = _AUTOGROUP.read_text().split()  # empty without one: nothing to raise then
        if of_group:
            _AUTOGROUP.write_text(str(_PRIORITY))
            stack.callback(_AUTOGROUP.write_text, of_group[-1])


def content(size: int) -> bytes:
    """Bytes that do not repeat and are the same in every run."""
    source, piece = random.Random(size), 1 << 20
    return b"".join(source.randbytes(min(piece, size - at)) for at in range(0, size, piece))


def _terminated(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def own_version() -> str:
    """Of the installed pxed; "?" where it is not installed."""
    try:
        return version("pxed")
    except PackageNotFoundError:
        return "?"
