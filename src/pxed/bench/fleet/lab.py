"""A fleet over real packets: a real pxed in one network namespace, the virtual machines in another, a cable between
them that is as slow (tc's tbf) and as lossy (nftables) as asked for. Needs root, iproute2, nftables, util-linux.
"""

import asyncio
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pxed import log
from pxed.bench.fleet.drive import Driver
from pxed.bench.fleet.network import Trouble
from pxed.bench.fleet.plan import Plan, contents, identity, machines
from pxed.bench.fleet.result import Result, summarise
from pxed.bench.fleet.server import PROGRAMS, SiteDhcp
from pxed.bench.lab import FIRST_CLIENT, Lab
from pxed.config import Config, load
from pxed.errors import OperatorError
from pxed.images.library import Library
from pxed.service.transactions import Transactions

__all__ = ["NO_LOSS", "FleetLab", "run"]

_INTERFACE = "bench0"
_SITE = "10.99.0.254"
_ENVIRONMENT = "pxed/environment/"
_IMAGE = "fleet"
_READY = 60.0  # seconds until the server must be up
_QUEUE = 2 << 20  # bytes: of a switch's port with a good buffer, and of a Linux interface by default
_BURST = 1 << 17  # bytes that the shaper lets go at once: a millisecond of a Gbit/s
_DESCRIPTORS = 8192
NO_LOSS = "This kernel's nftables cannot lose packets by chance"


class FleetLab(Lab):
    """A lab whose pxed has boot programs, an environment, and a job for every machine of the plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(1, plan.machines, threads=1)
        self.plan = plan

    def __enter__(self) -> "FleetLab":
        super().__enter__()
        return self

    def _build(self) -> None:
        super()._build()
        self.files = contents(self.plan, self.address)
        for name, data in self.files.items():
            root = self._work / "environment" if name.startswith(_ENVIRONMENT) else self.root
            path = root / name.removeprefix(_ENVIRONMENT)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._shape()
        if self.plan.loss:
            for side in (self.server_side, self.client_side):
                _lose(side.run, self.plan.loss)
        with suppress(OperatorError):  # firmware does not tell servers that a port is closed; pxed can do with both
            self.client_side.run("nft", "add table ip quiet")
            self.client_side.run("nft", "add chain ip quiet out { type filter hook output priority 0; }")
            self.client_side.run("nft", "add rule ip quiet out ip protocol icmp drop")

    @property
    def address(self) -> str:
        """The server's."""
        return "10.99.0.1"

    def _shape(self) -> None:
        # One packet on the cable is one packet for the loss, not 64 KiB that TCP sends in one go: those are cut up
        # behind the shaper. (To shape packets one by one would cost a timer each, which is dear in a virtual machine.)
        for side in (self.server_side, self.client_side):
            for feature in ("tso", "tx-udp-segmentation"):
                with suppress(OperatorError):  # a kernel that has no such feature does not need it off
                    side.run("ethtool", "-K", _INTERFACE, feature, "off")
        if not self.plan.rate:
            return
        self.server_side.run(
            "tc", "qdisc", "replace", "dev", _INTERFACE, "root", "handle", "1:", "tbf", "rate",
            f"{self.plan.rate:.0f}bit", "burst", str(_BURST), "limit", str(self.plan.queue or _QUEUE),
        )  # fmt: skip
        if self.plan.queue is None:  # the server's own port, with what the kernel gives a port by itself
            self.server_side.run(
                "tc", "qdisc", "add", "dev", _INTERFACE, "parent", "1:1", "handle", "10:", "pfifo_fast"
            )  # fmt: skip

    def _pxed(self, address: str) -> list[str]:
        pace = f'rate = "{self.plan.pace / 1e6:g}Mbit"\n' if self.plan.pace else ""
        programs = ", ".join(f'"{int(arch)}" = "{name}"' for arch, name in PROGRAMS.items())
        config = self._work / "pxed.toml"
        config.write_text(
            f'[server]\naddress = "{address}"\nstate_dir = "{self._work}/state"\nsocket = "{self._work}/pxed.sock"\n'
            f'[log]\nlevel = "warning"\n[dhcp]\nboot_programs = {{ {programs} }}\nboot_program_dir = "{self.root}"\n'
            f'[tftp]\nroot = "{self.root}"\nthreads = {self._threads}\n{pace}'
            f'[environment]\ndir = "{self._work}/environment"\n'
        )
        _give_work(config, self._work, self.plan.machines)
        return [sys.executable, "-c", "from pxed.cli import main; main()", "--config", str(config), "serve"]

    def wait(self, alive: Callable[[], None]) -> None:
        """Until pxed says that it is ready. Raises OperatorError."""
        said, deadline = self._work / "pxed.log", time.monotonic() + _READY
        while "is ready" not in said.read_text(errors="replace"):
            alive()
            if time.monotonic() > deadline:
                raise OperatorError(f"pxed was not ready within {_READY:.0f} s.")
            time.sleep(0.02)


def _lose(run: Callable[..., str], share: float) -> None:
    """Drop a share of what arrives on this side of the cable."""
    run("nft", "add table ip lossy")
    run("nft", "add chain ip lossy in { type filter hook prerouting priority -300; }")
    run(
        "nft",
        f'add rule ip lossy in iifname "{_INTERFACE}" numgen random mod 100000 < {share * 100000:.0f} counter drop',
    )


def _lost(run: Callable[..., str]) -> int:
    """Packets that were dropped on this side."""
    rules = json.loads(run("nft", "--json", "list", "chain", "ip", "lossy", "in"))["nftables"]
    expressions = [part for item in rules if "rule" in item for part in item["rule"]["expr"]]
    return sum(int(part["counter"]["packets"]) for part in expressions if "counter" in part)


def _give_work(config: Path, directory: Path, count: int) -> None:
    """Machines and jobs, in the database that the server finds when it starts."""
    settings = load(config)
    Path(settings.server.state_dir).mkdir(mode=0o700)
    disk = directory / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with Library(settings.images_dir) as library:
        image = library.import_image(disk, _IMAGE, image_format="raw").image
    asyncio.run(_add_jobs(settings, count, image.id))


async def _add_jobs(settings: Config, count: int, image: str) -> None:
    transactions = await Transactions.open(settings)
    try:
        for number in range(count):
            who = identity(number)
            machine = await transactions.add_machine(
                mac=who.mac, uuid=who.uuid, serial=who.serial, manufacturer=who.manufacturer, product=who.product
            )
            await transactions.create_job(machine, image, _IMAGE)
    finally:
        await transactions.close()


def run(plan: Plan, progress: Callable[[int], None] = lambda done: None) -> Result:
    """Play a fleet to its end. Raises OperatorError: no root, no nftables, no namespaces, a server that fails."""
    for program, package in (("nft", "nftables"), ("ethtool", "ethtool"), ("tc", "iproute2")):
        if shutil.which(program) is None:
            raise OperatorError(f"A fleet's lab needs `{program}` (apt install {package}).")
    log.set_up("error", "auto")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(_DESCRIPTORS, 4 * plan.machines)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    with FleetLab(plan) as built:
        target = built.start("pxed", 80)
        built.wait(target.alive)
        made, power_on = machines(plan, built.files)
        numbers = {machine.mac: machine.number for machine in made}
        site = SiteDhcp(_SITE, FIRST_CLIENT, numbers.get)
        with built.client_side.entered():
            driver = Driver(made, power_on, _INTERFACE, site, built.files, Trouble(loss=plan.loss), plan.seed)
            before = target.cpu() if target.cpu else 0.0
            began, used = time.monotonic(), time.process_time()
            driver.run(target.alive, progress)
        took = time.monotonic() - began
        sides = (built.server_side, built.client_side) if plan.loss else ()
        figures = {
            "lost on cables": sum(_lost(side.run) for side in sides),
            "refused by our kernel": driver.refused,
            "server CPU ms": round(1000 * ((target.cpu() if target.cpu else 0.0) - before)),
            "our CPU ms": round(1000 * (time.process_time() - used)),
        }
    return summarise(plan, "lab", made, power_on, figures, took)
