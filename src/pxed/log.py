"""Logging: for people on a terminal, JSON lines for programs otherwise.

Modules log with `structlog.get_logger()`, an event's name and its fields: `log.info("job failed", job=3, reason=…)`.
What libraries say through the standard library's logging comes out in the same form. Imports nothing of pxed.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog

__all__ = ["set_up"]

# Libraries that speak of each of their steps at "info"; what matters to an operator they say at "warning".
QUIET = ("uvicorn", "alembic", "sqlalchemy", "aiosqlite", "httpx", "httpcore", "asyncio")


def set_up(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "human", "json"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send all logging to `stream` (stderr). "auto" is human on a terminal, JSON otherwise. May be called again."""
    out = stream if stream is not None else sys.stderr
    human = form == "human" or (form == "auto" and out.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[structlog.types.Processor]
    if human:
        last = [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Loggers are not cached: a reload changes the level of those that modules made at import.
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _route_library_logs(out, number, shared, last)


def _route_library_logs(
    out: TextIO, level: int, shared: list[structlog.types.Processor], last: list[structlog.types.Processor]
) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
