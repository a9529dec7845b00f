"""What the commands of `pxed bench` have in common."""

import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from pxed.cli.output import FiniteRange
from pxed.errors import OperatorError

if TYPE_CHECKING:
    from pxed.bench.measure import Target

__all__ = ["PATIENCE", "fail_if_lost", "number", "running", "size_option"]

PATIENCE = FiniteRange(0, 86400, min_open=True)
"""Seconds until something is lost."""

_DECIMAL = {"K": 10**3, "M": 10**6, "G": 10**9}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_option(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    """The value of an option that is a size, in bytes: 1408, 256K, 32M, 1G (powers of 1024), 200MB (of 1000)."""
    match = re.fullmatch(r"(\d+)([KMG]?)(iB|(?<=[KMG])B)?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write 1408, 256K, 32M or 1G.")
    return int(match[1]) * (_DECIMAL if match[3] == "B" else _UNITS)[match[2]]


def running(address: str, port: int, file: str, pid: int | None) -> "Target":
    """A server that runs already; `pid` of its process here, to measure its CPU time. Raises OperatorError."""
    from pxed.bench.measure import Target
    from pxed.bench.process import cpu_seconds

    try:
        reached = socket.gethostbyname(address)
    except (OSError, UnicodeError) as error:
        raise OperatorError(f"{address} is neither an IPv4 address nor a host that has one.") from error
    if pid is None:
        return Target(address, "", reached, file, port)
    if not Path(f"/proc/{pid}").exists():
        raise OperatorError(f"There is no process {pid} here.")
    return Target(address, "", reached, file, port, cpu=lambda: cpu_seconds(pid))


def number(value: float | None) -> str:
    """A figure of a table; nothing where there is none."""
    return "" if value is None else f"{value:.2f}"


class _Summary(Protocol):
    server: str
    lost: dict[str, int]


def fail_if_lost(servers: Iterable[_Summary], what: str = "client got its file") -> None:
    """Raises OperatorError when some client did not get what it wanted: nothing else was measured well then."""
    reasons = [f"{one.server}: {count} {why}" for one in servers for why, count in one.lost.items()]
    if reasons:
        raise OperatorError(f"Not every {what}: {'; '.join(reasons)}.")
