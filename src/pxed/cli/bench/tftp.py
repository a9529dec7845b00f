"""`pxed bench tftp`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pxed.cli import output
from pxed.cli.bench.shared import PATIENCE, fail_if_lost, number, running, size_option

if TYPE_CHECKING:
    from pxed.bench.measure import Target
    from pxed.bench.tftp import Comparison, Storm, Summary

PEER_NAMES = ("dnsmasq", "tftpd-hpa", "atftpd")


@click.command()
@click.option("--lab", is_flag=True, help="Start pxed in network namespaces of its own, measure, clean up. Needs root.")
@click.option("--server", metavar="ADDRESS", help="Measure a running TFTP server (IPv4 address or name) instead.")
@click.option("--port", type=click.IntRange(1, 65535), default=69, show_default=True, help="With --server.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --server: our copy of a file that it serves, to compare with.",
)  # fmt: skip
@click.option("--name", help="With --server: the file's name there; the copy's own name by default.")
@click.option(
    "--from", "first_address", metavar="ADDRESS",
    help="With --server: the first client's address, the others follow; all local to this host. Else a port for each.",
)  # fmt: skip
@click.option("--pid", type=int, help="With --server: its process here, to measure its CPU time.")
@click.option("--clients", type=click.IntRange(1), default=100, show_default=True)
@click.option("--size", callback=size_option, default="32M", show_default=True, help="Of the lab's file.")
@click.option("--blksize", type=click.IntRange(8, 65464), default=1408, show_default=True)
@click.option("--windowsize", type=click.IntRange(1, 65535), default=1, show_default=True, help="1 is lock-step.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Medians of so many.")
@click.option(
    "--patience", type=PATIENCE, default=30.0, show_default=True, help="Seconds of silence until a client is lost."
)
@click.option(
    "--against", "peers", multiple=True, type=click.Choice(PEER_NAMES),
    help="In the lab: measure this server too, in turn with pxed. Downloaded from Debian if it is not installed.",
)  # fmt: skip
@click.option(
    "--against-command", "commands", multiple=True, metavar="COMMAND",
    help="In the lab: measure the TFTP server that this starts, on port 69 of {address}; {root}, {file}, {blksize}, "
    "{windowsize} and {clients} are filled in too.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="In the lab: of pxed's TFTP.")
@output.json_option
def tftp(
    lab: bool, server: str | None, port: int, path: Path | None, name: str | None, first_address: str | None,
    pid: int | None, clients: int, size: int, blksize: int, windowsize: int, runs: int, patience: float,
    peers: tuple[str, ...], commands: tuple[str, ...], threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Let simulated clients, each with an address of its own, read one file at the same time.

    The rate counts until the last client has finished; times are from the start until a client has its last byte.
    """
    if lab == (server is not None):
        raise click.UsageError("Say --lab, or --server ADDRESS.")
    from pxed.bench.measure import Seat
    from pxed.bench.tftp import PORT, Comparison, Storm

    if lab:
        from pxed.bench.lab import Lab

        with Lab(size, clients, threads) as built:
            targets = [built.start(one, PORT, output.note) for one in ("pxed", *dict.fromkeys(peers))]
            filled = {"blksize": blksize, "windowsize": windowsize, "clients": clients}
            targets += [built.start_command(command, PORT, **filled) for command in commands]
            storm = Storm(built.content, clients, blksize, windowsize, patience, built.seat)
            result = _measure(Comparison(clients, size, blksize, windowsize), targets, storm, runs)
    else:
        if peers or commands or path is None:
            raise click.UsageError("--server needs --file, and has no --against.")
        content = path.read_bytes()
        storm = Storm(content, clients, blksize, windowsize, patience, Seat(first_address or ""))
        target = running(str(server), port, name or path.name, pid)
        result = _measure(Comparison(clients, len(content), blksize, windowsize), [target], storm, runs)
    _show(result, as_json)


def _measure(result: "Comparison", targets: "list[Target]", storm: "Storm", runs: int) -> "Comparison":
    from pxed.bench.advice import advise
    from pxed.bench.tftp import compare

    with output.progress("measuring", unit="storms") as show:
        result.servers = compare(targets, storm, runs, lambda done, whole, target: show(done, whole))
        show(len(targets) * runs, len(targets) * runs)
    result.advice = advise(result)
    return result


def _show(result: "Comparison", as_json: bool) -> None:
    if as_json:
        output.print_json(result)
    else:
        window = "lock-step" if result.windowsize == 1 else f"windowsize {result.windowsize}"
        output.note(
            f"{result.clients} clients, {output.size(result.size)} each, blksize {result.blksize}, {window}; "
            f"medians of {len(result.servers[0].runs)}"
        )
        compared = len(result.servers) > 1
        columns = ["server", "rate", "p50", "p99", "max", "CPU s/GB", "clients' CPU s/GB", "repeats", "again", "lost"]
        columns += ["rate ratio", "CPU ratio"] if compared else []
        output.table(columns, [_row(server, compared) for server in result.servers])
    for sentence in result.advice:
        output.note(sentence)
    fail_if_lost(result.servers)


def _row(server: "Summary", compared: bool) -> list[str]:
    row = [
        f"{server.server} {server.version}".strip(), output.rate(server.rate), f"{server.p50:.2f} s",
        f"{server.p99:.2f} s", f"{server.slowest:.2f} s", number(server.cpu_per_gb),
        number(server.generator_cpu_per_gb), f"{server.repeats:.0f}", f"{server.duplicates:.0f}",
        str(sum(server.lost.values())),
    ]  # fmt: skip
    return [*row, number(server.rate_ratio), number(server.cpu_ratio)] if compared else row
