"""CastAssembler: the receiver of a cast session without its sockets, and where all transports' bytes come together."""

from collections.abc import Iterable

from typing_extensions import Buffer, disjoint_base

from pxed._ext.cast_frames import CastFrame, CastLayout

@disjoint_base
class CastAssembler:
    """What one receiver has of one image, and what it tells the server. Times are seconds of one clock.

    have: bit i of byte i // 8, LSB first, is set for each frame that need not travel. memory: bytes of incomplete
    frames at most. queue: bytes of complete frames that are not `done` yet, beyond which no frame is begun. symbol: its
    size until a session says another. seed: of the random phase of its reports. keep: False counts symbols without
    keeping their bytes (virtual sessions).

    Any thread may call any method at any time, and only `take` waits. Raises ValueError for a bitmap or limits that do
    not fit the layout.
    """

    http: bool
    """What its reports say: what is missing is being fetched by HTTP now."""

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
    ) -> CastAssembler: ...
    @property
    def left(self) -> int:
        """Frames that are not done. 0: the image is complete."""

    @property
    def full(self) -> bool:
        """Whether no frame would be begun now, as the queue is full."""

    def begin(
        self, session: int, key: bytes, receiver: int, now: float, *, symbol: int = ..., period: float = ...
    ) -> None:
        """Take part in a session from now on, in place of any before.

        What is here stays; of incomplete frames only if `symbol` is the same. Raises ValueError when the key has not 16
        bytes, or for a size of symbols or a period that cannot be.
        """

    def depart(self, now: float) -> None:
        """Take no more part: `reports` has the last ones, which say so, and nothing is received from now on."""

    def receive(self, data: Buffer, now: float) -> None:
        """A datagram from anybody: what is not the session's is counted, and changes nothing."""

    def next_timer(self) -> float | None:
        """When `reports` has something next; None: never."""

    def reports(self, now: float) -> list[bytes]:
        """The datagrams for the server that are due."""

    def take(self, timeout: float = ...) -> tuple[int, CastFrame] | None:
        """The next complete frame with its ordinal, waited for up to `timeout` seconds; it is not wanted until `done`.

        None: there was none, or `close` was called.
        """

    def done(self, ordinal: int, ok: bool) -> None:
        """A frame is proved and written, whoever brought it: what else is here of it goes.

        Not ok: the one that was taken had wrong bytes, or one in `have` is not there; it is wanted again, whole.
        """

    def give(self, ordinal: int, offset: int, data: Buffer) -> int:
        """Bytes of a frame from elsewhere (HTTP). A range may come in pieces cut anywhere, one behind the other.

        Returns how many bytes of whole symbols are new with it. A frame that is complete then is taken like any other.
        Raises ValueError outside of the frame, MemoryError.
        """

    def hold(self, ordinals: Iterable[int]) -> None:
        """These are being fetched otherwise: reports do not ask for them, though what passes is taken."""

    def release(self, ordinals: Iterable[int]) -> None:
        """End of `hold`."""

    def missing(self, ordinal: int) -> list[tuple[int, int]]:
        """What is needed of a frame as [start, stop) bytes: whole symbols, gaps below 64 bytes closed.

        Empty when it is complete. Parity that is here counts: with the ranges the frame is complete.
        """

    def partials(self) -> list[int]:
        """Frames of which something is here, ascending."""

    def have(self) -> bytes:
        """The bitmap of what is done, as the constructor takes it."""

    def order(self) -> tuple[int, int]:
        """The server's order and its reason; (0, 0): none. One that three reports were not answered with has lapsed."""

    def figures(self) -> dict[str, int]:
        """Counters since it was made, and gauges; datagrams that were refused as `drop.REASON`."""

    def close(self) -> None:
        """Wake every `take`, which returns None from now on."""
