"""`pxed bench http`."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from pxed.cli import output
from pxed.cli.bench.shared import PATIENCE, fail_if_lost, number, running, size_option
from pxed.errors import OperatorError

if TYPE_CHECKING:
    from pxed.bench.http import Comparison, Storm, Summary
    from pxed.bench.measure import Target

PEER_NAMES = ("nginx",)


@click.command()
@click.option("--lab", is_flag=True, help="Start pxed in network namespaces of its own, measure, clean up. Needs root.")
@click.option("--server", metavar="URL", help="Measure a file of a running HTTP server (IPv4) instead.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --server: our copy of the file, to compare with.",
)  # fmt: skip
@click.option(
    "--from", "first_address", metavar="ADDRESS",
    help="With --server: the first client's address, the others follow; all local to this host. Else a port for each.",
)  # fmt: skip
@click.option("--pid", type=int, help="With --server: its process here, to measure its CPU time.")
@click.option("--clients", type=click.IntRange(1), default=100, show_default=True)
@click.option("--size", callback=size_option, default="64M", show_default=True, help="Of the lab's file.")
@click.option("--downloads", type=click.IntRange(1), default=1, show_default=True, help="Of each client, in turn.")
@click.option(
    "--range", "piece", callback=size_option, default="0", show_default=True,
    help="Ask for ranges of this size, as the imaging agent does; 0 asks for the whole at once.",
)  # fmt: skip
@click.option("--close", is_flag=True, help="A connection for each request, as some firmware does; else one is kept.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Medians of so many.")
@click.option(
    "--patience", type=PATIENCE, default=30.0, show_default=True, help="Seconds of silence until a client is lost."
)
@click.option(
    "--against", "peers", multiple=True, type=click.Choice(PEER_NAMES),
    help="In the lab: measure this server too (one worker, sendfile on), in turn with pxed. Downloaded from Debian "
    "if it is not installed.",
)  # fmt: skip
@click.option(
    "--against-command", "commands", multiple=True, metavar="COMMAND",
    help="In the lab: measure the HTTP server that this starts, on port 80 of {address}; {root}, {file} and {clients} "
    "are filled in too.",
)  # fmt: skip
@output.json_option
def http(
    lab: bool, server: str | None, path: Path | None, first_address: str | None, pid: int | None, clients: int,
    size: int, downloads: int, piece: int, close: bool, runs: int, patience: float, peers: tuple[str, ...],
    commands: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Let simulated clients, each with an address of its own, read one file at the same time.

    The rate counts until the last client has finished; times are of a download, its connection included.
    """
    if lab == (server is not None):
        raise click.UsageError("Say --lab, or --server URL.")
    from pxed.bench.http import PORT, Comparison, Storm
    from pxed.bench.measure import Seat

    result = Comparison(clients, size, downloads, piece, not close)
    if lab:
        from pxed.bench.lab import Lab

        with Lab(size, clients) as built:
            targets = [built.start(one, PORT, output.note) for one in ("pxed", *dict.fromkeys(peers))]
            targets += [built.start_command(command, PORT, clients=clients) for command in commands]
            storm = Storm(built.content, clients, downloads, piece, not close, patience, built.seat)
            _measure(result, targets, storm, runs)
    else:
        if peers or commands or path is None:
            raise click.UsageError("--server needs --file, and has no --against.")
        content = path.read_bytes()
        result.size = len(content)
        storm = Storm(content, clients, downloads, piece, not close, patience, Seat(first_address or ""))
        _measure(result, [_target(str(server), pid)], storm, runs)
    _show(result, as_json)


def _target(url: str, pid: int | None) -> "Target":
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        if parts.scheme != "http" or not host or parts.path in ("", "/"):
            raise ValueError("write http://ADDRESS[:PORT]/FILE")
        address = socket.gethostbyname(host)
    except (ValueError, OSError) as error:
        raise OperatorError(f"{url} cannot be measured: {error}.") from error
    file = parts.path.removeprefix("/") + (f"?{parts.query}" if parts.query else "")
    return running(address, port, file, pid)


def _measure(result: "Comparison", targets: "list[Target]", storm: "Storm", runs: int) -> None:
    from pxed.bench.advice import advise_http
    from pxed.bench.http import compare

    with output.progress("measuring", unit="storms") as show:
        result.servers = compare(targets, storm, runs, lambda done, whole, target: show(done, whole))
        show(len(targets) * runs, len(targets) * runs)
    result.advice = advise_http(result)


def _show(result: "Comparison", as_json: bool) -> None:
    if as_json:
        output.print_json(result)
    else:
        how = "connections kept" if result.keep else "a connection for each request"
        times = f"{result.downloads} times " if result.downloads > 1 else ""
        ranges = f"in ranges of {output.size(result.piece)}, " if result.piece else ""
        output.note(
            f"{result.clients} clients, {times}{output.size(result.size)} each, {ranges}{how}; "
            f"medians of {len(result.servers[0].runs)}"
        )
        compared = len(result.servers) > 1
        columns = ["server", "rate", "requests/s", "p50", "p99", "max", "CPU s/GB", "CPU µs/request"]
        columns += ["clients' CPU s/GB", "connections", "lost"] + (["rate ratio", "CPU ratio"] if compared else [])
        output.table(columns, [_row(server, compared) for server in result.servers])
    for sentence in result.advice:
        output.note(sentence)
    fail_if_lost(result.servers)


def _row(server: "Summary", compared: bool) -> list[str]:
    micro = None if server.cpu_per_request is None else server.cpu_per_request * 1e6
    row = [
        f"{server.server} {server.version}".strip(), output.rate(server.rate), f"{server.request_rate:.0f}",
        _time(server.p50), _time(server.p99), _time(server.slowest), number(server.cpu_per_gb),
        "" if micro is None else f"{micro:.0f}", number(server.generator_cpu_per_gb), f"{server.connections:.0f}",
        str(sum(server.lost.values())),
    ]  # fmt: skip
    return [*row, number(server.rate_ratio), number(server.cpu_ratio)] if compared else row


def _time(seconds: float) -> str:
    """Seconds, or milliseconds where those would be zeros."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.2f} ms"
