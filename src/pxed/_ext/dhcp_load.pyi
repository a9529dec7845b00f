"""Many DHCP clients in one thread, for measuring servers; every answer is compared in C."""

from typing import Final, final

PORTS: Final[tuple[int, int]]

@final
class Load:
    """One storm: clients take turns, `outstanding` of them at a time, `turns` each.

    The sockets are made here, in the network namespace of the calling thread, on ports 67 and 4011. clients: for each a
    list of 1 to 4 steps (port of the server, request, answer); the request goes out from the same port. The transaction
    id is filled in; the answer must be the same but for it, or anything when it is b"". With `first_address` client i
    has the IPv4 address that is i after it. patience: seconds until a step is unanswered and its turn over. link
    (interface, its MAC, the server's MAC): packets leave by the link directly (root and first_address only).
    Raises OSError, ValueError.
    """

    clients: int
    def __init__(
        self,
        server: str,
        clients: list[list[tuple[int, bytes, bytes]]],
        *,
        first_address: str = "",
        turns: int = 1,
        outstanding: int = 64,
        patience: float = 1.0,
        link: tuple[str, bytes, bytes] | None = None,
    ) -> None: ...
    def run(
        self,
    ) -> tuple[float, list[int], dict[int, int], int, int, dict[str, int], int, dict[tuple[int, int], bytes]]:
        """Play the storm to its end, once; without the GIL, signals are looked at.

        Returns (seconds, nanoseconds from request to good answer in ascending order, good answers by the port that was
        asked, unanswered requests, datagrams that nobody waited for, what was wrong with an answer -> how often,
        datagrams that the own kernel did not take, {(client, step): the last answer to a step whose answer is to be
        learned}).
        """
    def close(self) -> None:
        """Close the sockets."""
