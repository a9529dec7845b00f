"""A sender driven from Python, in virtual time: bytes and a clock in, bytes and deadlines out. For tests."""

from typing import Any, final

from typing_extensions import Buffer

from pxed._ext.blob import Blob
from pxed._ext.orders import Order
from pxed._ext.pacer import Pacer
from pxed._ext.sender import Sender
from pxed._ext.tftp_events import Request

@final
class VirtualTftp:
    """Times are seconds, peers are (address, port). `seed`, `limit` and `places` as for the sender, or another one.

    `pacer` limits what is sent to everybody.
    """

    def __new__(
        cls,
        seed: int = ...,
        limit: int = ...,
        places: int = ...,
        pacer: Pacer | None = ...,
        *,
        sender: Sender | None = None,
    ) -> VirtualTftp: ...
    def receive(self, data: Buffer, peer: tuple[str, int], now: float, local: str = "") -> None:
        """A datagram from `peer`, sent to our address `local`. Raises ValueError for an address that is none."""

    def on_timer(self, now: float) -> None:
        """Let the timers run that are due at `now`."""

    def next_timer(self) -> float | None:
        """When to call `on_timer` next; None when nothing waits."""

    def drain(self, now: float, batches: int = 0) -> list[tuple[tuple[str, int], bytes]]:
        """Every datagram that is ready, as (peer, bytes), in order; with `batches` at most so many of an engine's."""

    def read_through(self, request: Buffer, blob: Blob) -> tuple[int, int, dict[int, bytes]]:
        """Be the one client of a large `blob`: send a request with options, then acknowledge each window. In real
        time, as there may be a disk to wait for.

        Returns (blocks, bytes, those blocks that are not all zero as {number: bytes}). Raises ValueError with the
        beginning of a datagram that is not the next block.
        """

    def events(self) -> list[Any]:
        """The records since the last call: Request, Finished, Listing, and those of the sender's own kinds."""

    def send(self, id: int, blob: Blob, now: float, group: tuple[str, int] | None = None, *, quiet: int = 0) -> None:
        """Answer request `id` with a blob, to the (address, port) of a group if the sender knows groups (`quiet`: as
        for Engine.send); nothing when it ended meanwhile.
        """

    def refuse(self, id: int, code: int, text: str, now: float) -> None:
        """Answer request `id` with an ERROR; nothing when it ended meanwhile."""

    def post(self, order: Order, now: float) -> None:
        """Give the sender an order of its own kinds. Raises ValueError when it was posted before."""

    def ask_listing(self, first: int, now: float) -> None:
        """Ask what runs, from place `first` of the table on: a Listing comes with the events."""

    def forget(self, id: int, now: float) -> None:
        """Request `id` gets no answer."""

    def join(self, request: Request, blob: Blob, now: float) -> int:
        """Serve a request that another sender received, under the id that is returned."""

    def statistics(self) -> dict[str, int]:
        """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
