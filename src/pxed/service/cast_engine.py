"""The engine that sends images by multicast: one thread, a socket for each of our IPv4 addresses."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from pxed._ext.cast_events import CastClosed, CastListing, CastReceiver, CastRefused, CastUnreadable, ask_session
from pxed._ext.cast_sender import CastSender
from pxed._ext.engine import Engine
from pxed._ext.orders import Order
from pxed._ext.pacer import Pacer
from pxed.net.holders import bind_error

__all__ = ["CastEngine", "Figures"]

# An engine that does not answer a question about a session within so long has none of this id any more.
_PATIENCE = 5.0

Figures = tuple[CastListing, list[CastReceiver]]
"""A session, and all of its receivers."""


class CastEngine:
    """Made for addresses; `open`, `start`, `stop`.

    `unreadable(session, chunk, errno)` and `refused(session, errno)` are told as they happen.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        port: int,
        ttl: int,
        *,
        line: Callable[[str], Pacer | None],
        unreadable: Callable[[int, int, int], None],
        refused: Callable[[int, int], None],
    ) -> None:
        """`line`: the pacer of the interface that has an address."""
        self._addresses = tuple(addresses)
        self._ttl = ttl
        self._line = line
        self._unreadable, self._refused = unreadable, refused
        self._engine = Engine(sender=CastSender())
        self._asking: dict[int, asyncio.Future[CastListing]] = {}
        self._started = False
        self._log = structlog.get_logger("pxed.cast")
        self.port = port  # 0: any that is free, and after `open` the one that it is

    @property
    def statistics(self) -> dict[str, int]:
        """Counters since the start, and gauges."""
        return dict(self._engine.statistics())

    def open(self) -> None:
        """Bind. Raises OperatorError: taken (it says by whom), no permission, not our address."""
        for address in self._addresses:
            try:
                [(_, self.port)] = self._engine.bind(
                    [(address, self.port)], pacer=self._line(address), multicast_ttl=self._ttl, bulk=True
                )
            except OSError as error:
                raise bind_error("udp", address, self.port, error, "Another port can be set: [cast] port.") from error

    def start(self) -> None:
        """Begin; call it on the event loop."""
        self._engine.start()
        asyncio.get_running_loop().add_reader(self._engine.event_fd, self._on_events)
        self._started = True

    def stop(self) -> None:
        """End every session and close the ports. Safe after a failed `open`."""
        if self._started:
            asyncio.get_running_loop().remove_reader(self._engine.event_fd)
        self._engine.stop()
        self._started = False
        for question in self._asking.values():
            question.cancel()

    def socket(self, address: str) -> int:
        """The number of the socket that has an address of ours."""
        return self._addresses.index(address)

    def post(self, order: Order) -> None:
        """Give the sender an order."""
        self._engine.post(order)

    async def figures(self, session: int) -> Figures | None:
        """A session with its receivers, as they stand now; None when there is no such session (any more).

        One question about a session at a time.
        """
        receivers: list[CastReceiver] = []
        first = 0
        while True:
            answer = self._asking[session] = asyncio.get_running_loop().create_future()
            self.post(ask_session(session, first))
            try:
                async with asyncio.timeout(_PATIENCE):  # wait_for of Python 3.11 may miss that we are cancelled
                    listing = await answer
            except TimeoutError:
                return None
            finally:
                self._asking.pop(session, None)
            receivers += listing.receivers
            first = listing.after
            if not first:
                return listing, receivers

    def _on_events(self) -> None:
        for event in self._engine.drain():
            if isinstance(event, CastListing):
                if (question := self._asking.get(event.session)) is not None and not question.done():
                    question.set_result(event)
            elif isinstance(event, CastUnreadable):
                self._unreadable(event.session, event.chunk, event.error)
            elif isinstance(event, CastRefused):
                self._refused(event.session, event.error)
            elif isinstance(event, CastClosed):
                self._log.debug("the sender has let go of a session", session=f"{event.session:016x}")
