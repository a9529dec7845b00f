"""The real API over a `FakeControl`, on a unix socket, served by a thread: what the commands talk to in tests."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pxed.api.server import serve
from support.control import FakeControl

STARTED_WITHIN = 60.0  # seconds; a limit against hanging, not a measure


class LiveApi:
    """A running API. `do` runs a function of the control in the server's own thread."""

    def __init__(self, folder: Path) -> None:
        self.control = FakeControl()
        self.socket = folder / "pxed.sock"
        self.config = folder / "pxed.toml"
        self.config.write_text(
            f'[server]\naddress = "127.0.0.1"\nstate_dir = "{folder}"\nsocket = "{self.socket}"\n'
            f'[tftp]\nroot = "{folder}"\n'
        )
        self.loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with serve(self.control, str(self.socket)):
            self._started.set()
            await self._stop.wait()

    def do(self, function: object, *arguments: object, **named: object) -> None:
        """Call `function` in the server's thread, soon."""
        self.loop.call_soon_threadsafe(lambda: function(*arguments, **named))  # type: ignore[operator]

    def wait_for_watcher(self) -> None:
        """Until a command follows the live stream and has asked for what was before."""
        seen = threading.Event()

        def look() -> None:
            if self.control.asked_while_watched:
                seen.set()
            else:
                self.loop.call_later(0.01, look)

        self.loop.call_soon_threadsafe(look)
        assert seen.wait(STARTED_WITHIN)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(STARTED_WITHIN)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@contextmanager
def live_api(folder: Path) -> Iterator[LiveApi]:
    api = LiveApi(folder)
    api.start()
    try:
        yield api
    finally:
        api.stop()
