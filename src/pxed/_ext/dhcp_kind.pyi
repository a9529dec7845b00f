"""Requests as kinds: what one firmware's requests have in common, apart from what is each machine's own."""

from typing import final

@final
class Request:
    """One request, as `read` makes it."""

    kind: bytes
    """Equal for requests whose replies differ only by what a `Template` fills in."""
    data: bytes
    """The whole message."""
    @property
    def mac(self) -> bytes:
        """The six bytes of chaddr."""
    @property
    def identity(self) -> bytes:
        """What tells this machine from others: the MAC, and the value of option 97."""
    @property
    def ciaddr(self) -> str:
        """The client's own address, as in `Packet`."""
    @property
    def giaddr(self) -> str:
        """The relay agent that the answer goes to."""
    @property
    def addresses(self) -> tuple[str, ...]:
        """What the client calls its own address: ciaddr, and the one that it wants to have (option 50)."""

def read(data: bytes) -> Request | None:
    """The request in `data`, or None where it has no kind of its own: it is malformed, has option 52, an option twice
    (RFC 3396), or no Ethernet address. Such a request is decided by itself."""

@final
class Template:
    """The reply to one request of a kind, made from it. ValueError when it is none."""

    def __init__(self, payload: bytes, request: Request) -> None: ...
    def fill(self, request: Request) -> bytes:
        """The reply to another request of the same kind. ValueError when it is of another."""
