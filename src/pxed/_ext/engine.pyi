"""Engine: sockets, a sender and its timers, run by one native thread that never holds the GIL."""

from collections.abc import Iterator, Sequence
from typing import Any, final

from pxed._ext.blob import Blob
from pxed._ext.orders import Order
from pxed._ext.pacer import Pacer
from pxed._ext.sender import Sender
from pxed._ext.tftp_events import Request

@final
class Engine:
    """One native thread that serves TFTP. `seed` keys its hash tables: random in production.

    `limit` bounds the transfers at one time, `places` those that are served at full speed (0: all of them), and `pacer`
    what they send together; it may be other engines' too.

    `seed` and `limit` are those of a TftpSender; another `sender` takes its place.

    Life: `bind`, `start`, then `drain` whenever `event_fd` is readable and `send` or `refuse` for each Request, `stop`.
    All methods belong to one thread of the control plane. It cannot be started again.
    """

    @property
    def event_fd(self) -> int:
        """An eventfd that is readable when `drain` has something."""

    places: int
    """Transfers that are served at full speed at one time. May be set while it runs. 0 for another sender."""

    def __new__(
        cls,
        seed: int = ...,
        limit: int = ...,
        places: int = ...,
        pacer: Pacer | None = ...,
        *,
        sender: Sender | None = None,
    ) -> Engine: ...
    def bind(
        self,
        addresses: Sequence[tuple[str, int]],
        *,
        join: bool = False,
        pacer: Pacer | None = None,
        multicast_ttl: int = 0,
        bulk: bool = False,
    ) -> list[tuple[str, int]]:
        """Open a socket per (address, port), port 0 for any; returns them as bound. Before `start`.

        `pacer` limits what is sent there; the same for all addresses of one interface.

        With `join` the ports are those that another engine of this process has bound; the two share the clients. With
        `multicast_ttl` they send to groups, `bulk` is for data that nobody waits for (udp.open_socket).

        Raises OSError (address in use, not ours, no permission) naming the address; nothing is bound then.
        """

    def bind_transfers(self, ports: Iterator[int], count: int, *, pacer: Pacer | None = None) -> list[int]:
        """Give the transfers that are asked for at the address bound last ports of their own there, in turn: the first
        `count` of the iterator `ports` that are free. Returns them; it has none when none was free. Before `start`.
        """

    def start(self) -> None:
        """Start the thread. Raises RuntimeError the second time."""

    def stop(self) -> None:
        """End the thread and every transfer, close the sockets. Waits for the thread: some milliseconds."""

    def drain(self) -> list[Any]:
        """The events since the last call, oldest first: tftp_events.Request, Finished and Listing, and what kinds of
        records the sender has of its own.
        """

    def send(self, id: int, blob: Blob, group: tuple[str, int] | None = None, *, quiet: int = 0) -> None:
        """Answer request `id` with a blob (already converted for mode netascii); nothing if it ended meanwhile.

        `group`: the (address, port) that a sender of groups sends it to. `quiet`: seconds of silence after it.
        """

    def refuse(self, id: int, code: int, text: str) -> None:
        """Answer request `id` with ERROR `code`; nothing if it ended meanwhile."""

    def post(self, order: Order) -> None:
        """Give the sender an order of its own kinds. Raises ValueError when it was posted before."""

    def ask_listing(self, first: int = 0) -> None:
        """Ask what runs, from place `first` of the table on: a Listing comes with the events, some 256 transfers."""

    def forget(self, id: int) -> None:
        """Request `id` gets no answer from this engine; it ends as "moved"."""

    def join(self, request: Request, blob: Blob) -> int:
        """Serve a request that another engine received; its events have the id that is returned.

        Raises ValueError when no socket here has the address that the client asked.
        """

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and gauges: the sender's, and those of the sockets."""
