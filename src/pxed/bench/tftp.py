"""TFTP storms: N clients read one file at once from each of some servers, in turn, a number of times."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from msgspec import Struct, field, structs

from pxed._ext.tftp_load import Load
from pxed.bench.figures import added, median, percentile, ratio
from pxed.bench.measure import Costs, Meter, Seat, Target, alternate
from pxed.errors import OperatorError

__all__ = ["PORT", "Comparison", "Run", "Storm", "Summary", "compare", "play", "wait_for"]

PORT = 69
_READY_SECONDS = 30.0


class Storm(Struct, frozen=True):
    """What the clients do, and where they are."""

    content: bytes
    clients: int
    blksize: int
    windowsize: int
    patience: float = 30.0
    seat: Seat = Seat()


class Run(Costs, kw_only=True):
    """One storm on one server. Times in seconds; counters are of this storm alone."""

    rate: float  # bytes per second, until the last client ended
    p50: float
    p99: float
    slowest: float
    bytes: int
    lost: dict[str, int]  # why clients failed -> how many
    repeats: int  # requests and ACKs that clients sent again because nothing came
    duplicates: int  # blocks that came again
    gaps: int  # losses that clients saw within windows
    blksize: int  # granted (the smallest)
    windowsize: int
    refused: int  # datagrams of the clients that the kernel did not take


class Summary(Struct):
    """Medians of a server's runs; sums of what should not happen."""

    server: str
    version: str
    rate: float
    p50: float
    p99: float
    slowest: float
    cpu_per_gb: float | None  # of the server, for 10^9 bytes
    generator_cpu_per_gb: float
    repeats: float
    duplicates: float
    gaps: float
    lost: dict[str, int]
    blksize: int
    windowsize: int
    runs: list[Run]
    rate_ratio: float | None = None  # the first server's rate, in units of this one's
    cpu_ratio: float | None = None  # the first server's CPU for 10^9 bytes, in units of this one's


class Comparison(Struct):
    """All that was measured."""

    clients: int
    size: int
    blksize: int  # asked for
    windowsize: int
    servers: list[Summary] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def wait_for(target: Target, storm: Storm) -> None:
    """Read the file once with one client: the server is up, and has the file in memory. Raises OperatorError."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        target.alive()
        # A server that is not up yet is silent; short patience until it answers at all.
        run = play(target, structs.replace(storm, clients=1, patience=min(0.2, storm.patience)))
        if not run.lost:
            return
        if set(run.lost) != {"silent"} or time.monotonic() > deadline:
            reasons = ", ".join(run.lost)
            raise OperatorError(f"{target.name} at {target.address} does not serve {target.file}: {reasons}.")


def play(target: Target, storm: Storm) -> Run:
    """One storm. Raises OperatorError when the clients' addresses or sockets cannot be had."""
    seat = storm.seat
    with seat.entered():
        try:
            load = Load(
                storm.clients, target.address, target.port, target.file, storm.content,
                first_address=seat.first_address, blksize=storm.blksize, windowsize=storm.windowsize,
                patience=storm.patience, link=seat.link,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise OperatorError(f"The clients cannot be made: {error}.") from error
        with closing(load):
            meter = Meter(target, seat.server_namespace)
            seconds, transfers, refused = load.run()
            costs = meter.costs(seconds)
    good = [transfer for transfer in transfers if transfer[0] == "good"]
    times = [transfer[2] for transfer in good]
    total = sum(transfer[3] for transfer in transfers)
    return Run(
        rate=total / seconds if seconds else 0.0,
        p50=percentile(times, 0.50),
        p99=percentile(times, 0.99),
        slowest=max(times, default=0.0),
        bytes=total,
        lost=dict(Counter(_reason(outcome, detail) for outcome, detail, *_ in transfers if outcome != "good")),
        repeats=sum(transfer[4] for transfer in transfers),
        duplicates=sum(transfer[5] for transfer in transfers),
        gaps=sum(transfer[6] for transfer in transfers),
        blksize=min((transfer[7] for transfer in good), default=0),
        windowsize=min((transfer[8] for transfer in good), default=0),
        refused=refused,
        **structs.asdict(costs),
    )


def _reason(outcome: str, detail: int) -> str:
    if outcome in ("wrong byte", "too long", "too short"):
        return f"{outcome} at offset {detail}"
    return f"refused with code {detail}" if outcome == "refused" else outcome


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
        other.rate_ratio = ratio(first.rate, other.rate)
        other.cpu_ratio = ratio(first.cpu_per_gb, other.cpu_per_gb)
    return summaries


def summarise(target: Target, runs: list[Run]) -> Summary:
    """The medians of a server's runs."""
    cpu = [run.server_cpu / run.bytes * 1e9 for run in runs if run.server_cpu is not None and run.bytes]
    return Summary(
        server=target.name,
        version=target.version,
        rate=median([run.rate for run in runs]),
        p50=median([run.p50 for run in runs]),
        p99=median([run.p99 for run in runs]),
        slowest=median([run.slowest for run in runs]),
        cpu_per_gb=median(cpu) if cpu else None,
        generator_cpu_per_gb=median([run.generator_cpu / run.bytes * 1e9 for run in runs if run.bytes]),
        repeats=median([run.repeats for run in runs]),
        duplicates=median([run.duplicates for run in runs]),
        gaps=median([run.gaps for run in runs]),
        lost=added(run.lost for run in runs),
        blksize=min(run.blksize for run in runs),
        windowsize=min(run.windowsize for run in runs),
        runs=runs,
    )
