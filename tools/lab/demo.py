"""The main job, end to end: two blank machines, one BIOS and one UEFI, are imaged and boot their own system.

tools/demo [--keep DIR]      DIR keeps consoles, logs and disks
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab import demo_disk, environment
from lab.machine import Hardware, Machine
from lab.network import Segment, SiteDhcp
from lab.server import Server
from pxed.api.control import Change
from pxed.cli.client import Client
from pxed.errors import PxedError
from pxed.types import Event, Job

# Milestones of a boot, in order: timeline kinds of the server's, the last one seen on the machine's console.
MILESTONES = {
    "offer": "offer",
    "boot-program": "boot program",
    "check": "check",
    "environment": "environment",
    "restore": "restore",
    "verified": "verified",
    "rebooted": "rebooted",
    "own system": "own system booted",
}
PATIENCE = 480.0  # seconds from power-on to the own system: what takes 60 here may take minutes on a busy machine


@dataclass
class Watched:
    """One machine on the screen."""

    machine: Machine
    started: float = 0.0
    reached: dict[str, float] = field(default_factory=dict)  # milestone -> seconds since power-on
    percent: float = 0.0
    rate: float = 0.0
    last: str = ""
    failed: str = ""

    @property
    def done(self) -> bool:
        """Its own system runs, or it never will."""
        return "own system" in self.reached or bool(self.failed)


class Screen:
    """The timeline of both machines: live on a terminal, a line per event in a pipe."""

    def __init__(self, console: Console, machines: list[Watched]) -> None:
        self.console = console
        self.by_mac = {watched.machine.hardware.mac: watched for watched in machines}
        self.by_id: dict[int, Watched] = {}
        self.changed = threading.Condition()

    def event(self, event: Event) -> None:
        """A line of a machine's timeline."""
        watched = self.by_mac.get(event.mac)
        if watched is None:
            return
        with self.changed:
            if event.machine_id is not None:
                self.by_id[event.machine_id] = watched
            watched.last = event.text
            if event.kind == "failed":
                watched.failed = event.text
            if event.kind in MILESTONES:
                self._reach(watched, event.kind, event.time)
            self._say(watched, event.time, event.text)

    def job(self, job: Job) -> None:
        """A job's progress."""
        watched = self.by_id.get(job.machine_id)
        if watched is None:
            return
        with self.changed:
            moved = int(job.percent / 10) != int(watched.percent / 10)
            watched.percent, watched.rate = job.percent, job.rate
            if moved:
                self._say(watched, time.time(), f"restore {job.percent:.0f} %, {job.rate / 1e6:.0f} MB/s")

    def line(self, watched: Watched, when: float, text: str) -> None:
        """A line of a machine's console."""
        if demo_disk.MARKER in text:
            with self.changed:
                self._reach(watched, "own system", when)
                watched.last = text
                self._say(watched, when, text)

    def _reach(self, watched: Watched, milestone: str, when: float) -> None:
        watched.reached.setdefault(milestone, when - watched.started)
        self.changed.notify_all()

    def _say(self, watched: Watched, when: float, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(
                f"{when - watched.started:6.1f} s  {watched.machine.hardware.name:5}  {text}", soft_wrap=True
            )

    def __rich__(self) -> Group:
        now = time.time()
        parts: list[Table | Text] = []
        for watched in self.by_mac.values():
            grid = Table.grid(padding=(0, 1))
            spent = f"{now - watched.started:.0f} s" if not watched.done else ""
            grid.add_row(Text(watched.machine.hardware.name, style="bold"), watched.machine.hardware.mac, spent)
            for milestone, label in MILESTONES.items():
                at = watched.reached.get(milestone)
                mark = Text("✓", style="green") if at is not None else Text("·", style="dim")
                bar = ""
                if milestone == "restore" and at is not None:
                    bar = ProgressBar(total=100, completed=watched.percent, width=30)
                rate = f"{watched.percent:.0f} % {watched.rate / 1e6:.0f} MB/s" if bar else ""
                grid.add_row(mark, label, f"{at:6.1f} s" if at is not None else "", bar, rate)
            parts += [
                grid,
                Text("  " + (watched.failed or watched.last), style="red" if watched.failed else "dim"),
                Text(),
            ]
        return Group(*parts)


def _follow(client: Client, screen: Screen, ready: threading.Event) -> None:
    """Feed the screen from the server's live stream until the server stops."""
    with contextlib.suppress(PxedError):  # the stream ends with the server
        for change in client.stream("/events", Change):
            ready.set()
            if change.event is not None:
                screen.event(change.event)
            if change.job is not None:
                screen.job(change.job)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="pxed-demo-", dir="/var/tmp") as name:
            yield Path(name)


def _machines(directory: Path, size: int, segment: Segment) -> list[Watched]:
    found = []
    for number, firmware in enumerate(("bios", "uefi"), 1):
        disk = directory / f"{firmware}.disk"
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(size)
        hardware = Hardware(
            name=firmware, firmware=firmware, mac=f"52:54:00:78:00:{number:02x}", disk=disk,
            uuid=f"5d7c1f0e-0000-4000-8000-{number:012d}", serial=f"PXED{number:04d}",
        )  # fmt: skip
        found.append(Watched(Machine(hardware, segment, directory)))
    return found


def _summary(console: Console, machines: list[Watched], same: dict[str, bool]) -> None:
    table = Table(title="Seconds since power-on")
    table.add_column("")
    for watched in machines:
        table.add_column(watched.machine.hardware.name, justify="right")
    for milestone, label in MILESTONES.items():
        reached = [watched.reached.get(milestone) for watched in machines]
        table.add_row(label, *("-" if at is None else f"{at:.1f}" for at in reached))
    table.add_section()
    table.add_row("disk = image", *("yes" if same[watched.machine.hardware.name] else "NO" for watched in machines))
    console.print(table)


def _run(console: Console, directory: Path) -> bool:
    step = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]== {text}[/dim] ({time.monotonic() - step:.1f} s)")

    env = environment.ensure()
    say("the imaging environment is built")
    image = directory / "demo.raw"
    demo_disk.make(image, cache=environment.CACHE)
    say("a bootable disk of our own is made")
    with contextlib.ExitStack() as stack:
        segment = stack.enter_context(Segment())
        host = segment.host("pxed", "10.78.0.1/24")
        site = segment.host("site", "10.78.0.2/24")
        stack.callback(SiteDhcp(site, directory / "site", "10.78.0.50", "10.78.0.99").close)
        server = Server(host, directory, "10.78.0.1", env)
        stack.callback(server.close)
        server.pxed("image", "import", image, "--name", "demo")
        say("its image is imported")
        server.start()
        machines = _machines(directory, image.stat().st_size, segment)
        for watched in machines:
            hardware = watched.machine.hardware
            server.pxed("machine", "add", "--mac", hardware.mac, "--name", hardware.name)
            server.pxed("job", "add", "--machine", hardware.name, "--image", "demo")
        say("pxed serves beside the site's DHCP server; both machines have a restore job: powering them on")
        _watch(console, server, machines, stack)
        for watched in machines:
            watched.machine.power_off()
        same = {
            watched.machine.hardware.name: subprocess.run(["cmp", image, watched.machine.hardware.disk]).returncode == 0
            for watched in machines
        }
        _summary(console, machines, same)
        fine = all("own system" in watched.reached for watched in machines) and all(same.values())
        if not fine:
            for watched in machines:
                if "own system" not in watched.reached:
                    console.print(
                        f"\n{watched.machine.hardware.name}: the console's last lines\n{watched.machine.tail()}",
                        markup=False,
                    )
            console.print(f"\nthe server's last lines\n{server.tail()}", markup=False)
        return fine


def _watch(console: Console, server: Server, machines: list[Watched], stack: contextlib.ExitStack) -> None:
    """Power on, and look until both run their own system."""
    screen = Screen(console, machines)
    client = Client(str(server.socket))
    ready = threading.Event()
    threading.Thread(target=_follow, args=(client, screen, ready), daemon=True).start()
    if not ready.wait(PATIENCE):
        raise RuntimeError("the server's event stream did not begin")
    for watched in machines:
        watched.started = time.time()
        watched.machine.on_line = lambda when, text, watched=watched: screen.line(watched, when, text)
        stack.callback(watched.machine.power_off)
        watched.machine.power_on()
    live = Live(screen, console=console, refresh_per_second=4) if console.is_terminal else contextlib.nullcontext()
    with live, screen.changed:
        screen.changed.wait_for(lambda: all(watched.done for watched in machines), PATIENCE)


def main() -> int:
    """Run the demo; 0 when both machines were imaged, booted and carry the image byte by byte."""
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep consoles, logs and disks in DIR")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything made here is taken down
    console = Console()
    try:
        with _directory(options.keep) as directory:
            return 0 if _run(console, directory) else 1
    except (RuntimeError, subprocess.CalledProcessError) as error:  # a command's own words say what is wrong
        console.print(f"tools/demo: {error}", markup=False, style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
