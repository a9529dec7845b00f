"""Datagrams of the DHCP ports in batches, each with its interface and addresses."""

from typing import Final, final

BATCH: Final[int]

@final
class Inbox:
    """Room for one batch of datagrams."""

    def receive(self, fd: int) -> list[tuple[bytes, str, int, str, str, int]] | int:
        """At most BATCH datagrams without waiting: (data, source, its port, our address, destination, interface index)
        of each. Or the errno of what went wrong; never EAGAIN or EINTR, then there are none."""

def send(fd: int, data: bytes, source: str, destination: str, port: int, index: int) -> int:
    """Send one datagram from an address of ours. Returns 0, or the kernel's errno. index 0: the routes decide."""
