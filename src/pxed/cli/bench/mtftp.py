"""`pxed bench mtftp`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pxed.cli import output
from pxed.cli.bench.shared import PATIENCE, fail_if_lost, number, size_option
from pxed.cli.output import FiniteRange

if TYPE_CHECKING:
    from pxed.bench.measure import Target
    from pxed.bench.mtftp import Comparison, Scene, Summary


@click.command()
@click.option("--clients", type=click.IntRange(1, 64), default=6, show_default=True)
@click.option("--size", callback=size_option, default="20M", show_default=True, help="Of the file.")
@click.option("--blksize", type=click.IntRange(8, 1468), default=1428, show_default=True)
@click.option(
    "--loss", type=FiniteRange(0, 50), default=0.0, show_default=True,
    help="Percent of the datagrams that each client loses, by chances of its own.",
)  # fmt: skip
@click.option(
    "--kill-master", is_flag=True, help="Kill the master when half is sent, too: how long do the others wait?"
)
@click.option(
    "--unicast/--no-unicast", default=True, show_default=True, help="The same clients without multicast, too."
)
@click.option(
    "--against", "peers", multiple=True, type=click.Choice(("atftpd",)),
    help="Measure this server too, in turn with pxed. Downloaded from Debian if it is not installed.",
)  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Medians of so many.")
@click.option("--patience", type=PATIENCE, default=120.0, show_default=True, help="Seconds until a client is lost.")
@output.json_option
def mtftp(
    clients: int, size: int, blksize: int, loss: float, kill_master: bool, unicast: bool, peers: tuple[str, ...],
    runs: int, patience: float, as_json: bool,
) -> None:  # fmt: skip
    """Let real clients (atftp), each in a network namespace of its own on one bridge, read one file by multicast.

    Needs root, atftp and, for losses, nftables. WIRE is what left the server, headers and repeats included, in units
    of the file; times are from the start of the first client.
    """
    from pxed.bench.mtftp import PORT, SMALLEST_TO_KILL, Comparison, check, compare, wait_for
    from pxed.bench.room import Room

    if not size:
        raise click.UsageError("Of an empty file nothing is sent: --size must be at least 1.")
    if size // blksize + 1 > 65535:
        raise click.UsageError(f"By multicast goes what has at most 65,535 blocks: {65535 * blksize} bytes.")
    if kill_master and clients < 2:
        raise click.UsageError("Nobody waits when the only client is killed: --kill-master needs --clients 2 or more.")
    if kill_master and size < SMALLEST_TO_KILL:
        least = f"{SMALLEST_TO_KILL >> 10}K"
        raise click.UsageError(f"The file is sent before a master can be killed: --kill-master needs --size {least}.")
    with Room(size, clients, multicast=True) as room:
        check(room)
        targets = [room.start(one, PORT, output.note) for one in ("pxed", *dict.fromkeys(peers))]
        for target in targets:
            wait_for(room, target)
        if loss:
            room.lose(loss)
        scenes = list(_scenes(targets, kill_master, unicast))
        result = Comparison(clients, size, blksize, loss)
        with output.progress("measuring", unit="runs") as show:
            result.scenes = compare(room, scenes, blksize, patience, runs, lambda done, whole, scene: show(done, whole))
            show(len(scenes) * runs, len(scenes) * runs)
    _show(result, runs, as_json)


def _scenes(targets: "list[Target]", kill_master: bool, unicast: bool) -> "Iterator[Scene]":
    from pxed.bench.mtftp import Scene

    for target in targets:
        yield Scene(target)
        if kill_master:
            yield Scene(target, kill=True)
    if unicast:
        yield Scene(targets[0], multicast=False)


def _show(result: "Comparison", runs: int, as_json: bool) -> None:
    if as_json:
        output.print_json(result)
    else:
        output.note(
            f"{output.count(result.clients, 'client')}, {output.size(result.size)} each, blksize {result.blksize}"
            f"{f', {result.loss:g} % lost at each' if result.loss else ''}; medians of {runs}"
        )
        columns = ["server", "way", "wire", "most wire", "p50", "max", "CPU s", "longest stall", "lost"]
        output.table(columns, [_row(one) for one in result.scenes])
    fail_if_lost(result.scenes)


def _row(one: "Summary") -> list[str]:
    return [
        f"{one.server} {one.version}".strip(), one.way, number(one.wire), number(one.most_wire), f"{one.p50:.2f} s",
        f"{one.slowest:.2f} s", number(one.cpu), "" if one.stall is None else f"{one.stall:.2f} s",
        str(sum(one.lost.values())),
    ]  # fmt: skip
