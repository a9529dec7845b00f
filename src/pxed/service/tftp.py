"""The TFTP service: connects the engine, which moves the packets, with the names that machines ask for.

Per request and per finished transfer, never per packet: an event comes out of the engine, the name is opened, a blob
or an error goes back as a command.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from typing import Literal, Protocol

import structlog

from pxed._ext.blob import Blob
from pxed._ext.engine import Engine
from pxed._ext.tftp_events import Finished, Request
from pxed.net.holders import bind_error
from pxed.service.blobs import BlobCache
from pxed.service.names import BytesContent, Content, NotFound

__all__ = ["TftpService"]

# RFC 1350 error codes.
_NOT_DEFINED = 0
_NOT_FOUND = 1

# Ends of a transfer that are the normal course of some client; everything else is worth a warning.
_QUIET_OUTCOMES = frozenset({"ok", "probe", "closed", "refused", "superseded"})


class Names(Protocol):
    """What the service needs of `service.names.Names`."""

    async def open(self, name: str, *, via: Literal["tftp"], peer: str, local: str = "") -> Content:
        """What `peer` gets under `name`; a file's descriptor becomes the service's."""

    def delivered(self, name: str, *, via: Literal["tftp"], peer: str, size: int, seconds: float) -> None:
        """The whole file reached the machine."""


class TftpService:
    """One engine on the given addresses, answering from `names`."""

    def __init__(self, addresses: Sequence[str], port: int, names: Names) -> None:
        """`port` 0 takes any free port per address (tests); `bound` tells which."""
        self._addresses = tuple(addresses)
        self._port = port
        self._names = names
        self._engine = Engine(secrets.randbits(64))
        self._blobs = BlobCache()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("pxed.tftp")
        self._started = False
        self.bound: list[tuple[str, int]] = []

    @property
    def statistics(self) -> dict[str, int]:
        """Counters since the start and gauges: the engine's, and those of the cache of files."""
        return {**self._engine.statistics(), **self._blobs.statistics()}

    def open(self) -> None:
        """Bind. Raises OperatorError: taken (it says by whom), no permission, not our address."""
        for address in self._addresses:
            try:
                self.bound += self._engine.bind([(address, self._port)])
            except OSError as error:
                hint = "Another port can be set: [tftp] port (clients ask port 69 unless told otherwise)."
                raise bind_error("udp", address, self._port, error, hint) from error

    def start(self) -> None:
        """Begin to serve; call it on the event loop."""
        self._engine.start()
        asyncio.get_running_loop().add_reader(self._engine.event_fd, self._on_events)
        self._started = True

    async def stop(self) -> None:
        """End every transfer and close the ports. Safe after a failed `open`."""
        if self._started:
            asyncio.get_running_loop().remove_reader(self._engine.event_fd)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._engine.stop()

    def _on_events(self) -> None:
        for event in self._engine.drain():
            if isinstance(event, Request):
                task = asyncio.create_task(self._answer(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._note_end(event)

    async def _answer(self, request: Request) -> None:
        """Give the engine what it shall send for a request. Whatever goes wrong becomes an ERROR for this client."""
        try:
            blob = await self._blob(request)
        except FileNotFoundError as error:
            self._log.info("tftp not found", name=request.name, peer=request.peer[0], reason=str(error))
            self._engine.refuse(request.id, _NOT_FOUND, "file not found")
        except OSError as error:
            self._log.warning("tftp cannot read", name=request.name, peer=request.peer[0], reason=str(error))
            self._engine.refuse(request.id, _NOT_DEFINED, error.strerror or "the file cannot be read")
        except Exception:
            self._log.exception("tftp request failed", name=request.name, peer=request.peer[0])
            self._engine.refuse(request.id, _NOT_DEFINED, "internal error")
        else:
            self._engine.send(request.id, blob)

    async def _blob(self, request: Request) -> Blob:
        """The bytes under a name. Raises FileNotFoundError with the reason, or OSError."""
        netascii = request.mode == "netascii"
        content = await self._names.open(request.name, via="tftp", peer=request.peer[0], local=request.local_address)
        if isinstance(content, NotFound):
            raise FileNotFoundError(content.reason)
        if isinstance(content, BytesContent):
            blob = Blob(content.data)
            return blob.netascii() if netascii else blob
        try:
            return await self._blobs.load(content.fd, netascii=netascii)
        finally:
            os.close(content.fd)

    def _note_end(self, end: Finished) -> None:
        """One line per transfer; a whole file is reported to the names."""
        peer, port = end.peer
        log = self._log.info if end.outcome in _QUIET_OUTCOMES else self._log.warning
        log(
            "tftp transfer",
            name=end.name,
            peer=peer,
            port=port,
            outcome=end.outcome,
            bytes=end.bytes,
            blocks=end.blocks,
            retransmits=end.retransmits,
            seconds=round(end.seconds, 3),
            **({"error": end.error} if end.error else {}),
        )
        if end.outcome == "ok":
            self._names.delivered(end.name, via="tftp", peer=peer, size=end.bytes, seconds=end.seconds)
