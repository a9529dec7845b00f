"""`pxed top`: transfers and rates, live.

The server tells what has moved so far; two of its snapshots make a view with rates. A view is shown in one of three
ways: in place on a terminal, as lines in a pipe, as a JSON object for programs.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from pxed.cli import Context, pass_context
from pxed.cli.client import Client
from pxed.cli.output import FiniteRange, clock, count, duration, is_terminal, json_option, json_text, rate, size
from pxed.text import printable
from pxed.types import Failure, Traffic, Transfer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Row", "View", "compare", "top"]

# Rows in a pipe; a terminal shows as many as fit.
PLAIN_ROWS = 20
FAILURES = 5
# Lines of a terminal that are not transfers: head, machines, the table's own, and a blank one here and there.
AROUND = 8

_COLUMNS = ("machine", "name", "via", "done", "of", "rate", "left", "repeats", "blocks")


class Row(msgspec.Struct, frozen=True):
    """A transfer in a view."""

    transfer: Transfer
    rate: float  # bytes per second since the last view, or since its request
    left: float | None  # seconds, at this rate
    percent: float


class View(msgspec.Struct, frozen=True):
    """What moved between two snapshots."""

    seconds: float
    tftp_rate: float  # bytes per second, repeats included
    http_rate: float
    tftp_retransmits: int
    tftp_running: int
    tftp_waiting: int
    http_connections: int
    cast_rate: float  # bytes of image data per second, to groups
    cast_receivers: int
    transfers: tuple[Row, ...]  # the quickest first
    places: dict[str, int]
    steps: dict[str, int]
    failures: tuple[Failure, ...]


def compare(before: Traffic, now: Traffic) -> View:
    """The view between two snapshots. A server that was started meanwhile has moved what it says in all."""
    seconds = now.time - before.time
    if seconds <= 0 or now.tftp_bytes < before.tftp_bytes or now.http_bytes < before.http_bytes:
        before, seconds = Traffic(time=now.time), 0.0
    done = {transfer.id: transfer.bytes for transfer in before.transfers}
    rows = [_row(transfer, done.get(transfer.id), seconds) for transfer in now.transfers]
    return View(
        seconds=seconds,
        tftp_rate=_per(now.tftp_bytes - before.tftp_bytes, seconds),
        http_rate=_per(now.http_bytes - before.http_bytes, seconds),
        tftp_retransmits=now.tftp_retransmits - before.tftp_retransmits,
        tftp_running=now.tftp_running,
        tftp_waiting=now.tftp_waiting,
        http_connections=now.http_connections,
        cast_rate=_per(now.cast_bytes - before.cast_bytes, seconds),
        cast_receivers=now.cast_receivers,
        transfers=tuple(sorted(rows, key=lambda row: (-row.rate, row.transfer.id))),
        places=now.places,
        steps=now.steps,
        failures=now.failures,
    )


def _per(amount: float, seconds: float) -> float:
    return max(0.0, amount / seconds) if seconds > 0 else 0.0


def _row(transfer: Transfer, before: int | None, seconds: float) -> Row:
    if before is None or seconds <= 0:
        moved = _per(transfer.bytes, transfer.seconds)
    else:
        moved = _per(transfer.bytes - before, seconds)
    left = (transfer.size - transfer.bytes) / moved if moved and transfer.size else None
    percent = 100.0 * transfer.bytes / transfer.size if transfer.size else 0.0
    return Row(transfer, moved, left, percent)


@click.command()
@click.option("--interval", type=FiniteRange(0.1, 86400), default=1.0, show_default=True, help="Seconds between views.")
@click.option("--once", is_flag=True, help="One view, after one interval.")
@json_option
@pass_context
def top(context: Context, interval: float, once: bool, as_json: bool) -> None:
    """Show transfers and rates, live; Ctrl-C ends it. In a pipe: lines; with --json one object for each view."""
    views = _views(context.client, interval)
    try:
        if is_terminal() and not as_json:
            _live(views, once)
            return
        for view in views:
            click.echo(json_text(msgspec.json.encode(view)) if as_json else "\n".join((*_lines(view), "")))
            if once:
                return
    except KeyboardInterrupt:
        return


def _views(client: Client, interval: float) -> Iterator[View]:
    before = client.get("/traffic", Traffic)
    while True:
        time.sleep(interval)
        now = client.get("/traffic", Traffic)
        yield compare(before, now)
        before = now


# -- in a pipe ---------------------------------------------------------------------------------------------------------


def _lines(view: View) -> Iterator[str]:
    yield from _head(view)
    yield "\t".join(column.upper() for column in _COLUMNS)
    for row in view.transfers[:PLAIN_ROWS]:
        yield "\t".join(_cells(row))
    yield from _tail(view, PLAIN_ROWS)


def _head(view: View) -> Iterator[str]:
    tftp, http = rate(view.tftp_rate) or "0 B/s", rate(view.http_rate) or "0 B/s"
    waiting = f", {view.tftp_waiting} waiting" if view.tftp_waiting else ""
    repeats = f", {count(view.tftp_retransmits, 'repeat')}" if view.tftp_retransmits else ""
    cast = f"; multicast {rate(view.cast_rate) or '0 B/s'} to {count(view.cast_receivers, 'receiver')}"
    yield (
        f"TFTP {tftp}, {view.tftp_running} running{waiting}{repeats}; HTTP {http}, {view.http_connections} connected"
        f"{cast if view.cast_receivers else ''}"
    )
    on_their_way = [f"{number} {place}" for place, number in (*view.places.items(), *view.steps.items())]
    if on_their_way:
        yield printable(f"machines: {', '.join(on_their_way)}")


def _tail(view: View, shown: int) -> Iterator[str]:
    if len(view.transfers) > shown:
        yield f"… and {len(view.transfers) - shown} more"
    for failure in view.failures[-FAILURES:]:
        yield printable(f"{clock(failure.time)}  {failure.who}  {failure.text}")


def _cells(row: Row) -> tuple[str, ...]:
    transfer = row.transfer
    window = f"x{transfer.windowsize}" if transfer.windowsize > 1 else ""
    cells = (
        transfer.machine or transfer.peer,
        transfer.name,
        transfer.protocol,
        f"{row.percent:.0f}%" if transfer.state == "sending" else transfer.state,
        size(transfer.size) if transfer.size else "",
        rate(row.rate),
        duration(row.left) if row.left is not None else "",
        str(transfer.retransmits or ""),
        f"{transfer.blksize}{window}" if transfer.blksize else "",
    )
    return tuple(printable(cell) for cell in cells)


# -- on a terminal -----------------------------------------------------------------------------------------------------


def _live(views: Iterator[View], once: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    if once:
        console.print(_Screen(next(views)))
        return
    with Live(Text("measuring …"), console=console, auto_refresh=False, screen=True) as live:
        for view in views:
            live.update(_Screen(view), refresh=True)


class _Screen:
    """A view, cut to the terminal's height."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        view = self._view
        rows = max(3, console.size.height - AROUND - len(view.failures[-FAILURES:]))
        for line in _head(view):
            yield Text(line, style="bold", no_wrap=True, overflow="ellipsis")
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
        for column in _COLUMNS:
            text = column in ("machine", "name", "via")
            table.add_column(
                column.upper(), no_wrap=True, overflow="ellipsis", justify="left" if text else "right",
                ratio=2 if column == "name" else None,
            )  # fmt: skip
        for row in view.transfers[:rows]:
            table.add_row(*map(Text, _cells(row)))
        yield table
        for line in _tail(view, rows):
            yield Text(line, no_wrap=True, overflow="ellipsis")
