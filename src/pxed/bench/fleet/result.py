"""What became of a fleet: outcomes, times, repeats, and what to make of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from pxed.bench.figures import percentile, ratio
from pxed.bench.fleet.machine import Machine
from pxed.bench.fleet.plan import Plan

__all__ = ["Kind", "Outcome", "Result", "StepFigures", "Times", "summarise"]


class Times(Struct, frozen=True):
    """A distribution, seconds."""

    count: int
    p50: float
    p90: float
    p99: float
    slowest: float


class Outcome(Struct, frozen=True):
    """One machine. Times are seconds since it was powered on; `steps` has (name, seconds, repeats)."""

    number: int
    kind: str
    outcome: str  # "done", "no work" or "lost"
    step: str  # where it was lost
    reason: str
    power_on: float
    seconds: float
    repeats: int
    bytes: int
    steps: list[tuple[str, float, int]]


class Kind(Struct, frozen=True):
    """The machines of one row of the firmware table."""

    name: str
    title: str
    machines: int
    done: int
    no_work: int
    lost: int
    repeats: int
    times: Times


class StepFigures(Struct, frozen=True):
    """One step over all machines that came through it."""

    name: str
    times: Times
    repeats: int


class Result(Struct):
    """A fleet's run."""

    mode: str  # "virtual" or "lab"
    machines: int
    size: int
    program: int
    loss: float
    rate: float
    spread: float
    seed: int
    done: int
    no_work: int
    lost: int
    reasons: dict[str, int]  # "kind, step: reason" -> machines
    times: Times  # of those that are done, since each one's power-on
    finished: float  # when the last machine ended, since the first was powered on
    bytes: int  # of files, received by all
    ideal: float | None  # seconds that the rate alone would take for what all machines need
    ratio: float | None  # p99 in units of the ideal time
    kinds: list[Kind]
    steps: list[StepFigures]
    network: dict[str, int]
    took: float  # seconds that the run took us
    outcomes: list[Outcome]
    advice: list[str] = field(default_factory=list)


def _times(values: Sequence[float]) -> Times:
    return Times(
        len(values), percentile(values, 0.5), percentile(values, 0.9), percentile(values, 0.99),
        max(values, default=0.0),
    )  # fmt: skip


def _outcome(machine: Machine, power_on: float) -> Outcome:
    steps = machine.steps
    lost = machine.outcome == "lost"
    return Outcome(
        number=machine.number, kind=machine.row.name, outcome=machine.outcome,
        step=steps[-1].name if lost and steps else "", reason=machine.reason, power_on=power_on,
        seconds=(steps[-1].ended if steps else machine.now) - power_on, repeats=sum(step.repeats for step in steps),
        bytes=sum(step.bytes for step in steps),
        steps=[(step.name, step.ended - step.began, step.repeats) for step in steps],
    )  # fmt: skip


def summarise(
    plan: Plan, mode: str, machines: Sequence[Machine], power_on: Sequence[float], network: dict[str, int], took: float
) -> Result:
    """The figures of a run that is over."""
    outcomes = [_outcome(machine, at) for machine, at in zip(machines, power_on, strict=True)]
    count = Counter(one.outcome for one in outcomes)
    ideal = sum(plan.needed(machine.row) for machine in machines) * 8 / plan.rate if plan.rate else None
    times = _times([one.seconds for one in outcomes if one.outcome == "done"])
    result = Result(
        mode=mode, machines=plan.machines, size=plan.size, program=plan.program, loss=plan.loss, rate=plan.rate,
        spread=plan.spread, seed=plan.seed, done=count["done"], no_work=count["no work"], lost=count["lost"],
        reasons=dict(Counter(f"{o.kind}, {o.step}: {o.reason}" for o in outcomes if o.outcome == "lost").most_common()),
        times=times, finished=max((o.power_on + o.seconds for o in outcomes), default=0.0),
        bytes=sum(one.bytes for one in outcomes), ideal=ideal,
        ratio=ratio(times.p99, ideal) if ideal and times.count else None,
        kinds=_kinds(machines, outcomes), steps=_steps(outcomes), network=network, took=took, outcomes=outcomes,
    )  # fmt: skip
    result.advice = list(_advice(result))
    return result


def _kinds(machines: Sequence[Machine], outcomes: Sequence[Outcome]) -> list[Kind]:
    titles = {machine.row.name: machine.row.title for machine in machines}
    found = []
    for name, title in titles.items():
        of = [one for one in outcomes if one.kind == name]
        count = Counter(one.outcome for one in of)
        times = _times([one.seconds for one in of if one.outcome == "done"])
        ends = count["done"], count["no work"], count["lost"]
        found.append(Kind(name, title, len(of), *ends, sum(one.repeats for one in of), times))
    return sorted(found, key=lambda kind: -kind.machines)


def _steps(outcomes: Iterable[Outcome]) -> list[StepFigures]:
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    repeats: Counter[str] = Counter()
    for one in outcomes:
        for name, took, again in one.steps:
            seconds[name].append(took)
            repeats[name] += again
    return [StepFigures(name, _times(took), repeats[name]) for name, took in seconds.items()]


def _advice(result: Result) -> Iterable[str]:
    """What the figures say, in sentences."""
    if result.ratio is not None and result.ratio <= 1.1:
        yield "The link was full almost all of the time: a faster one is the only way to be quicker."
    if result.network.get("port queue overflows"):
        yield (
            f"The port's queue overflowed {result.network['port queue overflows']} times: a longer queue, or power-on "
            "spread over a minute, costs fewer repeats."
        )
    alone = sum(n for reason, n in result.reasons.items() if "no boot offer came in time" in reason)
    if alone:
        yield (
            f"{alone} machines got an address, and no boot offer before their patience ended: iPXE waits 2 s for a "
            "proxy's offer. Loss on the way to the server is the usual reason."
        )
    late = sum(n for reason, n in result.reasons.items() if "no answer to its request" in reason)
    if late:
        yield f"{late} machines asked TFTP and were not answered: spread the power-on, or look for a filter on port 69."
