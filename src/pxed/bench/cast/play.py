"""Plays one case with one party in a room of its own, and takes the time of each receiver."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from pxed.bench.cast.parties import PARTIES, Disk, Party
from pxed.bench.cast.plan import Case, Plan, Role, roles
from pxed.bench.cast.room import Room
from pxed.bench.lab import WITH_US, come_first, content, stop
from pxed.bench.namespace import Namespace
from pxed.bench.process import check_memory
from pxed.errors import OperatorError

__all__ = ["Got", "Play", "Stage"]

_LOOK = 0.01  # seconds between looks at the receivers
_BLOCK = 512  # of stat(2)
_READY = 60.0  # seconds until a daemon must be up
_GRACE = 3.0  # for receivers whose sender has ended
_PATIENCE_FOR_PXED = 2.0  # times the limit: pxed is to come to an end by itself
_MEMORY = Path("/dev/shm")  # noqa: S108 - disks in memory: it is the network that is measured
# A receiver is one program, which is stopped and killed itself: it has no process namespace as what WITH_US starts.
_KILLED_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class Got(Struct, frozen=True):
    """What one receiver got. seconds: from its start until it had all; None: it had not, for `why`."""

    role: str
    ends: bool  # whether it was expected to
    seconds: float | None
    why: str = ""
    again: float | None = None  # share of the image that it fetched after its second start


class Play(Struct, frozen=True):
    """One case played once. wire: bytes that left the server, in units of the image."""

    party: str
    receivers: list[Got]
    wire: float
    refused: str = ""


class _Receiver:
    """One machine: its programs, its clock, its disk."""

    def __init__(self, role: Role, place: Namespace, directory: Path) -> None:
        self.role = role
        self.disk = Disk(directory, role.disk)
        self.ended: float | None = None
        self.why = ""
        self.began: float | None = None
        self.restarted = False
        self.event_due = bool(role.signal)
        self._place = place
        self._running: list[subprocess.Popen[bytes]] = []
        self._done: Callable[[], bool] | None = None
        self.log = directory / "log"
        directory.mkdir()

    @property
    def settled(self) -> bool:
        """Nothing more is expected of it."""
        return self.ended is not None or bool(self.why) or (not self.role.ends and not self.event_due)

    def start(self, party: Party, now: float) -> None:
        """Its clock begins, or goes on after a restart."""
        launch = party.receiver(self.disk)
        self._done = launch.done
        if self.began is None:
            self.began = now
        with self._place.entered(), self.log.open("ab") as log:
            first = subprocess.Popen(
                [*_KILLED_WITH_US, *launch.command], stdin=subprocess.DEVNULL, stderr=log,
                stdout=subprocess.PIPE if launch.into else log,
            )  # fmt: skip
            self._running = [first]
            if launch.into:
                self._running.append(
                    subprocess.Popen([*_KILLED_WITH_US, *launch.into], stdin=first.stdout, stdout=log, stderr=log)
                )
                assert first.stdout is not None
                first.stdout.close()

    def look(self, party: Party, now: float, since: float) -> None:
        """Whether it has ended, or something is to happen to it. Times: the clock, and the room's start."""
        if self.began is None:
            if now - since >= self.role.start:
                self.start(party, now)
            return
        if self.event_due and self._is_time(now - since, party.plan.size):
            self._event(party, now)
        elif self._done is not None and self._done():
            self.ended = now
        elif all(process.poll() is not None for process in self._running):
            if self._done is None and not any(process.returncode for process in self._running):
                self.ended = now
            elif self.role.ends or self.event_due:
                self.why = self._last_words()

    def _is_time(self, seconds: float, size: int) -> bool:
        if not self.role.filled:
            return seconds >= self.role.event
        blocks = sum(path.stat().st_blocks for path in self.disk.directory.iterdir() if path != self.log)
        return blocks * _BLOCK >= self.role.filled * size

    def _event(self, party: Party, now: float) -> None:
        self.event_due = False
        self._running[0].send_signal(self.role.signal)
        if self.role.restart:
            self._running[0].wait()
            self.restarted = True
            self.log.write_bytes(b"")
            self.start(party, now)

    def _last_words(self) -> str:
        said = self.log.read_text(errors="replace").strip().splitlines()
        return f"it ended: {said[-1] if said else 'without a word'}"

    def stop(self) -> None:
        """End its programs."""
        for process in self._running:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def got(self, party: Party, expected: Path, limit: float) -> Got:
        """The outcome; every byte is compared. Its files are gone afterwards."""
        role = self.role
        seconds = None if self.ended is None or self.began is None else self.ended - self.began
        why = self.why or ("" if seconds is not None or not role.ends else f"not in {limit:.0f} s")
        if seconds is not None and not _same(self.disk.file, expected):
            seconds, why = None, "it ended well, with wrong data"
        again = party.again(self.log.read_text(errors="replace")) if self.restarted else None
        shutil.rmtree(self.disk.directory)
        return Got(role.name, role.ends, seconds, why, again)


class Stage:
    """Where plays take place: the image and a directory, which go with the `with` block."""

    def __init__(self, plan: Plan, note: Callable[[str], None] = lambda text: None) -> None:
        self.plan, self._note = plan, note
        self._stack = ExitStack()
        self._parties: dict[str, Party] = {}

    def __enter__(self) -> "Stage":
        try:
            check_memory(self.plan.size * (self.plan.receivers + 3))
            come_first(self._stack)
            self._work = Path(self._stack.enter_context(_directory(self.plan.size * (self.plan.receivers + 3))))
            self._content = self._work / "data.bin"
            self._content.write_bytes(content(self.plan.size))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def party(self, name: str) -> Party:
        """One of PARTIES, made once. Raises OperatorError: it cannot be had."""
        if name not in self._parties:
            self._parties[name] = PARTIES[name](self.plan, self._content, self._note)
        return self._parties[name]

    def play(self, case: Case, name: str) -> Play:
        """Play a case to its end. Raises OperatorError: no root, a sender that ends by itself."""
        party = self.party(name)
        parts = roles(case, self.plan)
        if refused := next(filter(None, map(party.refusal, parts)), ""):
            return Play(name, [], 0.0, refused)
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._work)))
            room = stack.enter_context(Room(self.plan.line, [role.port for role in parts], case.loss))
            receivers = [
                _Receiver(role, place, work / f"disk{number}")
                for number, (role, place) in enumerate(zip(parts, room.receivers, strict=True))
            ]
            for one in receivers:
                stack.callback(one.stop)
            sender = _Sender(party, room, work, [n for n, role in enumerate(parts) if not role.start], stack)
            wire, limit = self._run(party, room, receivers, sender)
            for one in receivers:
                one.stop()
            return Play(name, [one.got(party, self._content, limit) for one in receivers], wire / self.plan.size)

    def _run(self, party: Party, room: Room, receivers: list[_Receiver], sender: "_Sender") -> tuple[int, float]:
        if party.ready:
            sender.start()
            sender.wait(party.ready)
        limit = self.plan.limit * (_PATIENCE_FOR_PXED if party.ready else 1)
        before, began, over = room.wire(), time.monotonic(), None
        for one in receivers:
            one.look(party, began, began)
        if not party.ready:
            sender.start()
        while not all(one.settled for one in receivers):
            now = time.monotonic()
            for one in receivers:
                if not one.settled:
                    one.look(party, now, began)
            if party.ready:
                sender.alive()
            elif sender.ended:
                over = over or now
            if now - began > limit or (over and now - over > _GRACE):
                limit = min(limit, now - began)
                break
            time.sleep(_LOOK)
        return room.wire() - before, limit


class _Sender:
    """The program at the server."""

    def __init__(self, party: Party, room: Room, work: Path, wanted: list[int], stack: ExitStack) -> None:
        self._title, self._stack = party.title, stack
        self._place = room.server
        self._command = party.sender(room, work, wanted)
        self.log = work / "sender.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """In its namespace; it ends with the play."""
        with self._place.entered(), self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*WITH_US, *self._command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._stack.callback(stop, self._process)

    def wait(self, text: str) -> None:
        """Until it says that it is ready. Raises OperatorError."""
        deadline = time.monotonic() + _READY
        while text not in self.log.read_text(errors="replace"):
            self.alive()
            if time.monotonic() > deadline:
                raise OperatorError(f"{self._title} was not ready within {_READY:.0f} s.")
            time.sleep(_LOOK)

    @property
    def ended(self) -> bool:
        """By itself."""
        return self._process is not None and self._process.poll() is not None

    def alive(self) -> None:
        """Raises OperatorError when it has ended."""
        if self.ended:
            said = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise OperatorError(f"{self._title} ended by itself: {' / '.join(said) or 'it said nothing'}")


def _directory(size: int) -> "tempfile.TemporaryDirectory[str]":
    with suppress(OSError):
        room = os.statvfs(_MEMORY)
        if room.f_bavail * room.f_frsize > size:
            return tempfile.TemporaryDirectory(prefix="pxed-bench-", dir=_MEMORY)
    return tempfile.TemporaryDirectory(prefix="pxed-bench-")


def _same(one: Path, other: Path) -> bool:
    if not one.exists() or one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while piece := left.read(1 << 20):
            if piece != right.read(1 << 20):
                return False
    return True
