"""A lab whose clients are real programs: a network namespace for each, on one bridge with the servers."""

import json
from pathlib import Path

from pxed.bench.lab import Lab
from pxed.bench.namespace import Namespace
from pxed.errors import OperatorError

__all__ = ["CLIENTS", "Room"]

CLIENTS = 64
"""A room has no more: each is a namespace, a cable and programs."""

_GROUPS = "239.0.0.0/8"
_NETWORK = "10.99"


class Room(Lab):
    """`clients` has the namespaces, each with an interface bench0; whoever joins a group asks for it there.

    The bridge floods multicast, as a switch without IGMP snooping does.
    """

    def __init__(self, size: int, clients: int, *, multicast: bool = False, peers_cache: Path | None = None) -> None:
        if clients > CLIENTS:
            raise OperatorError(f"A room has places for {CLIENTS} clients.")
        super().__init__(size, clients, peers_cache=peers_cache, multicast=multicast)
        self._wanted = clients
        self.clients: list[Namespace] = []

    def _connect(self) -> None:
        self._switch = self._namespace()
        self._switch.run("ip", "link", "add", "name", "bridge", "type", "bridge", "forward_delay", "0",
                         "mcast_snooping", "0")  # fmt: skip
        self._switch.run("ip", "link", "set", "dev", "bridge", "up")
        self._plug(self.server_side, "server", f"{_NETWORK}.0.1")
        for number in range(1, self._wanted + 1):
            client = self._namespace()
            self._plug(client, f"client{number}", f"{_NETWORK}.64.{number}")
            self.clients.append(client)

    def _plug(self, host: Namespace, port: str, address: str) -> None:
        host.run("ip", "link", "add", "name", "bench0", "type", "veth", "peer", "name", port,
                 "netns", str(self._switch.pid))  # fmt: skip
        host.run("ip", "address", "add", f"{address}/16", "dev", "bench0")
        host.run("ip", "link", "set", "dev", "bench0", "up")
        host.run("ip", "route", "add", _GROUPS, "dev", "bench0")
        self._switch.run("ip", "link", "set", "dev", port, "master", "bridge", "up")

    @property
    def folder(self) -> Path:
        """For what the clients write; it goes with the room."""
        return self._work

    def lose(self, percent: float) -> None:
        """Every client loses so many of the datagrams that reach it, each by its own chance."""
        rule = f"meta l4proto udp numgen random mod 100000 < {round(percent * 1000)} drop"
        for client in self.clients:
            client.run("nft", "add table ip room; add chain ip room loss { type filter hook input priority 0; }; "
                       f"add rule ip room loss {rule}")  # fmt: skip

    def sent(self) -> int:
        """Bytes that the servers' port has put on the wire so far, Ethernet headers included."""
        return self._counted()["server"][0]

    def packets(self) -> list[int]:
        """Packets that each client has sent so far."""
        counted = self._counted()
        return [counted[f"client{number}"][1] for number in range(1, self._wanted + 1)]

    def _counted(self) -> dict[str, tuple[int, int]]:
        """What came into each port of the switch: bytes and packets."""
        links = json.loads(self._switch.run("ip", "-json", "-statistics", "link", "show"))
        return {link["ifname"]: (link["stats64"]["rx"]["bytes"], link["stats64"]["rx"]["packets"]) for link in links}
