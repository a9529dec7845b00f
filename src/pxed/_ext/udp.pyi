"""UDP sockets for engines."""

import socket

IP_PKTINFO: int
IP_MTU_DISCOVER: int
IPV6_MTU_DISCOVER: int
PMTUDISC_DONT: int
SO_SNDBUFFORCE: int
SO_RCVBUFFORCE: int
BUFFER: int

def open_socket(address: str, port: int) -> socket.socket:
    """A bound, non-blocking UDP socket for `address` (IPv4 or IPv6). Raises OSError: as socket(2) and bind(2)."""
