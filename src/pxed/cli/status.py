"""`pxed status`: the running server at a glance."""

import time

import click

from pxed.api.control import Status
from pxed.cli import Context, pass_context
from pxed.cli.output import ago, duration, fields, json_option, note, print_json

__all__ = ["status"]


@click.command()
@json_option
@pass_context
def status(context: Context, as_json: bool) -> None:
    """Show the running server: its services, machines, jobs, counters, and what to look at."""
    now = context.client.get("/status", Status)
    if as_json:
        print_json(now)
        return
    fields(
        (
            ("version", now.version),
            ("pid", now.pid),
            ("started", ago(now.started, time.time())),
            *((service.name, f"{service.state}: {service.detail}") for service in now.services),
            *((f"IGMP querier on {name}", _heard(seconds)) for name, seconds in now.queriers.items()),
            ("machines", now.machines),
            ("jobs", ", ".join(f"{count} {state}" for state, count in now.jobs.items())),
            *((name, value) for name, value in sorted(now.counters.items()) if value),
        )
    )
    for warning in now.warnings:
        note(f"Warning: {warning}")


def _heard(seconds: float | None) -> str:
    return "not heard" if seconds is None else f"heard {duration(seconds)} ago"
