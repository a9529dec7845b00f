"""`pxed session`: images on their way by multicast, who takes part, and when they will be done."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import msgspec

from pxed.cli import Context, pass_context
from pxed.cli.output import (
    FiniteRange,
    count,
    duration,
    fields,
    is_terminal,
    json_option,
    json_text,
    note,
    print_json,
    size,
    table,
    when,
)
from pxed.errors import OperatorError
from pxed.text import printable
from pxed.types import ImageSession, SessionReceiver

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["session"]

_COLUMNS = ("#", "machine", "state", "%", "rate", "loss", "queue", "disk", "left", "why")
_DISK = _COLUMNS.index("disk")
# States after which nothing changes.
_OVER = frozenset({"done", "left", "dead"})
# On a terminal: lines that are not receivers.
_AROUND = 6
_BAR = 20  # characters
_WIDE = 124  # columns of a terminal that has room for the bar, and for how fast the disk is
# In one that is too narrow, these are cut off first.
_YIELDING = frozenset({"machine", "why"})


@click.group()
def session() -> None:
    """Images on their way by multicast."""


@session.command("list")
@click.option("--all", "everything", is_flag=True, help="With those that have ended.")
@json_option
@pass_context
def list_(context: Context, everything: bool, as_json: bool) -> None:
    """List the multicast sessions."""
    found = context.client.get("/sessions", list[ImageSession])
    sessions = [one for one in found if everything or one.state != "ended"]
    if as_json:
        print_json(sessions)
        return
    table(
        ("id", "image", "interface", "group", "state", "receivers", "done", "rate", "sent", "ready"),
        (
            (
                *(one.id, one.image_name, one.interface, one.group, one.state, len(one.receivers)),
                *(sum(r.state == "done" for r in one.receivers), mbit(one.rate) if one.state == "sending" else ""),
                *(size(one.sent), _ready(one)),
            )
            for one in sessions
        ),
        empty="There is no multicast session.",
    )


@session.command()
@click.argument("key", metavar="SESSION")
@json_option
@pass_context
def show(context: Context, key: str, as_json: bool) -> None:
    """Show a session and its receivers. SESSION: the beginning of its id, or the image's name."""
    found = _get(context, key)
    if as_json:
        print_json(found)
        return
    fields(
        (
            ("id", found.id),
            ("image", f"{found.image_name} ({size(found.size)} to send)"),
            ("group", f"{found.group} port {found.port}, interface {found.interface}"),
            ("state", _state(found)),
            ("rate", f"{mbit(found.rate)} of at most {mbit(found.cap)}"),
            ("sent", f"{size(found.sent)}, {found.repaired:.1%} of it repairs"),
            ("ready", _ready(found)),
            ("late", _late(found)),
            ("trouble", found.trouble),
            ("created", when(found.created)),
            ("begun", when(found.begun)),
            ("ended", when(found.ended)),
        )
    )
    click.echo()
    table(_COLUMNS, map(_cells, found.receivers), empty="It has no receivers.")


@session.command()
@click.argument("key", metavar="[SESSION]", default="")
@click.option("--interval", type=FiniteRange(0.1, 86400), default=1.0, show_default=True, help="Seconds between views.")
@json_option
@pass_context
def watch(context: Context, key: str, interval: float, as_json: bool) -> None:
    """Follow a session live until it has ended; by default the newest one. Ctrl-C stops watching, nothing else."""
    try:
        views = _views(context, key, interval)
        if is_terminal() and not as_json:
            _live(views)
            return
        for view in views:
            click.echo(json_text(msgspec.json.encode(view)) if as_json else "\n".join(_lines(view)))
    except KeyboardInterrupt:
        return


@session.command()
@click.argument("key", metavar="SESSION")
@pass_context
def start(context: Context, key: str) -> None:
    """Let a session begin that waits for its start."""
    begun = context.client.post(f"/sessions/{_path(key)}/start", None, ImageSession)
    click.echo(f"Session {begun.id} of {begun.image_name} begins with {count(len(begun.receivers), 'receiver')}.")


def mbit(rate: float) -> str:
    """A rate as networks count it; empty for none."""
    return f"{rate * 8 / 1e6:.0f} Mbit/s" if rate else ""


def _path(key: str) -> str:
    if not key.strip():
        raise OperatorError("Say which session: by the beginning of its id, or by its image's name.")
    return quote(key, safe="")


def _get(context: Context, key: str) -> ImageSession:
    return context.client.get(f"/sessions/{_path(key)}", ImageSession)


def _views(context: Context, key: str, interval: float) -> Iterator[ImageSession]:
    """A session again and again; the last one is what it ended as."""
    if not key:
        going = [one for one in context.client.get("/sessions", list[ImageSession]) if one.state != "ended"]
        if not going:
            note("There is no multicast session.")
            return
        key = going[-1].id
    while True:
        view = _get(context, key)
        key = view.id  # a name may come to mean another session
        yield view
        if view.state == "ended":
            return
        time.sleep(interval)


# -- words -------------------------------------------------------------------------------------------------------------


def _state(one: ImageSession) -> str:
    return f"{one.state}: {one.waits}" if one.waits else one.state


def _ready(one: ImageSession) -> str:
    """When the fleet is done."""
    if one.state != "sending" or one.seconds_left is None:
        return ""
    at = time.strftime("%H:%M:%S", time.localtime(time.time() + one.seconds_left))
    return f"in {duration(one.seconds_left)}, at {at}"


def _late(one: ImageSession) -> str:
    """Who will miss it."""
    late = [receiver for receiver in one.receivers if receiver.late]
    return "; ".join(f"{r.name} ({r.reason or _why_late(r)})" for r in late)


def _why_late(receiver: SessionReceiver) -> str:
    return "silent" if receiver.state == "dead" else f"at {receiver.percent:.0f}%"


def _cells(receiver: SessionReceiver) -> tuple[str, ...]:
    left = receiver.seconds_left
    return (
        str(receiver.number),
        receiver.name,
        receiver.state,
        f"{receiver.percent:.0f}",
        mbit(receiver.rate),
        f"{receiver.loss:.1%}" if receiver.loss else "",
        f"{receiver.queue:.0%}" if receiver.queue else "",
        mbit(receiver.disk_rate),
        duration(left) if left and receiver.state not in _OVER else "",
        receiver.reason + (" (late)" if receiver.late else ""),
    )


def _head(one: ImageSession) -> str:
    done = sum(receiver.state == "done" for receiver in one.receivers)
    words = (
        f"{one.image_name} {_state(one)}",
        f"{done} of {count(len(one.receivers), 'receiver')} done",
        mbit(one.rate) if one.state == "sending" else "",
        f"ready {_ready(one)}" if _ready(one) else "",
        f"late: {_late(one)}" if _late(one) else "",
        one.trouble,
    )
    return printable("; ".join(word for word in words if word))


def _lines(one: ImageSession) -> Iterator[str]:
    yield _head(one)
    for receiver in one.receivers:
        yield "\t".join(printable(cell) for cell in _cells(receiver))
    yield ""


# -- on a terminal -----------------------------------------------------------------------------------------------------


def _live(views: Iterator[ImageSession]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(Text("asking …"), console=console, auto_refresh=False) as live:
        for view in views:
            rows = max(3, console.size.height - _AROUND)
            live.update(_screen(view, rows, console.size.width), refresh=True)


def _screen(one: ImageSession, rows: int, width: int) -> "RenderableType":
    """A session, cut to so many receivers: those that are at work first, the slowest of them on top.

    `width`: columns of the terminal.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    wide = width >= _WIDE
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1) if wide else (0, 1, 0, 0))
    for column in (*_COLUMNS[:3], "", *_COLUMNS[3:]) if wide else (*_COLUMNS[:_DISK], *_COLUMNS[_DISK + 1 :]):
        grid.add_column(column.upper(), no_wrap=column not in _YIELDING)
    shown = _interesting(one.receivers)[:rows]
    for receiver in shown:
        cells = [Text(printable(cell), no_wrap=True, overflow="ellipsis") for cell in _cells(receiver)]
        if not wide:
            grid.add_row(*cells[:_DISK], *cells[_DISK + 1 :])
            continue
        filled = round(_BAR * receiver.percent / 100)
        bar = Text("━" * filled, "green" if receiver.state in ("receiving", "done") else "yellow")
        grid.add_row(*cells[:3], bar.append("━" * (_BAR - filled), "bright_black"), *cells[3:])
    more = len(one.receivers) - len(shown)
    return Group(Text(_head(one), style="bold"), grid, Text(f"… and {more} more" if more else ""))


def _interesting(receivers: Sequence[SessionReceiver]) -> list[SessionReceiver]:
    return sorted(receivers, key=lambda r: (r.state in _OVER, not r.late, r.percent, r.number))
