"""`pxed bench fleet`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pxed.cli import output
from pxed.cli.bench.shared import size_option
from pxed.errors import OperatorError

if TYPE_CHECKING:
    from pxed.bench.fleet.plan import Plan
    from pxed.bench.fleet.result import Result, Times

_BITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_SIZES = {"virtual": 2 << 20, "lab": 60 << 20}


def rate_option(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """The value of an option that is a rate, in bits per second: 100Mbit, 1Gbit; 0 for no limit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)(?:bit)?", value.lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is no rate; write 100Mbit, 1Gbit, or 0 for no limit.")
    return float(match[1]) * _BITS[match[2]]


def _maybe_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else size_option(ctx, parameter, value)


PERCENT = output.FiniteRange(0, 100, max_open=True)
SECONDS = output.FiniteRange(0, 86400)


@click.command()
@click.option("--virtual", is_flag=True, help="In virtual time: pxed's own state machines in a simulated network.")
@click.option(
    "--lab", is_flag=True,
    help="Over real packets: pxed in network namespaces of its own, a shaped and lossy link. Needs root.",
)  # fmt: skip
@click.option("--machines", type=click.IntRange(1, 16000), default=500, show_default=True)
@click.option(
    "--firmware", metavar="MIX", help="Kinds of machines and their shares: uefi, bios, ipxe, shim.",
    default="uefi=60,bios=25,ipxe=10,shim=5", show_default=True,
)  # fmt: skip
@click.option(
    "--size", callback=_maybe_size,
    help="Of kernel and initramfs together, by HTTP.  [default: 60M in the lab, 2M in virtual time]",
)  # fmt: skip
@click.option("--program", callback=size_option, default="256K", show_default=True, help="Of a boot program, by TFTP.")
@click.option("--rate", callback=rate_option, default="1Gbit", show_default=True, help="Of the server's port; 0: none.")
@click.option("--pace", callback=rate_option, default="0", help="What pxed's TFTP may send: its [tftp] rate.")
@click.option("--spread", type=SECONDS, default=0.0, show_default=True, help="Seconds of power-on.")
@click.option("--loss", type=PERCENT, default=0.0, show_default=True, help="Percent of packets lost, each way.")
@click.option("--restarts", type=click.IntRange(0), default=0, show_default=True, help="Of a lost machine, 10 s later.")
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 64) - 1),
    default=1,
    show_default=True,
    help="Of all chance: the same seed is the same run.",
)
@click.option("--duplicate", type=PERCENT, default=0.0, help="Virtual: percent of datagrams that come twice.")
@click.option("--reorder", type=PERCENT, default=0.0, help="Virtual: percent that later ones overtake.")
@click.option("--mtu-hole", type=click.IntRange(0), default=0, help="Virtual: longer UDP payloads never arrive.")
@click.option("--late", type=SECONDS, default=0.0, help="Virtual: seconds until the server answers at all.")
@click.option(
    "--queue", callback=_maybe_size,
    help="The rate is that of a switch behind the server, whose queue of this size drops what exceeds it; else that of "
    "the server's own port.",
)  # fmt: skip
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Draw the times: FILE.svg, FILE.png."
)
@output.json_option
def fleet(
    virtual: bool, lab: bool, machines: int, firmware: str, size: int | None, program: int, rate: float, pace: float,
    spread: float, loss: float, restarts: int, seed: int, duplicate: float, reorder: float, mtu_hole: int, late: float,
    queue: int | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Let a fleet of virtual machines boot from pxed the whole way, with the clocks of real firmware.

    DISCOVER, port 4011, size probe, boot program, iPXE's own DHCP, the check for work, kernel and initramfs: every
    byte is compared. You learn which machines were lost where, and how long each step took. In virtual time the
    machines see lost, doubled and late datagrams one by one, while downloads by HTTP are a fluid that shares the port
    evenly; a run is the same each time.
    """
    if virtual == lab:
        raise click.UsageError("Say --virtual or --lab.")
    from pxed.bench.fleet.plan import Plan, parse_mix
    from pxed.bench.process import check_memory

    if plot is not None:
        _check_plot(plot)
    if size is None:
        size = _SIZES["lab" if lab else "virtual"]
    check_memory(size + program)
    plan = Plan(
        machines=machines, size=size, program=program, loss=loss / 100,
        rate=rate, queue=queue, pace=pace, spread=spread, mix=parse_mix(firmware), seed=seed, restarts=restarts,
    )  # fmt: skip
    if lab:
        if duplicate or reorder or mtu_hole or late:
            raise click.UsageError("--duplicate, --reorder, --mtu-hole and --late are of --virtual.")
        result = _lab(plan)
    else:
        result = _virtual(plan, duplicate / 100, reorder / 100, mtu_hole, late)
    _show(result, as_json)
    if plot is not None:
        from pxed.bench.fleet.plot import draw

        draw(result, plot)
        output.note(f"The times are drawn in {plot}.")
    if result.lost:
        raise OperatorError(f"{output.count(result.lost, 'machine')} of {result.machines} did not come through.")


def _check_plot(path: Path) -> None:
    """Before the run, not after it."""
    from importlib.util import find_spec

    if path.suffix not in (".svg", ".png"):
        raise click.BadParameter("write FILE.svg or FILE.png.", param_hint="--plot")
    if not path.absolute().parent.is_dir():
        raise OperatorError(f"{path} cannot be written: there is no directory {path.parent}.")
    if find_spec("matplotlib") is None:
        raise OperatorError("--plot needs matplotlib: pip install 'pxed[bench]'.")


def _virtual(plan: "Plan", duplicate: float, reorder: float, mtu_hole: int, late: float) -> "Result":
    from pxed.bench.fleet import virtual
    from pxed.bench.fleet.network import Trouble

    trouble = Trouble(loss=plan.loss, duplicate=duplicate, reorder=reorder, mtu_hole=mtu_hole, late=late)
    with output.progress("booting", unit="machines") as show:
        return virtual.run(plan, trouble, lambda done: show(done, plan.machines))


def _lab(plan: "Plan") -> "Result":
    from pxed.bench.fleet import lab

    with output.progress("booting", unit="machines") as show:
        return lab.run(plan, lambda done: show(done, plan.machines))


def _show(result: "Result", as_json: bool) -> None:
    if as_json:
        output.print_json(result)
        return
    rate = f"{result.rate / 1e6:.0f} Mbit/s" if result.rate else "no limit"
    output.note(
        f"{result.machines} machines, {output.size(result.size)} each besides boot programs of "
        f"{output.size(result.program)}, {rate}, loss {result.loss:.1%}, power-on within {result.spread:.0f} s"
    )
    columns = ["machines", "number", "done", "no work", "lost", "p50", "p90", "p99", "max", "repeats"]
    rows = [[k.title, k.machines, k.done, k.no_work, k.lost, *_times(k.times), k.repeats] for k in result.kinds]
    rows.append(["all", result.machines, result.done, result.no_work, result.lost, *_times(result.times), ""])
    output.table(columns, rows)
    click.echo()
    steps = [[step.name, step.times.count, *_times(step.times), step.repeats] for step in result.steps]
    output.table(["step", "machines", "p50", "p90", "p99", "max", "repeats"], steps)
    if result.ideal is not None and result.ratio is not None:
        output.note(
            f"The link alone needs {result.ideal:.1f} s for these bytes; p99 is {result.ratio:.2f} times that, and the "
            f"last machine was ready after {result.finished:.1f} s."
        )
    output.note(f"The run took {output.duration(result.took)}; {', '.join(f'{k}: {v}' for k, v in _told(result))}.")
    for reason, count in result.reasons.items():
        output.note(f"Lost: {output.count(count, 'machine')}: {reason}")
    for sentence in result.advice:
        output.note(sentence)


def _told(result: "Result") -> list[tuple[str, int]]:
    """The network's counters that are not zero, without the sender's many."""
    return [(name, count) for name, count in result.network.items() if count and not name.startswith("tftp ")] or [
        ("lost packets", 0)
    ]


def _times(times: "Times") -> list[str]:
    """Seconds, or milliseconds where those would be zeros."""
    values = (times.p50, times.p90, times.p99, times.slowest)
    return [(f"{v:.2f} s" if v >= 0.1 else f"{v * 1000:.2f} ms") if times.count else "" for v in values]
