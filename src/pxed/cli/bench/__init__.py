"""`pxed bench`: what this server, or another, does under load. Each command lives in a module of its own."""

import click

from pxed.cli import Command, LazyGroup

__all__ = ["bench"]

COMMANDS: dict[str, Command] = {
    "cast": Command("pxed.cli.bench.cast:cast", "A room of machines gets one image at the same time."),
    "fleet": Command("pxed.cli.bench.fleet:fleet", "Machines boot the whole way, in virtual time or a lab."),
    "dhcp": Command("pxed.cli.bench.dhcp:dhcp", "PXE clients ask for something to boot."),
    "http": Command("pxed.cli.bench.http:http", "Clients read one file by HTTP at the same time."),
    "mtftp": Command("pxed.cli.bench.mtftp:mtftp", "Clients read one file by multicast TFTP at the same time."),
    "tftp": Command("pxed.cli.bench.tftp:tftp", "Clients read one file by TFTP at the same time."),
}


@click.group(cls=LazyGroup, entries=COMMANDS)
def bench() -> None:
    """Measure this server, and others beside it, with clients that check every byte."""
