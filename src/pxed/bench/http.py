"""HTTP storms: N clients read one file from each of some servers, in turn, a number of times."""

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from msgspec import Struct, field, structs

from pxed._ext.http_load import Load
from pxed.bench.figures import added, median, percentile, ratio
from pxed.bench.measure import Costs, Meter, Seat, Target, alternate
from pxed.errors import OperatorError

__all__ = ["PORT", "Comparison", "Run", "Storm", "Summary", "compare", "play", "wait_for"]

PORT = 80
_READY_SECONDS = 30.0
_OTHER_DESCRIPTORS = 100


class Storm(Struct, frozen=True):
    """What the clients do, and where they are."""

    content: bytes
    clients: int
    downloads: int = 1  # of each client, one after another
    piece: int = 0  # bytes of each ranged request; 0: the whole at once
    keep: bool = True  # a client has one connection, not one for each request
    patience: float = 30.0
    seat: Seat = Seat()


class Run(Costs, kw_only=True):
    """One storm on one server. Times in seconds, of a download; counters are of this storm alone."""

    rate: float  # bytes per second, until the last client ended
    request_rate: float  # answered, per second
    p50: float
    p99: float
    slowest: float
    bytes: int  # of bodies
    requests: int
    connections: int
    lost: dict[str, int]  # why clients failed -> how many


class Summary(Struct):
    """Medians of a server's runs; sums of what should not happen."""

    server: str
    version: str
    rate: float
    request_rate: float
    p50: float
    p99: float
    slowest: float
    cpu_per_gb: float | None  # of the server, for 10^9 bytes
    cpu_per_request: float | None
    generator_cpu_per_gb: float
    connections: float
    lost: dict[str, int]
    runs: list[Run]
    rate_ratio: float | None = None  # the first server's rate, in units of this one's
    cpu_ratio: float | None = None  # the first server's CPU for a request, in units of this one's


class Comparison(Struct):
    """All that was measured."""

    clients: int
    size: int
    downloads: int
    piece: int
    keep: bool
    servers: list[Summary] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def wait_for(target: Target, storm: Storm) -> None:
    """Read the file once with one client: the server is up, and has the file in memory. Raises OperatorError."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        target.alive()
        run = play(target, structs.replace(storm, clients=1, downloads=1))
        if not run.lost:
            return
        if not any(reason.startswith("unconnected") for reason in run.lost) or time.monotonic() > deadline:
            reasons = ", ".join(run.lost)
            raise OperatorError(f"{target.name} at {target.address} does not serve {target.file}: {reasons}.")
        time.sleep(0.05)  # a refused connection is told at once


def play(target: Target, storm: Storm) -> Run:
    """One storm. Raises OperatorError when the clients' addresses or sockets cannot be had."""
    _allow_descriptors(storm.clients)
    seat = storm.seat
    try:
        load = Load(
            storm.clients, target.address, target.port, f"/{target.file}", storm.content,
            first_address=seat.first_address, downloads=storm.downloads, piece=storm.piece, keep=storm.keep,
            patience=storm.patience,
        )  # fmt: skip
    except ValueError as error:
        raise OperatorError(f"The clients cannot be made: {error}.") from error
    with closing(load), seat.entered():
        meter = Meter(target, seat.server_namespace)
        seconds, times, clients = load.run()
        costs = meter.costs(seconds)
    total = sum(client[2] for client in clients)
    requests = sum(client[3] for client in clients)
    return Run(
        rate=total / seconds if seconds else 0.0,
        request_rate=requests / seconds if seconds else 0.0,
        p50=percentile(times, 0.50),
        p99=percentile(times, 0.99),
        slowest=max(times, default=0.0),
        bytes=total,
        requests=requests,
        connections=sum(client[4] for client in clients),
        lost=dict(Counter(_reason(outcome, detail) for outcome, detail, *_ in clients if outcome != "good")),
        **structs.asdict(costs),
    )


def _allow_descriptors(clients: int) -> None:
    """Each client has a socket; a login shell allows 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise OperatorError(f"{clients} clients need {wanted} open files, and this process may have {hard}.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _reason(outcome: str, detail: int) -> str:
    if outcome == "unconnected":
        return f"unconnected ({os.strerror(detail)})"
    if outcome == "wrong byte":
        return f"wrong byte at offset {detail}"
    if outcome in ("too long", "too short"):
        return f"{outcome} ({detail} bytes)"
    return f"{outcome} with status {detail}" if outcome in ("refused", "bad head") else outcome


def compare(
    targets: Sequence[Target], storm: Storm, runs: int, progress: Callable[[int, int, Target], None]
) -> list[Summary]:
    """`runs` storms on each server, in turn, so that what else the host does hits all alike.

    progress: called before each storm with (storms done, storms in all, the server). Ratios compare the first server
    with the others, by the medians.
    """
    for target in targets:
        wait_for(target, storm)
    seen = alternate(targets, runs, lambda target: play(target, storm), progress)
    summaries = [summarise(target, of) for target, of in zip(targets, seen, strict=True)]
    first = summaries[0]
    for other in summaries[1:]:
        other.rate_ratio = ratio(first.request_rate, other.request_rate)
        other.cpu_ratio = ratio(first.cpu_per_request, other.cpu_per_request)
    return summaries


def summarise(target: Target, runs: list[Run]) -> Summary:
    """The medians of a server's runs."""
    metered = [(run.server_cpu, run) for run in runs if run.server_cpu is not None]
    per_gb = [cpu / run.bytes * 1e9 for cpu, run in metered if run.bytes]
    per_request = [cpu / run.requests for cpu, run in metered if run.requests]
    return Summary(
        server=target.name,
        version=target.version,
        rate=median([run.rate for run in runs]),
        request_rate=median([run.request_rate for run in runs]),
        p50=median([run.p50 for run in runs]),
        p99=median([run.p99 for run in runs]),
        slowest=median([run.slowest for run in runs]),
        cpu_per_gb=median(per_gb) if per_gb else None,
        cpu_per_request=median(per_request) if per_request else None,
        generator_cpu_per_gb=median([run.generator_cpu / run.bytes * 1e9 for run in runs if run.bytes]),
        connections=median([run.connections for run in runs]),
        lost=added(run.lost for run in runs),
        runs=runs,
    )
