"""A fleet's times as a drawing: when the machines were ready, and what each step took. Needs matplotlib."""

from collections import defaultdict
from pathlib import Path

from pxed.bench.fleet.result import Result
from pxed.errors import OperatorError

__all__ = ["draw"]


def draw(result: Result, path: Path) -> None:
    """Write an SVG or PNG, by the name's ending. Raises OperatorError: no matplotlib, or the file cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OperatorError("--plot needs matplotlib: pip install 'pxed[bench]'.") from error
    figure = Figure(figsize=(12, 5), layout="constrained")
    ready, steps = figure.subplots(1, 2)
    ready.set_title(f"{result.done} of {result.machines} machines ready, {result.lost} lost")
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for one in result.outcomes:
        if one.outcome == "done":
            seconds[one.kind].append(one.power_on + one.seconds)
    titles = {kind.name: kind.title for kind in result.kinds}
    for kind, times in seconds.items():
        share = [100 * (place + 1) / len(times) for place in range(len(times))]
        ready.step(sorted(times), share, where="post", label=titles[kind])
    if result.ideal is not None:
        ready.axvline(result.ideal, color="grey", linestyle=":", label="the link alone")
    ready.set_xlabel("seconds since the first power-on")
    ready.set_ylabel("percent ready")
    ready.set_xlim(left=0)
    if seconds or result.ideal is not None:
        ready.legend(loc="best")
    steps.set_title("Steps: p50 to p99, and the slowest")
    for place, step in enumerate(reversed(result.steps)):
        times_of = step.times
        steps.barh(place, max(times_of.p99 - times_of.p50, 1e-5), left=max(times_of.p50, 1e-5), height=0.5)
        steps.plot([max(times_of.slowest, 1e-5)], [place], marker="|", color="black")
    steps.set_yticks(range(len(result.steps)), [step.name for step in reversed(result.steps)])
    steps.set_xscale("log")
    steps.set_xlabel("seconds")
    try:
        figure.savefig(path)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}.") from error
