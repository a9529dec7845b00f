"""Keeps the log readable under a flood: so many lines a minute, and what was left out is counted in the next."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import structlog

from pxed.service.families import Figures

__all__ = ["Crowd", "DropReport", "Throttle"]

INTERVAL = 60.0  # seconds
LINES_PER_PEER = 5
LINES_IN_ALL = 60
MAX_KEYS = 4096  # a flood has as many addresses as it likes


class Throttle:
    """`lines` lines of each key in INTERVAL, from the first of them on."""

    def __init__(self, clock: Callable[[], float], lines: int = 1) -> None:
        self._clock = clock
        self._lines = lines
        self._told: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()  # since when, lines asked for since then

    def passes(self, key: Hashable) -> int | None:
        """None when this line is one too many; else how many were, since the last that passed."""
        now = self._clock()
        since, asked = self._told.get(key, (now, 0))
        if now - since >= INTERVAL:
            left_out, since, asked = max(0, asked - self._lines), now, 0
        else:
            left_out = 0
        self._told[key] = (since, asked + 1)
        if len(self._told) > MAX_KEYS:
            self._told.popitem(last=False)
        return left_out if asked < self._lines else None


class Crowd:
    """Lines about what anybody can cause any number of: a few a minute about each address, some more about all."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._of_peer = Throttle(clock, LINES_PER_PEER)
        self._in_all = Throttle(clock, LINES_IN_ALL)

    def room(self, what: str, peer: str) -> dict[str, int] | None:
        """None when the log has lines enough about this; else what to say of those that were left out."""
        mine = self._of_peer.passes((what, peer))
        whole = self._in_all.passes(what) if mine is not None else None
        if mine is None or whole is None:
            return None
        return {"left_out": mine + whole} if mine + whole else {}


# What is dropped in the ordinary course: late duplicates, and other people's DHCP.
_ORDINARY = {
    "tftp": frozenset({"unknown-peer", "stale-ack", "merged"}),
    "dhcp": frozenset(
        {
            *("not-boot-client", "not-request", "lease-request", "other-server", "other-boot-item", "wrong-type"),
            *("no-work", "ignored", "not-our-interface", "no-interface"),
        }
    ),
}


class DropReport:
    """One line per reason and minute for what the services drop; what is ordinary, at debug level."""

    def __init__(self, figures: Mapping[str, Callable[[], Figures]]) -> None:
        """`figures`: the statistics of "tftp" and "dhcp"."""
        self._figures = figures
        self._told: dict[tuple[str, str], tuple[float, int]] = {}  # when, and the count that was told
        self._log = structlog.get_logger("pxed.drops")

    def look(self, now: float) -> None:
        """Tell what is new; call it about once a second."""
        for service, read in self._figures.items():
            for reason, count in _drops(service, read()):
                when, told = self._told.get((service, reason), (now - INTERVAL, 0))
                if count > told and not 0 <= now - when < INTERVAL:
                    self._told[service, reason] = (now, count)
                    log = self._log.debug if reason in _ORDINARY.get(service, ()) else self._log.warning
                    log("datagrams without an answer", service=service, reason=reason, count=count - told)


def _drops(service: str, figures: Figures) -> list[tuple[str, int]]:
    """Reasons and counts: 'drop.REASON', 'drop:REASON'; of the DHCP ports, the names with a hyphen."""
    drops = [(name[5:], count) for name, count in figures.items() if name.startswith(("drop.", "drop:"))]
    if service == "dhcp":
        drops += [(name, count) for name, count in figures.items() if "-" in name and not name.startswith("drop:")]
    return drops
