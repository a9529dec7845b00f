"""Many TFTP clients in one thread, for measuring servers; every byte is compared in C."""

import socket
from typing import Final, final

OUTCOMES: Final[tuple[str, ...]]

@final
class Load:
    """One storm of clients that read the same file at once.

    The sockets are made here, in the network namespace of the calling thread. With `first_address` client i has the
    IPv4 address that is i after it, all on one socket; without it each client has a port of its own. blksize 512 and
    windowsize 1 are not asked for. patience: seconds without progress after which a client gives up. link (interface,
    its MAC, the server's MAC): packets leave by the link directly, which costs a third less (root only).
    Raises OSError, ValueError.
    """

    clients: int
    def __new__(
        cls,
        clients: int,
        server: str,
        port: int,
        name: str,
        content: bytes,
        *,
        first_address: str = "",
        blksize: int = 512,
        windowsize: int = 1,
        patience: float = 30.0,
        link: tuple[str, bytes, bytes] | None = None,
    ) -> Load: ...
    def run(self) -> tuple[float, list[tuple[str, int, float, int, int, int, int, int, int]], int]:
        """Play the storm to its end, once; without the GIL, signals are looked at.

        Returns (seconds, transfers, datagrams that the own kernel did not take). A transfer: (one of OUTCOMES, detail,
        seconds since the start, bytes, repeats, duplicates, gaps, blksize, windowsize). Detail: the offset at which the
        content went wrong, the code of the server's ERROR, or the bytes read before the silence.
        """
    def close(self) -> None:
        """Close the sockets."""

def udp_socket(port: int) -> socket.socket:
    """A non-blocking UDP socket of any address, that says to which address a datagram came (IP_PKTINFO). port 0: a free
    one. Raises OSError."""

def wire_socket(interface: str) -> socket.socket:
    """A packet socket that sends whole frames by an interface, past its queue, and receives nothing. Raises OSError."""
