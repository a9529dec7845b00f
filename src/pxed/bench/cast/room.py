"""A room: a server and receivers, each in a network namespace of its own, at the ports of one switch.

The switch is a Linux bridge that looks into IGMP and asks for members itself, as a managed switch does. The server's
port is shaped; ports of receivers may be slower. Needs root, iproute2, nftables, ethtool, util-linux.
"""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from pxed.bench.namespace import Namespace, Stage
from pxed.errors import OperatorError

__all__ = ["INTERFACE", "SERVER", "Room"]

INTERFACE = "eth0"
SERVER = "10.98.0.1"
_PREFIX = 16
_BURST = 1 << 17  # bytes that the server's port lets go at once
_QUEUE = 1 << 20  # bytes that it holds
_PORT_BURST = 1 << 14
_PORT_QUEUE = 1 << 18  # of a port of a switch
_NEEDED = (("nft", "nftables"), ("ethtool", "ethtool"), ("tc", "iproute2"))
# Hundredths of a second. A bridge floods until it has waited for other queriers as long as members may take to answer:
# so it is told how long before it is made a querier. IGMP version 3, in which members do not keep silent when they hear
# another's report, as they do while a bridge floods.
_SWITCH = (
    *("mcast_query_response_interval", "10", "mcast_snooping", "1"),
    *("mcast_igmp_version", "3", "forward_delay", "0"),
)


class Room(Stage):
    """`server` and `receivers` are namespaces; they go with the `with` block.

    line: bit/s of the server's port. ports: bit/s of each receiver's port, 0 for one that is as fast as it can be.
    loss: share of the packets from the server that is lost at each receiver, by chance and by itself.
    """

    def __init__(self, line: float, ports: list[float], loss: float = 0.0) -> None:
        super().__init__()
        for program, package in _NEEDED:
            if shutil.which(program) is None:
                raise OperatorError(f"A room needs `{program}` (apt install {package}).")
        self._line, self._ports, self._loss = line, ports, loss

    def _build(self) -> None:
        self._switch = self._namespace()
        self._switch.run("ip", "link", "add", "name", "br0", "type", "bridge", *_SWITCH)
        self._switch.run("ip", "link", "set", "dev", "br0", "type", "bridge", "mcast_querier", "1")
        self._switch.run("ip", "link", "set", "dev", "br0", "up")
        self.server = self._machine("port0", SERVER)
        # One packet is one packet for the loss, not 64 KiB that are sent in one go; they are cut behind the shaper.
        for feature in ("tso", "tx-udp-segmentation"):
            with suppress(OperatorError):  # a kernel that has no such feature does not need it off
                self.server.run("ethtool", "-K", INTERFACE, feature, "off")
        if self._line:
            _shape(self.server, INTERFACE, self._line, _BURST, _QUEUE)
        self.receivers = []
        for number, rate in enumerate(self._ports):
            port = f"port{number + 1}"
            receiver = self._machine(port, self.address(number))
            self.receivers.append(receiver)
            if rate:
                _shape(self._switch, port, rate, _PORT_BURST, _PORT_QUEUE)
            if self._loss:
                _lose(receiver, self._loss)

    def _machine(self, port: str, address: str) -> Namespace:
        machine = self._namespace()
        self._switch.run(
            "ip", "link", "add", "name", port, "type", "veth", "peer", "name", INTERFACE, "netns", str(machine.pid)
        )
        self._switch.run("ip", "link", "set", "dev", port, "master", "br0", "up")
        machine.run("ip", "address", "add", f"{address}/{_PREFIX}", "broadcast", "+", "dev", INTERFACE)
        machine.run("ip", "link", "set", "dev", INTERFACE, "up")
        # Programs that name no interface for a group.
        machine.run("ip", "route", "add", "224.0.0.0/4", "dev", INTERFACE)
        return machine

    @staticmethod
    def address(number: int) -> str:
        """Of receiver `number`, from 0."""
        return f"10.98.{1 + number // 250}.{1 + number % 250}"

    def wire(self) -> int:
        """Bytes that have left through the server's port, headers included."""
        counters = Path(f"/proc/{self.server.pid}/net/dev").read_text()
        found = re.search(rf"{INTERFACE}:(.*)", counters)
        assert found is not None
        return int(found[1].split()[8])


def _shape(side: Namespace, interface: str, rate: float, burst: int, queue: int) -> None:
    side.run(
        "tc", "qdisc", "replace", "dev", interface, "root", "tbf", "rate", f"{rate:.0f}bit", "burst", str(burst),
        "limit", str(queue),
    )  # fmt: skip


def _lose(side: Namespace, share: float) -> None:
    side.run("nft", "add table ip lossy")
    side.run("nft", "add chain ip lossy in { type filter hook prerouting priority -300; }")
    rule = f"iifname {INTERFACE} ip saddr {SERVER} numgen random mod 100000 < {share * 100000:.0f} drop"
    try:
        side.run("nft", f"add rule ip lossy in {rule}")
    except OperatorError as error:
        raise OperatorError(f"This kernel's nftables cannot lose packets by chance: {error}") from error
