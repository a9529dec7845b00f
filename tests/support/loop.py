"""An event loop in a thread of its own, so that tests can be clients with plain blocking calls."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
_PATIENCE = 60.0


class LoopThread:
    """Use it in `with`; what was not handled in the loop fails the test at the end."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.errors: list[dict[str, Any]] = []

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self._loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop; its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE)

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain function in the loop; its result."""

        async def wrapped() -> T:
            return function()

        return self.run(wrapped())

    def __enter__(self) -> "LoopThread":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        if kind is None:
            assert not self.errors, self.errors
