"""The admin API on its unix socket: uvicorn inside the server's own event loop.

uvicorn would make the socket readable and writable for everybody, and take the process's signal handlers. Here the
socket is made first, mode 0600, and put in place by a rename, so that it is never there without an answer; signals
stay with the application.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn

from pxed.api.control import Control
from pxed.api.events import Closing
from pxed.api.routes import create_app
from pxed.errors import InternalError, OperatorError

__all__ = ["ApiServer", "serve"]

# Requests are answered from memory or after one commit; whoever is slower than this at the end is cut off.
STOP_SECONDS = 5


class ApiServer:
    """Serves a `Control` on a unix socket, from `start` to `stop`."""

    def __init__(self, control: Control, socket_path: str) -> None:
        self._path = socket_path
        self._closing = Closing()
        self._inode = 0
        self._task: asyncio.Task[None] | None = None
        self._uvicorn = _Embedded(
            uvicorn.Config(
                create_app(control, self._closing),
                log_config=None,
                access_log=False,
                lifespan="on",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    async def start(self) -> None:
        """Listen. Raises OperatorError when the socket cannot be made or another server answers on it."""
        listener, self._inode = _listen(self._path)
        self._task = asyncio.create_task(self._uvicorn.serve(sockets=[listener]), name="admin API")
        ready = asyncio.create_task(self._uvicorn.ready.wait())
        await asyncio.wait((ready, self._task), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            listener.close()
            raise InternalError("The admin API ended while it started.") from self._task.exception()

    async def stop(self) -> None:
        """End live streams, finish what is being answered, remove the socket."""
        if self._task is None:
            return
        self._closing.set()
        self._uvicorn.should_exit = True
        await self._task
        self._task = None
        _remove(self._path, self._inode)


@contextlib.asynccontextmanager
async def serve(control: Control, socket_path: str) -> AsyncIterator[ApiServer]:
    """The API, served inside this context."""
    server = ApiServer(control, socket_path)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class _Embedded(uvicorn.Server):
    """uvicorn as a guest in somebody else's loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the application's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        self.ready.set()


def _listen(path: str) -> tuple[socket.socket, int]:
    """A listening socket at `path`, mode 0600, and its inode. A dead server's is replaced, a living one's is not."""
    folder = Path(path).parent
    fresh = f"{path}.new"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if _answers(path):
            raise OperatorError(f"Another server answers on {path}; is pxed running already?")
        Path(fresh).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(fresh)
            Path(fresh).chmod(0o600)  # nobody can connect before listen(), so no moment is too open
            listener.listen(128)
            listener.setblocking(False)
            inode = Path(fresh).stat().st_ino
            Path(fresh).rename(path)
        except OSError:
            listener.close()
            Path(fresh).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OperatorError(f"The admin socket {path} cannot be made: {error.strerror or error}.") from error
    return listener, inode


def _remove(path: str, inode: int) -> None:
    # Without permission (the server has dropped its privileges) it stays behind, and the next start replaces it.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if Path(path).stat().st_ino == inode:  # a server started meanwhile has its own socket under this name
            Path(path).unlink()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
