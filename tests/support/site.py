"""A site as the end-to-end tests use it: machines are powered on, and what becomes of them is waited for."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import demo_disk
from lab.machine import Hardware, Machine
from lab.network import Segment
from lab.server import Server
from pxed.api.control import Change
from pxed.cli.client import Client
from pxed.errors import PxedError
from pxed.types import Event, Job

IMAGE_MIB = 384
PAYLOAD_MIB = 64
# Limits of waiting, generous: under QEMU without KVM on a busy machine everything may take ten times as long.
BOOT = 300.0
SOON = 120.0


class Site:
    """The running site of one test."""

    def __init__(
        self, segment: Segment, server: Server, directory: Path, image: Path, stack: contextlib.ExitStack
    ) -> None:
        self.segment = segment
        self.server = server
        self.directory = directory
        self.image = image
        self._stack = stack
        self._count = 0
        self.machines: list[Machine] = []

    def machine(
        self,
        firmware: str = "bios",
        *,
        disk_mib: int = IMAGE_MIB,
        content: Path | None = None,
        disk_bus: str = "virtio",
    ) -> Machine:
        """A machine that is off, with a blank disk, or one with `content`."""
        self._count += 1
        disk = self.directory / f"disk{self._count}"
        if content is not None:
            subprocess.run(["cp", "--sparse=always", content, disk], check=True)
        with disk.open("ab") as file:
            file.truncate(disk_mib << 20)
        hardware = Hardware(
            name=f"{firmware}{self._count}", firmware=firmware, mac=f"52:54:00:78:01:{self._count:02x}", disk=disk,
            uuid=f"5d7c1f0e-0000-4000-8000-{self._count:012d}", serial=f"PXED{self._count:04d}", disk_bus=disk_bus,
        )  # fmt: skip
        machine = Machine(hardware, self.segment, self.directory)
        self._stack.callback(machine.power_off)
        self.machines.append(machine)
        return machine

    def job(self, machine: Machine, image: str = "demo") -> int:
        """Record the machine and give it a restore job; the job's id."""
        name = machine.hardware.name
        if name not in [known["name"] for known in self.json("machine", "list")]:
            self.server.pxed("machine", "add", "--mac", machine.hardware.mac, "--name", name)
        made = json.loads(self.server.pxed("job", "add", "--machine", name, "--image", image, "--json"))
        return int(made["id"])

    def json(self, *argv: str) -> Any:
        """A listing."""
        return self.server.json(*argv)

    def job_now(self, job_id: int) -> dict[str, Any]:
        """A job as it is."""
        found: dict[str, Any] = self.json("job", "show", str(job_id))
        return found.get("job", found)

    def watch(self) -> "Watch":
        """Everything that happens from now on."""
        return Watch(self.server)

    def timeline(self, machine: Machine) -> list[tuple[str, str]]:
        """(kind, text) of a machine's timeline."""
        shown = self.json("machine", "show", machine.hardware.mac)
        return [(event["kind"], event["text"]) for event in shown["timeline"]]

    def same(self, machine: Machine) -> bool:
        """Whether the machine's disk begins with the image, byte by byte."""
        return (
            subprocess.run(
                ["cmp", "--quiet", "-n", str(self.image.stat().st_size), self.image, machine.hardware.disk]
            ).returncode
            == 0
        )

    def shape(self, machine: Machine, rate: str | None) -> None:
        """Slow the machine's port down to `rate` (as `tc` writes it), or let it go."""
        shape = ["tc", "qdisc", "replace", "dev", machine.tap, "root"]
        self.segment.switch.run(
            *shape, *(["tbf", "rate", rate, "burst", "64k", "latency", "50ms"] if rate else ["pfifo_fast"])
        )

    def corrupt_chunk(self, position: float) -> None:
        """Turn one bit of the image store's packs, at this part of the largest pack."""
        packs = (self.directory / "state/images/packs").iterdir()
        pack = max(packs, key=lambda path: path.stat().st_size)
        with pack.open("r+b") as file:
            file.seek(int(pack.stat().st_size * position))
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))

    def show(self) -> None:
        """Print consoles and the server's log."""
        for machine in self.machines:
            print(f"== {machine.hardware.name}\n{machine.tail(200)}")
        print(f"== pxed\n{self.server.tail(200)}")

    def own_system(self, machine: Machine, since: int = 0) -> None:
        """Wait until the machine runs its own system."""
        machine.wait_for(demo_disk.MARKER, BOOT, since)


class Watch:
    """Collects the server's live stream until the server stops; `until` waits for something in it."""

    def __init__(self, server: Server) -> None:
        self.events: list[Event] = []
        self.jobs: list[Job] = []
        self._changed = threading.Condition()
        self._ended = False
        self._begun = threading.Event()
        self._client = Client(str(server.socket))
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        assert self._begun.wait(SOON), "the event stream did not begin"

    def _follow(self) -> None:
        with contextlib.suppress(PxedError):
            for change in self._client.stream("/events", Change):
                self._begun.set()
                with self._changed:
                    if change.event is not None:
                        self.events.append(change.event)
                    if change.job is not None:
                        self.jobs.append(change.job)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def until(self, condition: Callable[["Watch"], bool], timeout: float = BOOT) -> None:
        """Wait for a condition on what was collected; AssertionError with the last of it otherwise."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition(self):
                left = deadline - time.monotonic()
                recent = "\n".join(f"{event.kind}: {event.text}" for event in self.events[-30:])
                assert left > 0 and not self._ended, (
                    f"it did not happen ({'the stream ended' if self._ended else 'too late'}):\n{recent}"
                )
                self._changed.wait(left)

    def event(self, kind: str, text: str = "", timeout: float = BOOT) -> Event:
        """Wait for a timeline line of this kind that contains `text`."""

        def found() -> list[Event]:
            return [event for event in self.events if event.kind == kind and text in event.text]

        self.until(lambda _: bool(found()), timeout)
        return found()[0]

    def state(self, job_id: int, *states: str, timeout: float = BOOT) -> Job:
        """Wait until a job has been in one of these states."""

        def found() -> list[Job]:
            return [job for job in self.jobs if job.id == job_id and job.state in states]

        self.until(lambda _: bool(found()), timeout)
        return found()[0]

    def percent(self, job_id: int, least: float, timeout: float = BOOT) -> None:
        """Wait until a running job's progress has reached this."""
        self.until(
            lambda _: any(j.id == job_id and j.state == "running" and j.percent >= least for j in self.jobs), timeout
        )
