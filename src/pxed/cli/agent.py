"""`pxed agent`: the imaging agent. Machines run it inside the environment; nobody else needs it."""

import sys

import click


@click.group()
def agent() -> None:
    """The imaging agent, which runs on the machine that is imaged."""


@agent.command()
def run() -> None:
    """Do this machine's job: what the imaging environment starts. It overwrites this machine's disk."""
    from pxed.agent.__main__ import main

    sys.exit(main())
