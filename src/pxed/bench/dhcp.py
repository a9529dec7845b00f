"""DHCP storms: many PXE clients ask each of some servers for something to boot, in turn, a number of times.

The clients are behind relays, each with an address of its own, so that every answer comes to the one who asked; on
port 4011 they ask themselves, as UEFI firmware does after an offer without option 43.
"""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from ipaddress import IPv4Address

from msgspec import Struct, field, structs

from pxed._ext.dhcp_load import Load
from pxed.bench.figures import added, median, percentile, ratio
from pxed.bench.measure import Costs, Meter, Seat, Target, alternate
from pxed.bench.pxe_clients import KINDS, Step, check_answer, steps, with_answers
from pxed.errors import OperatorError
from pxed.wire.iana import SERVER_PORT

__all__ = ["PORT", "Comparison", "Phase", "Run", "Storm", "Summary", "compare", "learn", "play"]

PORT = SERVER_PORT
_READY_SECONDS = 30.0
_FIRST_PATIENCE = 0.2  # a server that is not up yet is silent
_NANO = 1e-9

Learned = dict[str, list[bytes]]
"""What the first client of each kind was answered, step by step."""


class Storm(Struct, frozen=True):
    """What the clients do, and where they are."""

    clients: int
    turns: int  # of each client, `outstanding` of them at a time
    outstanding: int
    single_turns: int  # requests in all, one at a time
    kinds: tuple[str, ...] = tuple(KINDS)
    patience: float = 1.0
    seat: Seat = Seat()


class _Played(Struct):
    """What `Load.run` returns."""

    seconds: float
    times: list[int]  # nanoseconds
    answered: dict[int, int]  # by port
    unanswered: int
    strange: int
    wrong: dict[str, int]
    refused: int
    learned: dict[tuple[int, int], bytes]


class Phase(Costs, kw_only=True):
    """One storm on one server. Times in seconds; counters are of this storm alone."""

    rate: float  # answers per second
    answered: int  # offers, and acknowledgements on 4011
    offers: int
    p50: float
    p99: float
    slowest: float
    lost: dict[str, int]  # why requests failed -> how many
    strange: int  # datagrams that nobody waited for: late, or another's
    refused: int  # datagrams of the clients that the kernel did not take


class Run(Struct):
    """Many requests at a time, then one at a time."""

    storm: Phase
    single: Phase


class Summary(Struct):
    """Medians of a server's runs; sums of what should not happen. Times in seconds."""

    server: str
    version: str
    rate: float
    p50: float
    p99: float
    slowest: float
    single_p50: float
    single_p99: float
    single_slowest: float
    cpu_per_1000: float | None  # of the server, for 1000 answers
    generator_cpu_per_1000: float
    lost: dict[str, int]
    runs: list[Run]
    rate_ratio: float | None = None  # the first server's rate, in units of this one's
    cpu_ratio: float | None = None
    single_p50_ratio: float | None = None
    single_p99_ratio: float | None = None


class Comparison(Struct):
    """All that was measured."""

    clients: int
    turns: int
    outstanding: int
    kinds: tuple[str, ...]
    servers: list[Summary] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def learn(target: Target, storm: Storm) -> Learned:
    """One client of each kind asks, until the server is up: what it is answered at each step, looked at closely.

    Raises OperatorError: no answer, or none that a machine could boot from.
    """
    learned = {}
    deadline = time.monotonic() + _READY_SECONDS
    address = _address(storm, target, 0)
    for name in storm.kinds:
        said = steps(KINDS[name], 0, address)
        while True:
            target.alive()
            played = _play(target, storm, [said], 1, 1, min(_FIRST_PATIENCE, storm.patience))[0]
            if len(played.learned) == len(said):
                break
            if time.monotonic() > deadline:
                port = said[len(played.learned)][0]
                raise OperatorError(
                    f"{target.name} at {target.address} does not answer a machine that it does not know ({name}, port "
                    f'{port}). pxed does so with transaction.unknown_machines = "hold" or "boot".'
                )
        learned[name] = [played.learned[0, number] for number in range(len(said))]
        for step, answer in zip(said, learned[name], strict=True):
            try:
                check_answer(step, answer, target.address, 0, address)
            except OperatorError as error:
                raise OperatorError(f"{target.name} at {target.address}, {name}: {error}") from error
    return learned


def play(target: Target, storm: Storm, learned: Learned) -> Run:
    """Both phases. Raises OperatorError when the clients' addresses or sockets cannot be had."""
    first = _address(storm, target, 0)
    clients: list[list[Step]] = []
    for number in range(storm.clients):
        name = storm.kinds[number % len(storm.kinds)]
        address = _address(storm, target, number)
        clients.append(with_answers(steps(KINDS[name], number, address), learned[name], (0, first), number, address))
    single = max(1, storm.single_turns // storm.clients)
    return Run(
        _phase(*_play(target, storm, clients, storm.turns, storm.outstanding, storm.patience)),
        _phase(*_play(target, storm, clients, single, 1, storm.patience)),
    )


def _address(storm: Storm, target: Target, client: int) -> str:
    """A client's address: one of its own, or this host's."""
    if storm.seat.first_address:
        return str(IPv4Address(storm.seat.first_address) + client)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target.address, PORT))
        except OSError as error:
            raise OperatorError(f"There is no way to {target.address}: {error.strerror}.") from error
        return str(probe.getsockname()[0])


def _play(
    target: Target, storm: Storm, clients: list[list[Step]], turns: int, outstanding: int, patience: float
) -> tuple[_Played, Costs]:
    seat = storm.seat
    with seat.entered():
        try:
            load = Load(
                target.address, clients, first_address=seat.first_address, turns=turns, outstanding=outstanding,
                patience=patience, link=seat.link,
            )  # fmt: skip
        except PermissionError as error:
            raise OperatorError("DHCP clients need ports 67 and 4011: run as root.") from error
        except (OSError, ValueError) as error:
            raise OperatorError(f"The clients cannot be made: {error}.") from error
        with closing(load):
            meter = Meter(target, seat.server_namespace)
            played = _Played(*load.run())
            return played, meter.costs(played.seconds)


def _phase(played: _Played, costs: Costs) -> Phase:
    answered = sum(played.answered.values())
    lost = dict(played.wrong)
    if played.unanswered:
        lost["unanswered"] = played.unanswered
    times = [nanoseconds * _NANO for nanoseconds in played.times]
    return Phase(
        rate=answered / costs.seconds if costs.seconds else 0.0,
        answered=answered,
        offers=played.answered[PORT],
        p50=percentile(times, 0.50),
        p99=percentile(times, 0.99),
        slowest=max(times, default=0.0),
        lost=lost,
        strange=played.strange,
        refused=played.refused,
        **structs.asdict(costs),
    )


def compare(
    places: Sequence[tuple[Target, Storm]], runs: int, progress: Callable[[int, int, Target], None]
) -> list[Summary]:
    """`runs` storms on each server, in turn, so that what else the host does hits all alike.

    progress: called before each storm with (storms done, storms in all, the server). Ratios compare the first server
    with the others, by the medians.
    """
    known = {target.name: (storm, learn(target, storm)) for target, storm in places}
    targets = [target for target, _ in places]
    seen = alternate(targets, runs, lambda target: play(target, *known[target.name]), progress)
    summaries = [summarise(target, of) for target, of in zip(targets, seen, strict=True)]
    first = summaries[0]
    for other in summaries[1:]:
        other.rate_ratio = ratio(first.rate, other.rate)
        other.single_p50_ratio = ratio(first.single_p50, other.single_p50)
        other.single_p99_ratio = ratio(first.single_p99, other.single_p99)
        other.cpu_ratio = ratio(first.cpu_per_1000, other.cpu_per_1000)
    return summaries


def summarise(target: Target, runs: list[Run]) -> Summary:
    """The medians of a server's runs."""
    storms, singles = [run.storm for run in runs], [run.single for run in runs]
    cpu = [one.server_cpu / one.answered * 1000 for one in storms if one.server_cpu is not None and one.answered]
    return Summary(
        server=target.name,
        version=target.version,
        rate=median([one.rate for one in storms]),
        p50=median([one.p50 for one in storms]),
        p99=median([one.p99 for one in storms]),
        slowest=median([one.slowest for one in storms]),
        single_p50=median([one.p50 for one in singles]),
        single_p99=median([one.p99 for one in singles]),
        single_slowest=median([one.slowest for one in singles]),
        cpu_per_1000=median(cpu) if cpu else None,
        generator_cpu_per_1000=median([one.generator_cpu / one.answered * 1000 for one in storms if one.answered]),
        lost=added(one.lost for one in (*storms, *singles)),
        runs=runs,
    )
