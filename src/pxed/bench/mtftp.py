"""TFTP by multicast (RFC 2090): real clients (atftp) read one file at once, and what the server sent is weighed.

The wire is counted where the servers' port enters the switch: OACKs, repeats and all headers are in it.
"""

import filecmp
import os
import select
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from msgspec import Struct, field

from pxed.bench.figures import added, median, percentile, ratio
from pxed.bench.lab import FILE
from pxed.bench.measure import Target, alternate
from pxed.bench.namespace import Namespace
from pxed.bench.room import Room
from pxed.errors import OperatorError

__all__ = ["PORT", "SMALLEST_TO_KILL", "Comparison", "Run", "Scene", "Summary", "check", "compare", "play", "wait_for"]

PORT = 69
_READY_SECONDS = 30.0
# A file younger than that may still be changing, and pxed does not take what it read for what the next client wants.
_SETTLED_SECONDS = 2.5
# Between two looks at the switch's counters. Each of them is a process.
_LOOK = 0.02
# Of a master's death the others notice nothing more once the server has sent so many bytes.
_GOES_ON = 64 << 10
# Of a smaller file there is not as much left when its half has been sent.
SMALLEST_TO_KILL = 2 * _GOES_ON


class Scene(Struct, frozen=True):
    """One server, and how the clients ask it."""

    target: Target
    multicast: bool = True
    kill: bool = False  # the master, when half of the file has been sent

    @property
    def way(self) -> str:
        """It in words."""
        return "unicast" if not self.multicast else "multicast, master killed" if self.kill else "multicast"

    def alive(self) -> None:
        """Raises OperatorError when the server has ended."""
        self.target.alive()


class Run(Struct):
    """One file to all clients. Times in seconds from the start of the first client."""

    wire: int  # bytes that the server has sent, headers included
    p50: float
    slowest: float
    server_cpu: float | None
    stall: float | None  # from the death of the master until the server sent on; None: nobody had to wait
    lost: dict[str, int]  # why clients failed -> how many; not who was killed


class Summary(Struct):
    """Medians of a scene's runs; sums of what should not happen."""

    server: str
    version: str
    way: str
    wire: float  # in units of the file's size
    most_wire: float
    p50: float
    slowest: float
    cpu: float | None
    stall: float | None  # the longest
    lost: dict[str, int]
    runs: list[Run]
    wire_ratio: float | None = None  # in units of the first scene's
    time_ratio: float | None = None  # of the slowest client, likewise


class Comparison(Struct):
    """All that was measured."""

    clients: int
    size: int
    blksize: int
    loss: float  # in percent of the datagrams that reach a client
    scenes: list[Summary] = field(default_factory=list)


def check(room: Room) -> None:
    """Can the clients do their work? Raises OperatorError."""
    if shutil.which("atftp") is None:
        raise OperatorError("There is no program `atftp`: install Debian's package atftp.")
    needed = len(room.clients) * len(room.content)
    if needed > shutil.disk_usage(room.folder).free:
        raise OperatorError(f"The clients write {needed} bytes in all, and {room.folder} has no room for them.")


def wait_for(room: Room, target: Target, patience: float = _READY_SECONDS) -> None:
    """Read the file once by unicast: the server is up, and keeps it in memory. Raises OperatorError."""
    command = ["atftp", "--tftp-timeout", "1", "-g", "-r", target.file, "-l", "/dev/null", target.address]
    deadline = time.monotonic() + patience
    while True:
        target.alive()
        with suppress(OperatorError):
            time.sleep(max(0.0, (room.root / FILE).stat().st_ctime + _SETTLED_SECONDS - time.time()))
            room.clients[0].run(*command)
            return
        if time.monotonic() > deadline:
            raise OperatorError(f"{target.name} at {target.address} does not serve {target.file}.")
        time.sleep(0.2)


def play(room: Room, scene: Scene, blksize: int, patience: float) -> Run:
    """One file to all clients; who needs more than `patience` seconds is lost."""
    target = scene.target
    words = [*(["--option", "multicast"] if scene.multicast else []), "--option", f"blksize {blksize}"]
    command = ["atftp", *words, "-g", "-r", target.file, "-l", "out", target.address]
    cpu_before, sent_before = target.cpu() if target.cpu else None, room.sent()
    with ExitStack() as stack:
        started = time.monotonic()
        clients = [
            stack.enter_context(_started(client, command, room.folder / f"client{number}"))
            for number, client in enumerate(room.clients)
        ]
        death = _Death(room, clients, sent_before)
        if scene.kill:
            stack.enter_context(death)
        ended = _ends(clients, started + patience)
    wire = room.sent() - sent_before
    times, lost = [], Counter[str]()
    for number, process in enumerate(clients):
        if process is death.victim:
            continue
        reason = _trouble(process, ended.get(process.pid), room.folder / f"client{number}" / "out", room.root / FILE)
        if reason:
            lost[reason] += 1
        else:
            times.append(ended[process.pid] - started)
    return Run(
        wire=wire,
        p50=percentile(times, 0.5),
        slowest=max(times, default=0.0),
        server_cpu=target.cpu() - cpu_before if target.cpu and cpu_before is not None else None,
        stall=death.stall,
        lost=dict(lost),
    )


@contextmanager
def _started(client: Namespace, command: list[str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A program of a client, which writes into `folder`; with the block it ends."""
    folder.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        (folder / "out").unlink()
    process = subprocess.Popen(
        ["nsenter", f"--net=/proc/{client.pid}/ns/net", "--", *command],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _ends(processes: "Sequence[subprocess.Popen[bytes]]", deadline: float) -> dict[int, float]:
    """When each process ended, by its id; without those that still run at `deadline` (time.monotonic)."""
    ended: dict[int, float] = {}
    with ExitStack() as stack:
        waiting = {}
        for process in processes:
            fd = os.pidfd_open(process.pid)
            stack.callback(os.close, fd)
            waiting[fd] = process.pid
        while waiting and (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(list(waiting), [], [], left)
            ended.update((waiting.pop(fd), time.monotonic()) for fd in ready)
    return ended


def _trouble(process: "subprocess.Popen[bytes]", ended: float | None, got: Path, wanted: Path) -> str:
    """Why a client does not have the file, '' if it has it."""
    if ended is None:
        return "not done in time"
    if process.returncode != 0:
        return f"ended with {process.returncode}"
    if not got.exists() or not filecmp.cmp(got, wanted, shallow=False):
        return "wrong bytes"
    return ""


class _Death:
    """Kills the master once half of the file has been sent, and watches when the server goes on; a context."""

    def __init__(self, room: Room, clients: "Sequence[subprocess.Popen[bytes]]", sent_before: int) -> None:
        self._room, self._clients = room, clients
        self._half = sent_before + len(room.content) // 2
        self._over = Event()
        self._thread = Thread(target=self._kill)
        self.victim: subprocess.Popen[bytes] | None = None
        self.stall: float | None = None

    def __enter__(self) -> "_Death":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        before = self._room.packets()
        while self._room.sent() < self._half:
            before = self._room.packets()
            if self._over.wait(_LOOK):
                return
        said = [now - then for now, then in zip(self._room.packets(), before, strict=True)]
        victim = self._clients[said.index(max(said))]  # the master is who acknowledges
        victim.kill()
        killed, sent = time.monotonic(), self._room.sent()
        self.victim = victim
        while self._room.sent() < sent + _GOES_ON:
            if self._over.wait(_LOOK):  # all had ended before the server had to go on: nobody waited
                return
        self.stall = time.monotonic() - killed


def compare(
    room: Room, scenes: Sequence[Scene], blksize: int, patience: float, runs: int,
    progress: Callable[[int, int, Scene], None],
) -> list[Summary]:  # fmt: skip
    """Every scene `runs` times, in turn, so that what else the host does hits all alike.

    progress: called before each run with (runs done, runs in all, the scene). Ratios are to the first scene's medians.
    """
    seen = alternate(scenes, runs, lambda scene: play(room, scene, blksize, patience), progress)
    summaries = [_summary(scene, of, len(room.content)) for scene, of in zip(scenes, seen, strict=True)]
    first = summaries[0]
    for other in summaries[1:]:
        other.wire_ratio = ratio(other.wire, first.wire)
        other.time_ratio = ratio(other.slowest, first.slowest)
    return summaries


def _summary(scene: Scene, runs: list[Run], size: int) -> Summary:
    cpu = [run.server_cpu for run in runs if run.server_cpu is not None]
    stalls = [run.stall for run in runs if run.stall is not None]
    return Summary(
        server=scene.target.name,
        version=scene.target.version,
        way=scene.way,
        wire=median([run.wire / size for run in runs]),
        most_wire=max(run.wire / size for run in runs),
        p50=median([run.p50 for run in runs]),
        slowest=median([run.slowest for run in runs]),
        cpu=median(cpu) if cpu else None,
        stall=max(stalls) if stalls else None,
        lost=added(run.lost for run in runs),
        runs=runs,
    )
