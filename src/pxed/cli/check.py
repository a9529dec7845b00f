"""`pxed check`: what is wrong on this host and this network, in plain sentences."""

from collections.abc import Iterator
from ipaddress import IPv4Network

import click

from pxed.api.control import Status
from pxed.cli import Context, pass_context
from pxed.cli.client import Client
from pxed.cli.output import is_terminal, json_option, print_json
from pxed.config import IPXE_GROUP, Config
from pxed.errors import ConfigError, OperatorError
from pxed.net import igmp
from pxed.net.diagnose import Finding, diagnose
from pxed.net.interfaces import served
from pxed.net.probe import judge, listen
from pxed.text import printable

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command()
@click.option("--no-probe", is_flag=True, help="Do not ask the network who else answers PXE clients.")
@json_option
@pass_context
def check(context: Context, no_probe: bool, as_json: bool) -> None:
    """Say what is wrong on this host.

    Looks at ports, addresses, folders, boot programs and the imaging environment, and asks the network as a PXE
    client who else answers (two datagrams an interface, as a machine that takes no lease). The exit code is 1 when
    something must be mended.
    """
    findings = list(_findings(context, probe=not no_probe))
    broken = sum(finding.level == "error" for finding in findings)
    doubtful = sum(finding.level == "warning" for finding in findings)
    if as_json:
        print_json({"ok": not broken, "findings": findings})
    else:
        for finding in findings:
            level = click.style(finding.level, fg=COLOURS[finding.level], bold=True) if is_terminal() else finding.level
            click.echo(f"{level}: {printable(finding.text)}")
        click.echo(_summary(broken, doubtful))
    if broken:
        raise click.exceptions.Exit(1)


def _findings(context: Context, probe: bool) -> Iterator[Finding]:
    try:
        config = context.config
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("error", "config", line)
        return
    server = _server(config)
    server_pid = server.pid if server is not None else None
    yield from diagnose(config, server_pid)
    yield from igmp.shared_groups(_groups(config))
    if probe and config.dhcp.enabled:
        yield from _heard(config, server_pid)
    if probe and (config.mtftp.enabled or config.cast.enabled):
        yield from _queriers(config, server)


def _server(config: Config) -> Status | None:
    """The server that runs with this configuration, if one does."""
    try:
        return Client(config.server.socket).get("/status", Status)
    except OperatorError:
        return None


def _groups(config: Config) -> Iterator[tuple[str, IPv4Network]]:
    """Where things are sent by multicast, with what people call it."""
    mtftp = config.mtftp
    if mtftp.enabled:
        yield "mtftp.groups", mtftp.network
        for number, file in enumerate(mtftp.files, 1):
            # One of `mtftp.groups` is given to no other file.
            if file.group and (group := IPv4Network(file.group))[0] not in mtftp.network:
                yield f"mtftp.files[{number}].group", group
        if mtftp.ipxe != "never" or any(mtftp.machines.values()):
            yield "iPXE's group", IPv4Network(IPXE_GROUP[0])
    if config.cast.enabled:
        yield "cast.groups", config.cast.network


def _queriers(config: Config, server: Status | None) -> Iterator[Finding]:
    """Is somebody there who asks for listeners? A running server may know, who else answers when asked."""
    known = server.queriers if server is not None else {}
    unknown = [entry for entry in served(config.server.ipv4) if not _is_known(known.get(entry.name))]
    try:
        heard = igmp.ask(unknown) if unknown else set()
    except OperatorError as error:
        yield Finding("warning", "igmp-querier", f"Nobody knows whether there is an IGMP querier. {error}")
        return
    for entry in unknown:
        if entry.name not in heard:
            yield Finding("warning", "igmp-querier", igmp.missing(entry.name))


def _is_known(heard: float | None) -> bool:
    return heard is not None and heard <= igmp.PATIENCE


def _heard(config: Config, server_pid: int | None) -> Iterator[Finding]:
    try:
        heard = listen(served(config.server.ipv4), server_pid)
    except OperatorError as error:
        yield Finding("warning", "probe", f"Nobody was asked who else answers PXE clients. {error}")
        return
    for interface, offers in heard.items():
        yield from judge(interface, offers, ours=config.server.ipv4 if server_pid is not None else ())


def _summary(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "Everything is in order."
    mend = f"{errors} thing{'s' if errors > 1 else ''} must be mended" if errors else "Nothing must be mended"
    return f"{mend}, {warnings or 'nothing'} to look at."
