"""CastReceiver: an assembler with the sockets of a session, and the native thread that feeds it."""

from typing import final

from typing_extensions import Buffer

from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_frames import CastLayout

@final
class CastReceiver(CastAssembler):
    """Takes part in sessions on the network: `join`, `leave`, `join`, as often as needed; between them HTTP goes on.

    `join`, `leave` and `close` belong to one thread at a time; everything else is as with the assembler, but that
    chance has a part in its phases whatever the seed.
    """

    def __new__(
        cls,
        layout: CastLayout,
        have: Buffer = ...,
        *,
        memory: int = ...,
        queue: int = ...,
        symbol: int = ...,
        seed: int = ...,
        keep: bool = ...,
    ) -> CastReceiver: ...
    def join(
        self,
        session: int,
        key: bytes,
        receiver: int,
        *,
        group: str,
        port: int,
        server: str,
        interface: str = ...,
        symbol: int = ...,
        period: float = ...,
    ) -> None:
        """Leave the session before, if it is another one, and take part in this one.

        IPv4 addresses: the group; the server, whose same port reports go to; and our own one on the interface where the
        group is, by default that of the route to the server. Raises OSError when there is no such socket or membership,
        ValueError as `begin` does.
        """

    def leave(self) -> None:
        """Tell the server, end the thread, close the sockets: some milliseconds. Nothing when it takes part in none."""

    def heard(self) -> float:
        """Seconds since the session's last datagram to its group; infinity: there was none since the join."""

    def figures(self) -> dict[str, int]:
        """The assembler's, and of the sockets: kernel_drops, receive_buffer (bytes), receive_errors, send_errors."""

    def close(self) -> None:
        """`leave`, and wake every `take`, which returns None from now on."""
