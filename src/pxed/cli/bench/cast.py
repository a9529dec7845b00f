"""`pxed bench cast`."""

from typing import TYPE_CHECKING

import click

from pxed.cli import output
from pxed.cli.bench.fleet import PERCENT, SECONDS, rate_option
from pxed.cli.bench.shared import size_option
from pxed.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pxed.bench.cast.plan import Case, Plan
    from pxed.bench.cast.play import Play
    from pxed.bench.cast.result import Affected, Row, Table

BURST = output.FiniteRange(1, 10_000)
PEER_NAMES = ("udpcast", "uftp")


def _late(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    return tuple(SECONDS.convert(part, parameter, ctx) for part in value.split(",") if part.strip())


@click.command()
@click.option("--lab", is_flag=True, help="In network namespaces of its own, on a bridge with snooping. Needs root.")
@click.option("--virtual", is_flag=True, help="In virtual time: pxed's own sender and receivers on simulated lines.")
@click.option("--speed", is_flag=True, help="How fast one core sends, without a limit and into a cable. Needs root.")
@click.option(
    "--receivers", type=click.IntRange(1, 4000), default=None,
    help="At most 200 in the lab.  [default: 8 in the lab, 300 in virtual time]",
)  # fmt: skip
@click.option("--size", callback=size_option, default="200MB", show_default=True, help="Of the image: random data.")
@click.option("--line", callback=rate_option, default="200Mbit", show_default=True, help="Of the server's port.")
@click.option(
    "--rate", callback=rate_option, default="170Mbit", show_default=True,
    help="What may be sent: pxed's [cast] rate, and what each peer calls its rate.",
)  # fmt: skip
@click.option("--loss", type=PERCENT, default=0.0, help="Percent of packets lost at each receiver by itself.")
@click.option("--burst", type=BURST, default=1.0, help="Virtual: so many are lost in a row, on average.")
@click.option("--common", type=PERCENT, default=0.0, help="Virtual: percent lost at the server, by all together.")
@click.option("--duplicate", type=PERCENT, default=0.0, help="Virtual: percent of datagrams that come twice.")
@click.option("--reorder", type=PERCENT, default=0.0, help="Virtual: percent that later ones overtake.")
@click.option(
    "--seed", type=click.IntRange(0, 1 << 31), default=1, help="Virtual: of all chance: the same seed is the same run."
)
@click.option("--slow-port", callback=rate_option, default="0", help="One receiver's port of the switch: 40Mbit.")
@click.option("--slow-disk", callback=size_option, default="0", help="What one receiver's disk takes in a second: 5MB.")
@click.option("--kill", is_flag=True, help="One receiver is killed in the middle.")
@click.option("--stop", is_flag=True, help="One receiver is stopped in the middle, and does not go on.")
@click.option("--late", callback=_late, default="", metavar="SECONDS", help="One receiver comes so late: 5,9 for two.")
@click.option("--power-loss", is_flag=True, help="One receiver is killed at half of the image, and started again.")
@click.option(
    "--against", "peers", multiple=True, type=click.Choice(PEER_NAMES),
    help="This one too, in the same rooms. Downloaded from Debian if it is not installed.",
)  # fmt: skip
@click.option("--only-peers", is_flag=True, help="Without pxed.")
@click.option(
    "--limit", type=output.FiniteRange(0, 3600, min_open=True), default=60.0, show_default=True,
    help="Seconds until what a peer has not done is given up.",
)  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="Medians of so many.")
@output.json_option
def cast(
    lab: bool, virtual: bool, speed: bool, receivers: int | None, size: int, line: float, rate: float, loss: float,
    burst: float, common: float, duplicate: float, reorder: float, seed: int, slow_port: float, slow_disk: int,
    kill: bool, stop: bool, late: tuple[float, ...], power_loss: bool, peers: tuple[str, ...], only_peers: bool,
    limit: float, runs: int, as_json: bool,
) -> None:  # fmt: skip
    """Image a room of machines at the same time, and see what one of them can do to the others.

    With --lab alone, one room after the other: without loss, with it, with a slow port, a slow disk, a machine that is
    killed or stopped, two that come late, one that loses power. With options, one room in which all of that happens.
    Times run from each receiver's start until it has every byte; every byte is compared.

    With --virtual, hundreds of receivers: what the group is sent for each datagram that is needed. A run is the same
    each time. Nobody is moved to HTTP there, so nobody is slow.

    With --speed, what one core gets from a file of --size into the network; the median of --runs.
    """
    if [virtual, lab, speed].count(True) != 1:
        raise click.UsageError("Say --lab, --virtual or --speed.")
    if speed:
        from pxed.cli.bench import cast_speed

        cast_speed.measure(size, runs, as_json)
        return
    if virtual:
        if slow_port or slow_disk or stop or power_loss or peers or only_peers or runs > 1:
            raise click.UsageError("What happens to a receiver's port, disk or power, peers and runs are of --lab.")
        from pxed.bench.cast.virtual import Room
        from pxed.cli.bench.cast_virtual import measure

        measure(
            Room(
                receivers=receivers or 300, size=size, rate=rate, loss=loss / 100, burst=burst, common=common / 100,
                duplicate=duplicate / 100, reorder=reorder / 100, killed=int(kill), late=late, seed=seed,
            ),
            as_json,
        )  # fmt: skip
        return
    if burst != 1 or common or duplicate or reorder:
        raise click.UsageError("--burst, --common, --duplicate and --reorder are of --virtual.")
    receivers = receivers or 8
    if receivers > 200:
        raise click.UsageError("At most 200 receivers are in the lab.")
    from pxed.bench.cast.plan import SECTOR, Case, Plan, cases, roles

    plan = Plan(receivers=receivers, size=size + -size % SECTOR, line=line, rate=rate, limit=limit, runs=runs)
    one = Case(
        title="as asked", loss=loss / 100, slow_port=slow_port, slow_disk=slow_disk, kill=kill, stop=stop, late=late,
        power_loss=power_loss,
    )  # fmt: skip
    chosen = cases(plan) if one == Case(title=one.title) else [one]
    for case in chosen:
        roles(case, plan)
    names = [*(() if only_peers else ("pxed",)), *dict.fromkeys(peers)]
    if not names:
        raise click.UsageError("--only-peers needs --against.")
    table = _measure(plan, chosen, names)
    _show(table, as_json)


def _measure(plan: "Plan", chosen: "Sequence[Case]", names: list[str]) -> "Table":
    from pxed import log
    from pxed.bench.cast.play import Stage
    from pxed.bench.cast.result import Table, row

    log.set_up("error", "auto")
    table, done, whole = Table(plan, plan.ideal), 0, len(chosen) * len(names) * plan.runs
    with Stage(plan, output.note) as stage, output.progress("imaging rooms", unit="rooms") as show:
        show(0, whole)
        for case in chosen:
            plays: dict[str, list[Play]] = {name: [] for name in names}
            for _ in range(plan.runs):
                for name in names:
                    plays[name].append(stage.play(case, name))
                    done += 1
                    show(done, whole)
            table.rows += [row(case, plan, stage.party(name).version, plays[name]) for name in names]
            for made in table.rows[-len(names) :]:
                output.note(_sentence(made))
    return table


def _sentence(made: "Row") -> str:
    """One row, for who watches."""
    return f"{made.case}, {made.party}: {'; '.join(filter(None, (_others(made), *map(_it, made.affected))))}"


def _others(made: "Row") -> str:
    if made.refused:
        return f"not played ({made.refused})"
    if made.seconds is None:
        return "; ".join(f"{count}: {why}" for why, count in made.lost.items()) or "none was done"
    return f"{made.fastest:.1f} - {made.seconds:.1f} s"


def _it(one: "Affected") -> str:
    if one.seconds is None:
        return f"{one.role}: {one.why}" if one.ends else ""
    again = "" if one.again is None else f", {one.again:.0%} again"
    return f"{one.role}: {one.seconds:.1f} s{again}"


def _show(table: "Table", as_json: bool) -> None:
    if as_json:
        output.print_json(table)
    else:
        plan = table.plan
        output.note(
            f"{plan.receivers} receivers, {plan.size / 1e6:.0f} MB of random data, server's port "
            f"{plan.line / 1e6:g} Mbit/s, rate {plan.rate / 1e6:g} Mbit/s: {table.ideal:.1f} s at best. "
            f"Each one's time since its own start" + (f"; medians of {plan.runs}" if plan.runs > 1 else "")
        )
        output.table(
            ["case", "server", "others", "the one", "wire", "wanted at most", "reached"],
            [_row(one) for one in table.rows],
        )
    missed = [f"{one.case}: {what}" for one in table.rows for what in one.missed]
    if missed:
        output.note(f"Not reached: {'; '.join(missed)}.")
    lost = [
        f"{one.case}: {count} {why}" for one in table.rows if one.party == "pxed" for why, count in one.lost.items()
    ]
    if lost:
        raise OperatorError(f"Not every receiver got the image: {'; '.join(lost)}.")


def _row(one: "Row") -> list[str]:
    return [
        one.case, f"{one.party} {one.version}".strip(), _others(one), "; ".join(filter(None, map(_it, one.affected))),
        "" if one.wire is None else f"{one.wire:.2f}", ", ".join(one.wanted),
        ("no" if one.missed else "yes") if one.wanted else "",
    ]  # fmt: skip
