"""`pxed bench dhcp`."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from pxed.cli import output
from pxed.cli.bench.shared import PATIENCE, fail_if_lost, number, running

if TYPE_CHECKING:
    from pxed.bench.dhcp import Comparison, Storm, Summary
    from pxed.bench.measure import Target

PEER_NAMES = ("dnsmasq",)
KIND_NAMES = ("bios", "uefi", "ipxe")


@click.command()
@click.option("--lab", is_flag=True, help="Start pxed in network namespaces of its own, measure, clean up. Needs root.")
@click.option(
    "--server", metavar="ADDRESS",
    help="Measure a running proxyDHCP server (IPv4) instead, as a relay. It hears of as many new machines as there are "
    "clients, with locally administered MACs that begin with 02:70:78:64.",
)  # fmt: skip
@click.option(
    "--from", "first_address", metavar="ADDRESS",
    help="With --server: the first client's address, the others follow; all local to this host. Else they share one.",
)  # fmt: skip
@click.option("--pid", type=int, help="With --server: its process here, to measure its CPU time.")
@click.option("--clients", type=click.IntRange(1, 16000), default=100, show_default=True)
@click.option("--turns", type=click.IntRange(1), default=200, show_default=True, help="Of each client.")
@click.option("--outstanding", type=click.IntRange(1), default=64, show_default=True, help="Clients who ask at a time.")
@click.option(
    "--single", type=click.IntRange(1), default=5000, show_default=True, help="Turns in all, one at a time afterwards."
)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KIND_NAMES),
    help="The clients' firmware, in turn; all kinds by default. UEFI asks on port 4011 too.",
)  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Medians of so many.")
@click.option(
    "--patience", type=PATIENCE, default=1.0, show_default=True, help="Seconds until a request is unanswered."
)
@click.option(
    "--against", "peers", multiple=True, type=click.Choice(PEER_NAMES),
    help="In the lab: measure this server too, in turn with pxed. Downloaded from Debian if it is not installed.",
)  # fmt: skip
@output.json_option
def dhcp(
    lab: bool, server: str | None, first_address: str | None, pid: int | None, clients: int, turns: int,
    outstanding: int, single: int, kinds: tuple[str, ...], runs: int, patience: float, peers: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Let simulated PXE clients behind relays, each with an address of its own, ask for something to boot.

    Every answer is compared, byte by byte, with the one that its kind of client must get. Answers are offers, and on
    port 4011 acknowledgements; the first times are those of a storm, the last of one request at a time.
    """
    if lab == (server is not None):
        raise click.UsageError("Say --lab, or --server ADDRESS.")
    from pxed.bench.dhcp import PORT, Comparison, Storm
    from pxed.bench.measure import Seat

    kinds = tuple(dict.fromkeys(kinds)) or KIND_NAMES
    result = Comparison(clients, turns, outstanding, kinds)
    storm = Storm(clients, turns, outstanding, single, kinds, patience, Seat(first_address or ""))
    if lab:
        from pxed.bench.lab import Lab

        with ExitStack() as stack:
            places = []
            for name in ("pxed", *dict.fromkeys(peers)):
                built = stack.enter_context(Lab(0, clients, dhcp=True))  # each its own: they want the same ports
                places.append((built.start(name, PORT, output.note), replace(storm, seat=built.seat)))
            _measure(result, places, runs)
    else:
        if peers:
            raise click.UsageError("--server has no --against.")
        _measure(result, [(running(str(server), PORT, "", pid), storm)], runs)
    _show(result, as_json)


def _measure(result: "Comparison", places: "list[tuple[Target, Storm]]", runs: int) -> None:
    from pxed.bench.advice import advise_dhcp
    from pxed.bench.dhcp import compare

    with output.progress("measuring", unit="storms") as show:
        result.servers = compare(places, runs, lambda done, whole, target: show(done, whole))
        show(len(places) * runs, len(places) * runs)
    result.advice = advise_dhcp(result)


def _show(result: "Comparison", as_json: bool) -> None:
    if as_json:
        output.print_json(result)
    else:
        output.note(
            f"{result.clients} clients ({', '.join(result.kinds)}), {result.turns} turns each, {result.outstanding} at "
            f"a time; medians of {len(result.servers[0].runs)}"
        )
        compared = len(result.servers) > 1
        columns = ["server", "answers/s", "p50", "p99", "max", "one: p50", "p99", "max", "CPU ms/1000"]
        columns += ["clients' CPU ms/1000", "lost"]
        columns += ["rate ratio", "CPU ratio", "one: p50 ratio", "p99 ratio"] if compared else []
        output.table(columns, [_row(server, compared) for server in result.servers])
    for sentence in result.advice:
        output.note(sentence)
    fail_if_lost(result.servers, "request was answered well")


def _row(server: "Summary", compared: bool) -> list[str]:
    cpu = None if server.cpu_per_1000 is None else server.cpu_per_1000 * 1000
    times = (server.p50, server.p99, server.slowest, server.single_p50, server.single_p99, server.single_slowest)
    row = [
        f"{server.server} {server.version}".strip(), f"{server.rate:.0f}", *map(_time, times), number(cpu),
        number(server.generator_cpu_per_1000 * 1000), str(sum(server.lost.values())),
    ]  # fmt: skip
    ratios = (server.rate_ratio, server.cpu_ratio, server.single_p50_ratio, server.single_p99_ratio)
    return [*row, *map(number, ratios)] if compared else row


def _time(seconds: float) -> str:
    """Milliseconds, or microseconds where those would be zeros."""
    return f"{seconds * 1e3:.2f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"
