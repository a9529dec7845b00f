"""`pxed machine`: the machines that the server knows, and each one's timeline."""

import time
from collections.abc import Sequence
from urllib.parse import quote

import click

from pxed.api.control import NewMachine
from pxed.cli import Context, pass_context
from pxed.cli.output import ago, fields, json_option, print_json, table, when
from pxed.errors import OperatorError
from pxed.types import Event, Job, JobState, Machine

__all__ = ["machine", "machine_label"]


@click.group()
def machine() -> None:
    """The machines that the server knows. KEY is an id, a MAC, a SMBIOS UUID or a name."""


@machine.command("list")
@click.option("--known", is_flag=True, help="Leave out machines that were only seen on the wire.")
@json_option
@pass_context
def list_(context: Context, known: bool, as_json: bool) -> None:
    """List all machines, with what each is doing."""
    machines = [m for m in context.client.get("/machines", list[Machine]) if m.known or not known]
    if as_json:
        print_json(machines)
        return
    newest = {job.machine_id: job for job in context.client.get("/jobs", list[Job])}
    now = time.time()
    table(
        ("ID", "MAC", "NAME", "PRODUCT", "JOB", "LAST SEEN"),
        ((m.id, ", ".join(m.macs), m.name, _product(m), _doing(m, newest), ago(m.last_seen, now)) for m in machines),
        empty="No machine was seen or added yet.",
    )


@machine.command()
@click.argument("key")
@json_option
@pass_context
def show(context: Context, key: str, as_json: bool) -> None:
    """Show one machine: what is known about it, its jobs, and its timeline."""
    found = context.client.get(_path(key), Machine)
    timeline = context.client.get(f"/machines/{found.id}/timeline", list[Event])
    jobs = [job for job in context.client.get("/jobs", list[Job]) if job.machine_id == found.id]
    if as_json:
        print_json({"machine": found, "jobs": jobs, "timeline": timeline})
        return
    fields(
        (
            ("id", found.id),
            ("name", found.name),
            ("MAC", ", ".join(found.macs)),
            ("UUID", found.uuid),
            ("serial", found.serial),
            ("manufacturer", found.manufacturer),
            ("product", found.product),
            ("known", "yes" if found.known else "no, only seen on the wire"),
            ("first seen", when(found.first_seen)),
            ("last seen", when(found.last_seen)),
            *((f"job {job.id}", _job_line(job)) for job in jobs),
        )
    )
    click.echo()
    table(
        ("TIME", "KIND", "WHAT"),
        ((when(event.time), event.kind, event.text) for event in timeline),
        empty="Nothing happened with this machine yet.",
    )


@machine.command()
@click.option("--mac", default="", help="MAC of a wired interface.")
@click.option("--uuid", default="", help="SMBIOS UUID.")
@click.option("--serial", default="", help="Serial number, as SMBIOS has it.")
@click.option("--name", default="", help="A name for people.")
@json_option
@pass_context
def add(context: Context, mac: str, uuid: str, serial: str, name: str, as_json: bool) -> None:
    """Announce a machine, so that jobs can be made for it before it was ever seen."""
    if "/" in name:
        raise OperatorError(f"{name!r} cannot be a machine's name: a name has no slash.")
    added = context.client.post("/machines", NewMachine(mac=mac, uuid=uuid, serial=serial, name=name), Machine)
    if as_json:
        print_json(added)
    else:
        click.echo(f"Machine {added.id} ({machine_label(added)}) added.")


@machine.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@pass_context
def rm(context: Context, keys: Sequence[str]) -> None:
    """Forget machines, with their timelines."""
    for key in keys:
        context.client.delete(_path(key))
        click.echo(f"Machine {key} removed.")


def machine_label(found: Machine) -> str:
    """What a person calls it: its name, else its first MAC, else whatever it is known by."""
    return found.name or next(iter(found.macs), "") or found.uuid or found.serial or f"machine {found.id}"


def _path(key: str) -> str:
    """The machine's path in the API; an empty key would be the path of all machines."""
    if not key.strip():
        raise OperatorError("Say which machine: by its id, a MAC, its SMBIOS UUID or its name.")
    return f"/machines/{quote(key, safe='')}"


def _product(found: Machine) -> str:
    return f"{found.manufacturer} {found.product}".strip()


def _doing(found: Machine, newest: dict[int, Job]) -> str:
    if found.id in newest:
        return _job_line(newest[found.id])
    return "" if found.known else "(only seen)"


def _job_line(job: Job) -> str:
    progress = f" {job.step} {job.percent:.0f}%" if job.state == JobState.RUNNING else ""
    reason = f": {job.reason}" if job.reason else ""
    return f"{job.kind} {job.image_name} {job.state}{progress}{reason}"
