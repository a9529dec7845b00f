"""The services' own counters as Prometheus metric families.

Services count in plain dicts (`statistics`), the TFTP engine in C. Nothing is counted twice: a scrape reads those and
gives each figure its name here. A figure that has no row yet is shown under its own name, as untyped.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client import Metric
from prometheus_client.registry import Collector

__all__ = ["Figures", "families"]

Figures = Mapping[str, int]
"""A service's statistics: a name, or 'GROUP.NAME' or 'GROUP:NAME' for one of several reasons, to a figure."""


class _Family(NamedTuple):
    kind: Literal["counter", "gauge"]
    help: str


_FAMILIES = {
    "pxed_transfers": _Family("counter", "Transfers that have ended, by protocol and outcome."),
    "pxed_sent_bytes": _Family("counter", "Bytes of files that were sent, repeats included."),
    "pxed_tftp_requests": _Family("counter", "TFTP read requests that began a transfer."),
    "pxed_tftp_transfers_running": _Family("gauge", "TFTP transfers in the engines' tables."),
    "pxed_tftp_transfers_asked": _Family("gauge", "TFTP requests that wait for their file to be found and read."),
    "pxed_tftp_transfers_waiting": _Family(
        "gauge", "TFTP transfers that wait for a place because others have them all."
    ),
    "pxed_tftp_transfers_served": _Family("gauge", "TFTP transfers that have a place."),
    "pxed_tftp_places": _Family("gauge", "TFTP transfers that are served at one time, at most."),
    "pxed_tftp_admitted": _Family("counter", "TFTP transfers that got a place, at once or after waiting."),
    "pxed_tftp_admission_wait_seconds": _Family("counter", "Seconds that all TFTP transfers have waited for a place."),
    "pxed_tftp_transfers_kept_alive": _Family("gauge", "TFTP transfers without a place that go on slowly meanwhile."),
    "pxed_tftp_answered_without_place": _Family("counter", "TFTP clients answered before their place, not to give up."),
    "pxed_tftp_paced": _Family("counter", "Times that TFTP data waited for its interface's token bucket."),
    "pxed_tftp_received_datagrams": _Family("counter", "Datagrams that arrived on the TFTP ports."),
    "pxed_tftp_sent_datagrams": _Family("counter", "Datagrams sent from the TFTP ports."),
    "pxed_tftp_retransmitted_datagrams": _Family("counter", "TFTP datagrams that were sent again."),
    "pxed_tftp_go_backs": _Family(
        "counter", "TFTP windows that were begun again after an acknowledgement told of loss."
    ),
    "pxed_tftp_timeouts": _Family("counter", "TFTP packets and windows that were sent again after silence."),
    "pxed_tftp_bursts_shrunk": _Family("counter", "TFTP windows cut into smaller bursts for a client that lost some."),
    "pxed_tftp_block_sizes_lowered": _Family("counter", "TFTP clients that full-size blocks did not reach."),
    "pxed_tftp_writes_refused": _Family("counter", "TFTP write requests, which are always refused."),
    "pxed_tftp_dropped_datagrams": _Family("counter", "Datagrams on the TFTP ports that got no answer, by reason."),
    "pxed_tftp_stuck_datagrams": _Family("counter", "TFTP datagrams given up because the network took none."),
    "pxed_tftp_socket_errors": _Family("counter", "Errors of the TFTP sockets."),
    "pxed_mtftp_passes": _Family("counter", "Times that a file was sent by MTFTP, to all who listened."),
    "pxed_mtftp_requests": _Family("counter", "MTFTP requests that were not answered by what was being sent."),
    "pxed_mtftp_running": _Family("gauge", "MTFTP requests and passes that run."),
    "pxed_mtftp_deaf_clients": _Family("counter", "MTFTP clients that no multicast reaches."),
    "pxed_mtftp_received_datagrams": _Family("counter", "Datagrams that arrived on the MTFTP ports."),
    "pxed_mtftp_sent_datagrams": _Family("counter", "Datagrams sent from the MTFTP ports."),
    "pxed_mtftp_retransmitted_datagrams": _Family("counter", "MTFTP datagrams that were sent again."),
    "pxed_mtftp_timeouts": _Family("counter", "MTFTP blocks that were sent again after silence."),
    "pxed_mtftp_stuck_datagrams": _Family("counter", "MTFTP datagrams given up because the network took none."),
    "pxed_mtftp_socket_errors": _Family("counter", "Errors of the MTFTP sockets."),
    "pxed_mtftp_dropped_datagrams": _Family("counter", "Datagrams on the MTFTP ports that got no answer, by reason."),
    "pxed_multicast_groups": _Family("gauge", "Groups that TFTP by multicast (RFC 2090) sends to."),
    "pxed_multicast_members": _Family("gauge", "Clients of TFTP by multicast, those served alone included."),
    "pxed_multicast_unproven_members": _Family("gauge", "Of these, clients that have not answered yet."),
    "pxed_multicast_joins": _Family("counter", "TFTP requests for multicast that were granted."),
    "pxed_multicast_elections": _Family("counter", "Clients that were told to be the master of their group."),
    "pxed_multicast_masters_replaced": _Family("counter", "Masters that handed over before they had the file."),
    "pxed_multicast_deaf_clients": _Family("counter", "Clients that asked for multicast, and that none reaches."),
    "pxed_multicast_received_datagrams": _Family("counter", "Datagrams that arrived on the multicast port of TFTP."),
    "pxed_multicast_sent_datagrams": _Family("counter", "Datagrams sent from the multicast port of TFTP."),
    "pxed_multicast_retransmitted_datagrams": _Family("counter", "Blocks sent to groups again after silence."),
    "pxed_multicast_timeouts": _Family("counter", "Silences of masters."),
    "pxed_multicast_dropped_datagrams": _Family("counter", "Datagrams there that changed nothing, by reason."),
    "pxed_multicast_stuck_datagrams": _Family("counter", "Datagrams to groups given up because the network took none."),
    "pxed_multicast_socket_errors": _Family("counter", "Errors of the sockets of TFTP by multicast."),
    "pxed_cache_files": _Family("gauge", "Files held in memory for TFTP."),
    "pxed_cache_bytes": _Family("gauge", "Bytes of the files held in memory for TFTP."),
    "pxed_cache_loading": _Family("gauge", "Files being read into memory for TFTP."),
    "pxed_http_connections": _Family("counter", "Boot HTTP connections that were accepted."),
    "pxed_http_connections_open": _Family("gauge", "Boot HTTP connections that are open."),
    "pxed_http_requests": _Family("counter", "Boot HTTP requests."),
    "pxed_http_waits": _Family("counter", "Times that new boot HTTP connections waited because all were busy."),
    "pxed_http_refused": _Family("counter", "Boot HTTP connections that were refused or given up, by reason."),
    "pxed_cast_sessions": _Family("gauge", "Multicast sessions of images."),
    "pxed_cast_receivers": _Family("gauge", "Receivers in multicast sessions, those included that are done."),
    "pxed_cast_sessions_opened": _Family("counter", "Multicast sessions that were opened."),
    "pxed_cast_joins": _Family("counter", "Receivers that joined a multicast session."),
    "pxed_cast_moves": _Family("counter", "Receivers of multicast sessions that were told to change, by direction."),
    "pxed_cast_receiver_events": _Family("counter", "What became of receivers of multicast sessions, by outcome."),
    "pxed_cast_sent_datagrams": _Family("counter", "Datagrams of image data sent to groups."),
    "pxed_cast_repaired_symbols": _Family("counter", "Symbols that were sent to groups again, as they were missing."),
    "pxed_cast_parity_symbols": _Family("counter", "Parity symbols sent to groups, for those who miss different ones."),
    "pxed_cast_marks": _Family(
        "counter", "Datagrams sent to groups to say that a session lives, or to ask for reports."
    ),
    "pxed_cast_orders": _Family("counter", "Orders sent to receivers of multicast sessions."),
    "pxed_cast_reports": _Family("counter", "Reports of receivers that were taken."),
    "pxed_cast_unreadable_chunks": _Family("counter", "Chunks that could not be read for a multicast session."),
    "pxed_cast_received_datagrams": _Family("counter", "Datagrams that arrived on the port of multicast sessions."),
    "pxed_cast_dropped_datagrams": _Family("counter", "Datagrams there that changed nothing, by reason."),
    "pxed_cast_stuck_datagrams": _Family("counter", "Datagrams to groups given up because the network took none."),
    "pxed_cast_socket_errors": _Family("counter", "Errors of the sockets of multicast sessions."),
    "pxed_dhcp_received_datagrams": _Family("counter", "Datagrams that arrived on ports 67 and 4011."),
    "pxed_dhcp_sent_datagrams": _Family("counter", "Datagrams sent from ports 67 and 4011."),
    "pxed_dhcp_replies": _Family("counter", "DHCP requests that were answered, by the message of the answer."),
    "pxed_dhcp_dropped_datagrams": _Family("counter", "DHCP messages that got no answer, by reason."),
    "pxed_dhcp_send_errors": _Family("counter", "DHCP replies that the kernel refused."),
}

# A service's figure: its family and labels; "*" stands for what follows the group's name.
_Row = tuple[str, dict[str, str]]
_ROWS: dict[str, dict[str, _Row]] = {
    "tftp": {
        "outcome.*": ("pxed_transfers", {"protocol": "tftp", "outcome": "*"}),
        "drop.*": ("pxed_tftp_dropped_datagrams", {"reason": "*"}),
        "bytes": ("pxed_sent_bytes", {"protocol": "tftp"}),
        "requests": ("pxed_tftp_requests", {}),
        "running": ("pxed_tftp_transfers_running", {}),
        "asked": ("pxed_tftp_transfers_asked", {}),
        "waiting": ("pxed_tftp_transfers_waiting", {}),
        "served": ("pxed_tftp_transfers_served", {}),
        "places": ("pxed_tftp_places", {}),
        "admitted_at_once": ("pxed_tftp_admitted", {"when": "at-once"}),
        "admitted_later": ("pxed_tftp_admitted", {"when": "later"}),
        "waited_ms": ("pxed_tftp_admission_wait_seconds", {}),
        "kept_alive": ("pxed_tftp_transfers_kept_alive", {}),
        "answered_without_place": ("pxed_tftp_answered_without_place", {}),
        "paced": ("pxed_tftp_paced", {}),
        "received": ("pxed_tftp_received_datagrams", {}),
        "datagrams": ("pxed_tftp_sent_datagrams", {}),
        "retransmits": ("pxed_tftp_retransmitted_datagrams", {}),
        "go_backs": ("pxed_tftp_go_backs", {}),
        "timeouts": ("pxed_tftp_timeouts", {}),
        "bursts_shrunk": ("pxed_tftp_bursts_shrunk", {}),
        "blksize_lowered": ("pxed_tftp_block_sizes_lowered", {}),
        "writes_refused": ("pxed_tftp_writes_refused", {}),
        "stuck": ("pxed_tftp_stuck_datagrams", {}),
        "send_errors": ("pxed_tftp_socket_errors", {"direction": "send"}),
        "receive_errors": ("pxed_tftp_socket_errors", {"direction": "receive"}),
        "mtftp_outcome.*": ("pxed_transfers", {"protocol": "mtftp", "outcome": "*"}),
        "mtftp_drop.*": ("pxed_mtftp_dropped_datagrams", {"reason": "*"}),
        "mtftp.bytes": ("pxed_sent_bytes", {"protocol": "mtftp"}),
        "mtftp.unicast_bytes": ("pxed_sent_bytes", {"protocol": "mtftp-unicast"}),
        "mtftp.passes": ("pxed_mtftp_passes", {}),
        "mtftp.requests": ("pxed_mtftp_requests", {}),
        "mtftp.running": ("pxed_mtftp_running", {}),
        "mtftp.deaf": ("pxed_mtftp_deaf_clients", {}),
        "mtftp.received": ("pxed_mtftp_received_datagrams", {}),
        "mtftp.datagrams": ("pxed_mtftp_sent_datagrams", {}),
        "mtftp.retransmits": ("pxed_mtftp_retransmitted_datagrams", {}),
        "mtftp.timeouts": ("pxed_mtftp_timeouts", {}),
        "mtftp.stuck": ("pxed_mtftp_stuck_datagrams", {}),
        "mtftp.send_errors": ("pxed_mtftp_socket_errors", {"direction": "send"}),
        "mtftp.receive_errors": ("pxed_mtftp_socket_errors", {"direction": "receive"}),
        "multicast.outcome.*": ("pxed_transfers", {"protocol": "multicast", "outcome": "*"}),
        "multicast.drop.*": ("pxed_multicast_dropped_datagrams", {"reason": "*"}),
        "multicast.bytes": ("pxed_sent_bytes", {"protocol": "multicast"}),
        "multicast.unicast_bytes": ("pxed_sent_bytes", {"protocol": "multicast-unicast"}),
        "multicast.groups": ("pxed_multicast_groups", {}),
        "multicast.running": ("pxed_multicast_members", {}),
        "multicast.unproven": ("pxed_multicast_unproven_members", {}),
        "multicast.joined": ("pxed_multicast_joins", {}),
        "multicast.elections": ("pxed_multicast_elections", {}),
        "multicast.silent_masters": ("pxed_multicast_masters_replaced", {"reason": "silent"}),
        "multicast.slow_masters": ("pxed_multicast_masters_replaced", {"reason": "slow"}),
        "multicast.deaf": ("pxed_multicast_deaf_clients", {}),
        "multicast.received": ("pxed_multicast_received_datagrams", {}),
        "multicast.datagrams": ("pxed_multicast_sent_datagrams", {}),
        "multicast.retransmits": ("pxed_multicast_retransmitted_datagrams", {}),
        "multicast.timeouts": ("pxed_multicast_timeouts", {}),
        "multicast.stuck": ("pxed_multicast_stuck_datagrams", {}),
        "multicast.send_errors": ("pxed_multicast_socket_errors", {"direction": "send"}),
        "multicast.receive_errors": ("pxed_multicast_socket_errors", {"direction": "receive"}),
        "cached": ("pxed_cache_files", {}),
        "cached_bytes": ("pxed_cache_bytes", {}),
        "loading": ("pxed_cache_loading", {}),
    },
    "http": {
        "outcome.*": ("pxed_transfers", {"protocol": "http", "outcome": "*"}),
        "bytes": ("pxed_sent_bytes", {"protocol": "http"}),
        "connections": ("pxed_http_connections", {}),
        "open": ("pxed_http_connections_open", {}),
        "requests": ("pxed_http_requests", {}),
        "waited": ("pxed_http_waits", {}),
        "*": ("pxed_http_refused", {"reason": "*"}),
    },
    "cast": {
        "sessions": ("pxed_cast_sessions", {}),
        "receivers": ("pxed_cast_receivers", {}),
        "opened": ("pxed_cast_sessions_opened", {}),
        "joined": ("pxed_cast_joins", {}),
        "moved.*": ("pxed_cast_moves", {"direction": "*"}),
        "receiver.*": ("pxed_cast_receiver_events", {"outcome": "*"}),
        "bytes": ("pxed_sent_bytes", {"protocol": "cast"}),
        "datagrams": ("pxed_cast_sent_datagrams", {}),
        "repaired": ("pxed_cast_repaired_symbols", {}),
        "parity": ("pxed_cast_parity_symbols", {}),
        "marks": ("pxed_cast_marks", {}),
        "orders": ("pxed_cast_orders", {}),
        "reports": ("pxed_cast_reports", {}),
        "unreadable": ("pxed_cast_unreadable_chunks", {}),
        "received": ("pxed_cast_received_datagrams", {}),
        "drop.*": ("pxed_cast_dropped_datagrams", {"reason": "*"}),
        "stuck": ("pxed_cast_stuck_datagrams", {}),
        "send_errors": ("pxed_cast_socket_errors", {"direction": "send"}),
        "receive_errors": ("pxed_cast_socket_errors", {"direction": "receive"}),
    },
    "dhcp": {
        "in": ("pxed_dhcp_received_datagrams", {}),
        "out": ("pxed_dhcp_sent_datagrams", {}),
        "answered:*": ("pxed_dhcp_replies", {"message": "*"}),
        "send_errors": ("pxed_dhcp_send_errors", {}),
        "drop:*": ("pxed_dhcp_dropped_datagrams", {"reason": "*"}),
        "*": ("pxed_dhcp_dropped_datagrams", {"reason": "*"}),
    },
}


class Figured(Collector):
    """Collects `figures`, a function per service, at each scrape."""

    def __init__(self, figures: Mapping[str, Callable[[], Figures]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        yield from families({service: read() for service, read in self._figures.items()})


def families(statistics: Mapping[str, Figures]) -> list[Metric]:
    """Metric families of all services' figures together."""
    made: dict[str, Metric] = {}
    for service, figures in statistics.items():
        for name, value in figures.items():
            family, labels = _place(service, name)
            kind, text = _FAMILIES.get(family, ("unknown", f"The figure {name!r} of {service}."))
            metric = made.setdefault(family, Metric(family, text, kind))
            base_unit = value / 1000 if name.endswith("_ms") else value
            metric.add_sample(f"{family}_total" if kind == "counter" else family, labels, base_unit)
    return list(made.values())


def _place(service: str, name: str) -> _Row:
    """The family and the labels of a service's figure."""
    rows = _ROWS.get(service, {})
    ends = [match.end() for match in re.finditer(r"[.:]", name)] or [0]
    for end in (len(name), *reversed(ends)):  # the longest group's name first
        if row := rows.get(name if end == len(name) else f"{name[:end]}*"):
            family, labels = row
            return family, {label: value.replace("*", name[end:]) for label, value in labels.items()}
    return "pxed_" + re.sub(r"[^a-zA-Z0-9]+", "_", f"{service}_{name}"), {}
