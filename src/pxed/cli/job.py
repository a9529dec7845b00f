"""`pxed job`: imaging work for machines."""

from collections.abc import Sequence
from typing import get_args

import click

from pxed.api.control import NewJob
from pxed.cli import Context, pass_context
from pxed.cli.machine import machine_label
from pxed.cli.output import fields, json_option, print_json, rate, table, when
from pxed.cli.watch import ENDED, follow
from pxed.types import Event, Job, Machine, Transport

__all__ = ["job"]


class Aliased(click.Group):
    """`create` is the same as `add`: both words are in use for it."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "add" if cmd_name == "create" else cmd_name)


@click.group(cls=Aliased)
def job() -> None:
    """Imaging work for machines."""


@job.command()
@click.option("--machine", required=True, help="Id, MAC, SMBIOS UUID or name of the machine.")
@click.option("--image", required=True, help="Name or id of the image.")
@click.option("--debug", is_flag=True, help="Give a shell on the machine's console when the job fails.")
@click.option(
    "--transport",
    type=click.Choice(get_args(Transport)),
    default="auto",
    show_default=True,
    help="How the image travels: by multicast where it reaches the machine (auto), only so (cast), or by HTTP.",
)
@json_option
@pass_context
def add(context: Context, machine: str, image: str, debug: bool, transport: Transport, as_json: bool) -> None:
    """Restore an image on a machine at its next network boot. (Also: create.)"""
    wanted = NewJob(machine=machine, image=image, debug=debug, transport=transport)
    made = context.client.post("/jobs", wanted, Job)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Job {made.id}: {made.kind} {made.image_name} on {machine}, {made.state}.")


@job.command("list")
@click.option("--all/--unfinished", "everything", default=True, show_default=True, help="Which jobs.")
@json_option
@pass_context
def list_(context: Context, everything: bool, as_json: bool) -> None:
    """List the jobs."""
    jobs = [j for j in context.client.get("/jobs", list[Job]) if everything or j.state not in ENDED]
    if as_json:
        print_json(jobs)
        return
    labels = labels_of(context) if jobs else {}
    table(
        ("ID", "MACHINE", "IMAGE", "STATE", "STEP", "%", "RATE", "CHANGED", "REASON"),
        (
            (
                *(j.id, labels.get(j.machine_id, f"machine {j.machine_id}"), j.image_name, j.state, j.step),
                *(f"{j.percent:.0f}" if j.step else "", rate(j.rate), when(j.changed), j.reason),
            )
            for j in jobs
        ),
        empty="There is no job.",
    )


@job.command()
@click.argument("job_id", type=int)
@json_option
@pass_context
def show(context: Context, job_id: int, as_json: bool) -> None:
    """Show one job, with its part of the machine's timeline."""
    found = context.client.get(f"/jobs/{job_id}", Job)
    timeline = [
        event
        for event in context.client.get(f"/machines/{found.machine_id}/timeline", list[Event])
        if event.job_id == job_id
    ]
    if as_json:
        print_json({"job": found, "timeline": timeline})
        return
    fields(
        (
            ("id", found.id),
            ("machine", labels_of(context).get(found.machine_id, found.machine_id)),
            ("work", f"{found.kind} {found.image_name}"),
            ("image", found.image),
            ("transport", found.transport),
            ("state", found.state),
            ("step", found.step),
            ("percent", f"{found.percent:.0f}" if found.step else ""),
            ("rate", rate(found.rate)),
            ("reason", found.reason),
            ("attempts", found.attempts),
            ("debug", "yes" if found.debug else ""),
            ("created", when(found.created)),
            ("changed", when(found.changed)),
            ("expires", when(found.expires)),
        )
    )
    click.echo()
    table(
        ("TIME", "KIND", "WHAT"),
        ((when(event.time), event.kind, event.text) for event in timeline),
        empty="Nothing happened with this job yet.",
    )


@job.command()
@click.argument("job_ids", type=int, nargs=-1, required=True, metavar="JOB_ID...")
@pass_context
def cancel(context: Context, job_ids: Sequence[int]) -> None:
    """Cancel jobs. A machine that is being imaged stops at once and keeps a disk that does not boot."""
    for job_id in job_ids:
        _say(context.client.post(f"/jobs/{job_id}/cancel", None, Job))


@job.command()
@click.argument("job_ids", type=int, nargs=-1, required=True, metavar="JOB_ID...")
@pass_context
def retry(context: Context, job_ids: Sequence[int]) -> None:
    """Make failed, cancelled or expired jobs pending again."""
    for job_id in job_ids:
        _say(context.client.post(f"/jobs/{job_id}/retry", None, Job))


@job.command()
@click.argument("job_ids", type=int, nargs=-1, metavar="[JOB_ID...]")
@json_option
@pass_context
def watch(context: Context, job_ids: Sequence[int], as_json: bool) -> None:
    """Follow jobs live until they have ended; without an id, all that are unfinished now.

    The exit code is 0 when all of them succeeded, else 1.
    """
    if not follow(context.client, frozenset(job_ids), labels_of(context), as_json=as_json):
        raise click.exceptions.Exit(1)


def labels_of(context: Context) -> dict[int, str]:
    """What people call each machine, by its id."""
    return {m.id: machine_label(m) for m in context.client.get("/machines", list[Machine])}


def _say(changed: Job) -> None:
    click.echo(f"Job {changed.id} is {changed.state}.")
