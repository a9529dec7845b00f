"""`pxed bench`: what this server, or another, does under load. Each command lives in a module of its own."""

import re

import click

from pxed.cli import Command, LazyGroup

__all__ = ["bench", "size_option"]

COMMANDS: dict[str, Command] = {
    "tftp": Command("pxed.cli.bench.tftp:tftp", "Clients read one file by TFTP at the same time."),
}

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_option(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    """The value of an option that is a size, in bytes: 1408, 256K, 32M, 1G (powers of 1024)."""
    match = re.fullmatch(r"(\d+)([KMG]?)(?:iB)?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write 1408, 256K, 32M or 1G.")
    return int(match[1]) * _UNITS[match[2]]


@click.group(cls=LazyGroup, entries=COMMANDS)
def bench() -> None:
    """Measure this server, and others beside it, with simulated clients that check every byte."""
