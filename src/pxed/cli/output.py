"""What commands print: tables on a terminal, tab-separated lines in a pipe, JSON where asked.

Commands say what they show (columns, rows, fields) and never look at the terminal themselves.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click
import msgspec

from pxed.text import printable

__all__ = [
    "FiniteRange",
    "Progress",
    "ago",
    "clock",
    "count",
    "duration",
    "fields",
    "is_terminal",
    "json_option",
    "json_text",
    "note",
    "print_json",
    "progress",
    "rate",
    "size",
    "table",
    "when",
]

F = TypeVar("F", bound=Callable[..., Any])

# In a pipe, progress is a line at most this often: enough to see that it moves, few enough for a log.
PLAIN_PROGRESS_SECONDS = 1.0


class FiniteRange(click.FloatRange):
    """A number of an option, within bounds. FloatRange takes "nan", which is within all bounds, and "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


def json_option(command: F) -> F:
    """The `--json` flag (parameter `as_json`) that every listing has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def is_terminal() -> bool:
    """Whether a person is looking at stdout."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Structs, dicts and lists as indented JSON."""
    click.echo(json_text(msgspec.json.format(msgspec.json.encode(value), indent=2), keep="\n"))


def json_text(encoded: bytes, keep: str = "") -> str:
    """Encoded JSON as text for a terminal. What is not printable stands in strings only, where JSON has an escape."""
    text = encoded.decode()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "") -> None:
    """Rows under their columns. In a pipe: a tab between cells, the columns' names (in capitals) as the first line.

    `empty` is the sentence that a person gets, on stderr, when there is no row.
    """
    names = [column.upper() for column in columns]
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not is_terminal():
        for line in [names, *cells]:
            click.echo("\t".join(_one_line(cell) for cell in line))
        return
    if not cells:
        click.echo(empty or "Nothing to show.", err=True)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names:
        shown.add_column(name, overflow="fold")
    for line in cells:
        shown.add_row(*(Text(printable(cell)) for cell in line))
    Console(highlight=False).print(shown)


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """One thing's fields, a line each; in a pipe a tab stands between name and value. Empty values are left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name:<{width}}  {printable(value)}" if is_terminal() else f"{name}\t{_one_line(value)}")


def note(text: str) -> None:
    """A sentence for the person, on stderr, so that stdout stays what was asked for."""
    click.echo(printable(text, keep="\n"), err=True)


class Progress(Protocol):
    """What `progress` gives: call it with what is done so far and the whole, both in the same unit."""

    def __call__(self, done: float, total: float) -> None: ...


@contextmanager
def progress(title: str, *, unit: str = "bytes") -> Iterator[Progress]:
    """Progress of one long work, on stderr: a bar on a terminal, else a line a second while there is news.

    `unit`: "bytes" or a word.
    """
    if sys.stderr.isatty():
        with _bar(title, unit) as show:
            yield show
        return
    last, said = 0.0, ""

    def line(done: float, total: float) -> None:
        nonlocal last, said
        now = time.monotonic()
        if now - last < PLAIN_PROGRESS_SECONDS and done < total:
            return
        share = 100.0 * done / total if total else 100.0
        amount = f"{size(done)} of {size(total)}" if unit == "bytes" else f"{done:.0f} of {total:.0f} {unit}"
        text = f"{title}: {share:.0f}% ({amount})"
        if text != said:
            last, said = now, text
            click.echo(text, err=True)

    yield line


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    from rich import progress as bars
    from rich.console import Console

    columns: list[bars.ProgressColumn] = [
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
    ]
    if unit == "bytes":
        columns += [bars.DownloadColumn(binary_units=True), bars.TransferSpeedColumn()]
    else:
        columns += [bars.MofNCompleteColumn(), bars.TextColumn(unit, markup=False)]
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def size(count: float) -> str:
    """Bytes as a person reads them, in powers of 1024: '1.5 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def count(number: int, noun: str) -> str:
    """A number of things: '1 chunk', '2 chunks'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def rate(bytes_per_second: float) -> str:
    """'112.4 MiB/s'; empty for zero."""
    return f"{size(bytes_per_second)}/s" if bytes_per_second else ""


def when(moment: float) -> str:
    """Seconds since the epoch as local date and time; empty for 0 (never)."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""


def clock(moment: float) -> str:
    """Seconds since the epoch as local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def duration(seconds: float) -> str:
    """'0.4 s', '42 s', '3 min 05 s', '2 h 10 min'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def ago(moment: float, now: float) -> str:
    """'42 s ago'; empty for 0 (never)."""
    return f"{duration(max(0.0, now - moment))} ago" if moment else ""


def _one_line(cell: str) -> str:
    return printable(cell.replace("\t", " ").replace("\n", " "))
