"""Which machine an IP address is, so that a download can stand in the machine's timeline."""

from collections import OrderedDict

from pxed.net.interfaces import Neighbours
from pxed.wire.dhcp import UNSPECIFIED

__all__ = ["Peers"]

# More than a /16 of machines; older knowledge goes first.
_CAPACITY = 65536


class Peers:
    """What DHCP requests and checks have taught about addresses, behind the kernel's neighbour table.

    The neighbour table is right for every machine on our own networks; machines behind a router are known only by
    what they said. Wrong knowledge misplaces a line in a timeline and decides nothing.
    """

    def __init__(self) -> None:
        self._macs: OrderedDict[str, str] = OrderedDict()
        self._neighbours = Neighbours()

    def learn(self, address: str, mac: str) -> None:
        """A machine said that this address is its own."""
        if not mac or not address or address == UNSPECIFIED:
            return
        self._macs[address] = mac
        self._macs.move_to_end(address)
        if len(self._macs) > _CAPACITY:
            self._macs.popitem(last=False)

    def told(self, address: str) -> str:
        """The MAC that somebody claimed for an address, '' when nobody did. Costs nothing."""
        return self._macs.get(address, "")

    def mac(self, address: str) -> str:
        """The MAC behind an address, '' when unknown."""
        return self._neighbours.mac(address) or self._macs.get(address, "")
