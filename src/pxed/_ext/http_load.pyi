"""Many HTTP clients in one thread, for measuring servers; every byte is compared in C."""

from typing import Final, final

OUTCOMES: Final[tuple[str, ...]]
MOST_DOWNLOADS: Final[int]

@final
class Load:
    """One storm of clients that read the same file at once.

    The sockets are made while it is played, in the network namespace of the calling thread. With `first_address` client
    i has the IPv4 address that is i after it. downloads: of each client, one after another. piece: bytes of each ranged
    request, 0 for the whole file at once. keep: connections are kept between requests. patience: seconds without
    progress after which a client gives up. Raises ValueError.
    """

    clients: int
    def __new__(
        cls,
        clients: int,
        server: str,
        port: int,
        path: str,
        content: bytes,
        *,
        first_address: str = "",
        downloads: int = 1,
        piece: int = 0,
        keep: bool = True,
        patience: float = 30.0,
    ) -> Load: ...
    def run(self) -> tuple[float, list[float], list[tuple[str, int, int, int, int]]]:
        """Play the storm to its end, once; without the GIL, signals are looked at.

        Returns (seconds, seconds of each completed download, clients). A client: (one of OUTCOMES, detail, bytes of
        bodies, requests answered, connections). Detail: the offset at which the content went wrong, the status of the
        server's refusal, the length that it announced, the bytes read before the silence, or an errno.
        """
    def close(self) -> None:
        """Close the sockets."""
