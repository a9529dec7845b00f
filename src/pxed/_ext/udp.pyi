"""UDP sockets for engines."""

import socket

IP_PKTINFO: int
IP_MTU_DISCOVER: int
IPV6_MTU_DISCOVER: int
PMTUDISC_DONT: int
SO_SNDBUFFORCE: int
INTERACTIVE: int
BULK: int
SO_RCVBUFFORCE: int
BUFFER: int

def open_socket(
    address: str, port: int, *, join: bool = False, multicast_ttl: int = 0, bulk: bool = False
) -> socket.socket:
    """A bound, non-blocking UDP socket for `address` (IPv4 or IPv6). Raises OSError: as socket(2) and bind(2).

    With `join` it shares the port of a socket that was opened here before: the kernel gives all datagrams of one
    client's port to the same socket (SO_REUSEPORT).

    With `multicast_ttl`, and only then, it sends to groups: through the interface that has `address` (IPv4), whatever
    the routes are, and not to this host. `bulk`: nobody waits for each of its datagrams, others go first.
    """
