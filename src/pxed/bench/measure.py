"""What every storm has in common: who is measured, from where, what it cost, and measuring several in turn."""

import resource
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct

from pxed.bench import process

__all__ = ["Costs", "Meter", "Seat", "Target", "alternate"]

R = TypeVar("R")


class Target(Struct):
    """A server to be measured. alive: raises OperatorError when its process has ended."""

    name: str
    version: str
    address: str
    file: str
    port: int
    cpu: Callable[[], float] | None = None  # seconds so far
    alive: Callable[[], None] = lambda: None


class Seat(Struct, frozen=True):
    """Where clients are. entered: a context in which their sockets are made."""

    first_address: str = ""  # client i has the address that is i after it; "": the kernel chooses
    entered: Callable[[], AbstractContextManager[None]] = nullcontext
    server_namespace: int | None = None  # a process in it, where it is ours to look at
    link: tuple[str, bytes, bytes] | None = None  # interface, its MAC, the server's MAC


class Costs(Struct, kw_only=True):
    """What one storm cost. Times in seconds; counters are of this storm alone."""

    seconds: float
    server_cpu: float | None
    generator_cpu: float
    host_cpu: float  # by all processes of this host
    server_drops: dict[str, int]  # counters of the server's network namespace
    client_drops: dict[str, int]
    neighbour_overflows: int


class Meter:
    """Reads all counters when it is made, and again at `costs`. Make it where the clients' sockets are."""

    def __init__(self, target: Target, server_namespace: int | None) -> None:
        self._target = target
        self._namespace = server_namespace
        self._before = self._read(0.0)

    def costs(self, seconds: float) -> Costs:
        """The difference; `seconds`: how long the storm was."""
        old, new = self._before, self._read(seconds)
        return Costs(
            seconds=seconds,
            server_cpu=None if new.server_cpu is None else new.server_cpu - (old.server_cpu or 0.0),
            generator_cpu=new.generator_cpu - old.generator_cpu,
            host_cpu=new.host_cpu - old.host_cpu,
            server_drops=_difference(old.server_drops, new.server_drops),
            client_drops=_difference(old.client_drops, new.client_drops),
            neighbour_overflows=new.neighbour_overflows - old.neighbour_overflows,
        )

    def _read(self, seconds: float) -> Costs:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return Costs(
            seconds=seconds,
            server_cpu=self._target.cpu() if self._target.cpu else None,
            generator_cpu=own.ru_utime + own.ru_stime,
            host_cpu=process.busy_seconds(),
            server_drops=process.network_counters(self._namespace) if self._namespace is not None else {},
            client_drops=process.network_counters(),
            neighbour_overflows=_neighbour_overflows(),
        )


def _difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after if after[name] != before.get(name, 0)}


def _neighbour_overflows() -> int:
    """How often the kernel's neighbour table was full, in all namespaces (hexadecimal, a line per processor)."""
    try:
        names, *lines = Path("/proc/net/stat/arp_cache").read_text().splitlines()
    except OSError:
        return 0
    column = names.split().index("table_fulls") if "table_fulls" in names.split() else None
    return 0 if column is None else sum(int(line.split()[column], 16) for line in lines)


class _Living(Protocol):
    @property
    def alive(self) -> Callable[[], None]: ...


T = TypeVar("T", bound=_Living)


def alternate(
    targets: Sequence[T], runs: int, play: Callable[[T], R], progress: Callable[[int, int, T], None]
) -> list[list[R]]:
    """`runs` storms on each server, in turn, so that what else the host does hits all alike; the runs of each.

    progress: called before each storm with (storms done, storms in all, the server).
    """
    seen: list[list[R]] = [[] for _ in targets]
    for number in range(runs):
        for place, target in enumerate(targets):
            progress(number * len(targets) + place, runs * len(targets), target)
            seen[place].append(play(target))
            target.alive()
    return seen
