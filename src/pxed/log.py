"""Logging: for people on a terminal, JSON lines for programs otherwise.

Modules log with `structlog.get_logger()`, an event's name and its fields: `log.info("job failed", job=3, reason=…)`.
What libraries say through the standard library's logging comes out in the same form.

Names and texts in the log come from anybody who can send a packet. JSON escapes what a terminal would obey; for the
form for people it is done here.

Logging never raises, whatever becomes of the place where the lines go (a full disk, a pipe that nobody reads any more):
a server that cannot tell what it does still does it. Lines that could not be written are counted, and the first line
that can be written again says how many there were.
"""

import io
import logging
import os
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog

from pxed.text import printable

__all__ = ["SteadyStream", "set_up"]

# Libraries that speak of each of their steps at "info"; what matters to an operator they say at "warning".
QUIET = ("uvicorn", "alembic", "sqlalchemy", "aiosqlite", "httpx", "httpcore", "asyncio")


class SteadyStream:
    """Writes whole lines to another stream and never raises. A thread may use it while others do.

    A stream with a file descriptor is written past its buffers: what failed stays nowhere, to be half repeated later or
    to fail once more when the interpreter flushes it at its end.
    """

    def __init__(self, stream: TextIO | None, notice: Callable[[int], str] | None = None) -> None:
        """See `use`."""
        self._lock = threading.Lock()
        self.lost = 0  # lines since the last one that was written
        self.use(stream, notice)

    def use(self, stream: TextIO | None, notice: Callable[[int], str] | None = None) -> None:
        """Write to `stream` from now on; None (a closed stderr) drops all. `notice(lost)` is the line about losses."""
        with self._lock:
            self._stream, self._notice = stream, notice
            self._torn = False  # the last line ends in its middle
            self._fd = -1
            if stream is not None:
                with suppress(OSError, ValueError):  # in memory, or closed
                    self._fd = stream.fileno()

    def write(self, line: str) -> int:
        """Write a line with its end, or count it as lost. Returns its length either way, as streams do."""
        with self._lock:
            if self.lost and self._notice is not None and self._put(self._notice(self.lost)):
                self.lost = 0
            if (self.lost and self._notice is not None) or not self._put(line):
                self.lost += 1
        return len(line)

    def flush(self) -> None:
        """Nothing waits."""

    def _put(self, line: str) -> bool:
        try:
            if self._fd >= 0:
                self._put_bytes(line.encode(errors="backslashreplace"))
            elif self._stream is not None:
                self._stream.write(line)
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed, or not to be said in the stream's encoding
            return False
        return True

    def _put_bytes(self, line: bytes) -> None:
        rest = memoryview(b"\n" + line if self._torn else line)
        while rest:
            count = os.write(self._fd, rest)
            rest = rest[count:]
            self._torn = bool(rest)


class _LibraryHandler(logging.StreamHandler[SteadyStream]):
    """A library's line that cannot be formatted is told in one line, not as a traceback around our logging."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `emit` in an exception's handler."""
        error = sys.exc_info()[1]
        structlog.get_logger(record.name).error(
            "a library's log line has no form", line=str(record.msg), error=repr(error)
        )


# One for all, so that a reload, which sets up logging again, forgets no losses.
_OUT = SteadyStream(None)


def set_up(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "human", "json"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send all logging to `stream` (stderr). "auto" is human on a terminal, JSON otherwise. May be called again."""
    out: TextIO | None = stream if stream is not None else sys.stderr
    terminal = out is not None and out.isatty()
    human = form == "human" or (form == "auto" and terminal)
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[structlog.types.Processor]
    if human:
        last = [_escape, structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=_traceback)]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]

    def notice(lost: int) -> str:
        entry: structlog.typing.ProcessorReturnValue = {"event": "log lines could not be written", "lost": lost}
        for processor in (*shared, *last):
            entry = processor(None, "warning", cast(structlog.typing.EventDict, entry))
        return f"{entry!s}\n"

    _OUT.use(out, notice)
    # Loggers are not cached: a reload changes the level of those that modules made at import.
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _OUT)),
        cache_logger_on_first_use=False,
    )
    _route_library_logs(number, shared, last)


class _Shown(str):
    """A value as a terminal may have it; in quotes, where the renderer wants them, `repr` escapes the same."""

    _text: str

    def __new__(cls, text: str) -> "_Shown":
        shown = super().__new__(cls, printable(text))
        shown._text = text
        return shown

    def __repr__(self) -> str:
        return repr(self._text)


def _escape(logger: object, method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Every text as one that a terminal shows and does not obey."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = _indented(value) if key in ("stack", "exception") else _Shown(value)
    return entry


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(_indented(text.getvalue()))


def _indented(text: str) -> str:
    """Lines that cannot be taken for lines of the log."""
    return textwrap.indent(printable(text, keep="\n\t"), "    ")


def _route_library_logs(
    level: int, shared: list[structlog.types.Processor], last: list[structlog.types.Processor]
) -> None:
    handler = _LibraryHandler(_OUT)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
