"""Live views: whoever watches gets every timeline event and every job's new state from the moment of subscribing."""

import asyncio
from collections import deque
from types import TracebackType

from pxed.types import Event, Job

__all__ = ["Hub", "Subscription"]

# Changes kept for a watcher that does not read; then its oldest go. A second of 500 machines reporting.
MAX_WAITING = 1000


class Subscription:
    """An async iterator of changes, and a context manager (plain or async) that ends it."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._waiting: deque[Event | Job] = deque(maxlen=MAX_WAITING)
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, change: Event | Job) -> None:
        """Hand a change to the watcher."""
        self._waiting.append(change)
        self._ready.set()

    def close(self) -> None:
        """End the iteration once what waits is read."""
        self._closed = True
        self._hub.drop(self)
        self._ready.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event | Job:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popleft()

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Hub:
    """All subscriptions."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def subscribe(self) -> Subscription:
        """Begin to watch."""
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Stop handing changes to this one."""
        self._subscriptions.discard(subscription)

    def publish(self, change: Event | Job) -> None:
        """Hand a change to everybody who watches."""
        for subscription in self._subscriptions:
            subscription.put(change)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            subscription.close()
