"""What became of a room: the figures of each case, beside those that are wanted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, field

from pxed.bench.cast.plan import UNHURT, Case, Plan
from pxed.bench.cast.play import Got, Play
from pxed.bench.figures import median

__all__ = ["Affected", "Row", "Table", "row"]


class Affected(Struct, frozen=True):
    """A receiver that something happened to. seconds: since its own start; None: it did not get the image."""

    role: str
    ends: bool  # whether it was expected to get it
    seconds: float | None
    why: str
    again: float | None  # share of the image that it fetched after it was started again


class Row(Struct, frozen=True, kw_only=True):
    """One case of one party. Medians of the runs; seconds are those of the slowest of the unhurt receivers."""

    case: str
    party: str
    version: str
    seconds: float | None  # None: not all of them got the image
    fastest: float | None
    affected: list[Affected]
    wire: float | None  # bytes from the server, in units of the image
    lost: dict[str, int]  # why -> receivers that should have got the image and did not
    refused: str  # why it was not played
    wanted: list[str]  # the figures to be reached, in the standard room
    missed: list[str]  # those that were not
    runs: list[Play]


class Table(Struct):
    """All rows, and the room."""

    plan: Plan
    ideal: float  # seconds that the rate alone takes for the image
    rows: list[Row] = field(default_factory=list)


def row(case: Case, plan: Plan, version: str, plays: Sequence[Play]) -> Row:
    """The figures of one case of one party, of at least one play."""
    played = [play for play in plays if not play.refused]
    unhurt = [[got for got in play.receivers if got.role == UNHURT] for play in played]
    slowest = _median([_of(max, each) for each in unhurt])
    affected = [_affected(runs) for runs in zip(*(_hit(play) for play in played), strict=True)]
    lost = Counter(got.why for play in played for got in play.receivers if got.ends and got.seconds is None)
    checks = list(_checks(case, slowest, affected)) if plays[0].party == "pxed" and plan.standard else []
    return Row(
        case=case.title, party=plays[0].party, version=version, seconds=slowest,
        fastest=_median([_of(min, each) for each in unhurt]), affected=affected,
        wire=median([play.wire for play in played]) if played else None, lost=dict(lost), refused=plays[0].refused,
        wanted=[what for what, _ in checks], missed=[what for what, reached in checks if not reached],
        runs=list(plays),
    )  # fmt: skip


def _of(which: Callable[[list[float]], float], receivers: Sequence[Got]) -> float | None:
    """The slowest's or fastest's seconds; None where one did not get the image."""
    seconds = [got.seconds for got in receivers if got.seconds is not None]
    return which(seconds) if len(seconds) == len(receivers) else None


def _median(values: Sequence[float | None]) -> float | None:
    """None where one of them is missing, or all."""
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def _hit(play: Play) -> list[Got]:
    return [got for got in play.receivers if got.role != UNHURT]


def _affected(runs: Sequence[Got]) -> Affected:
    """One receiver in all runs."""
    why = next((got.why for got in runs if got.why), "")
    return Affected(
        runs[0].role, runs[0].ends, _median([got.seconds for got in runs]), why, _median([got.again for got in runs])
    )


def _checks(case: Case, slowest: float | None, affected: Iterable[Affected]) -> Iterable[tuple[str, bool]]:
    """Each figure that is wanted, and whether it was reached."""
    if case.wanted is not None:
        yield f"{UNHURT} {case.wanted:g} s", slowest is not None and slowest <= case.wanted
    for one in affected:
        if case.wanted_it is not None and one.ends:
            yield f"{one.role} {case.wanted_it:g} s", one.seconds is not None and one.seconds <= case.wanted_it
        if case.wanted_again is not None:
            reached = one.again is not None and one.again <= case.wanted_again and one.seconds is not None
            yield f"{one.role} {case.wanted_again:.0%} again", reached
