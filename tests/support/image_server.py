"""A small server for the agent: one job, one image, and every misbehaviour that a test asks for."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from pxed.images.chunk import CHUNK, Compressor, digest_of, is_zero
from pxed.images.manifest import Manifest, Partition, PartitionTable
from pxed.types import (
    CastJoin,
    CastSession,
    ClaimAnswer,
    ClaimRequest,
    FinishAnswer,
    FinishRequest,
    ImageFacts,
    Ranges,
    Report,
    ReportAnswer,
)

TOKEN, RUN = "token-of-the-test", "run-of-the-test"


@dataclass
class StoredImage:
    """An image as the server holds it."""

    manifest: Manifest
    frames: list[bytes]
    id: str = ""

    def __post_init__(self) -> None:
        self.id = self.manifest.id

    @property
    def layout(self) -> bytes:
        return b"".join(len(frame).to_bytes(4, "little") for frame in self.frames)

    @property
    def facts(self) -> ImageFacts:
        disk = self.manifest
        return ImageFacts(self.id, "golden", disk.size, disk.sector, len(self.data), disk.stored_chunks)

    @property
    def data(self) -> bytes:
        return b"".join(self.frames)


def store(disk: bytes, sector: int = 512, table: PartitionTable | None = None) -> StoredImage:
    """A raw disk as an image."""
    compressor, indexes, names, frames = Compressor(), [], b"", []
    for index in range(-(-len(disk) // CHUNK)):
        raw = disk[index * CHUNK : (index + 1) * CHUNK]
        if not is_zero(raw):
            indexes.append(index)
            names += digest_of(raw)
            frames.append(compressor.compress(raw))
    return StoredImage(Manifest.build(len(disk), sector, table or PartitionTable(), indexes, names), frames)


ESP = Partition(number=1, start=1 << 20, size=1 << 20, type="c12a7328-f81f-11d2-ba4b-00a0c93ec93b", uuid="aa-bb")


@dataclass
class ImageServer:
    """Serves on `port` (chosen at the first start, kept through restarts)."""

    image: StoredImage
    host: str = "127.0.0.1"
    port: int = 0
    debug: bool = False
    # -- knobs: each sees the request and may raise Answer to answer otherwise
    before: Callable[[str, "Handler"], None] = lambda path, handler: None
    data: bytes = b""
    stop: str = ""
    session: CastSession | None = None  # that a join is answered with; None: refused
    transport: str = "auto"
    public: bool = False
    # -- what was seen
    claims: list[ClaimRequest] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    finish: FinishRequest | None = None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    posted: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    joins: list[CastJoin] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.data = self.data or self.image.data

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> "ImageServer":
        self._connections: set[socket.socket] = set()
        self._httpd = _Httpd((self.host, self.port), self)
        self.port = self._httpd.server_address[1]
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def kill(self) -> None:
        """Stop at once, as kill -9 does: every connection is reset."""
        self._httpd.shutdown()
        self._httpd.server_close()
        for connection in list(self._connections):
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join()

    def __enter__(self) -> "ImageServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def messages(self) -> list[str]:
        return [report.message for report in self.reports if report.message]


class Answer(Exception):
    """Raised by a knob: answer with this instead."""

    def __init__(self, status: int, error: str = "") -> None:
        self.status, self.error = status, error


class _Httpd(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], owner: ImageServer) -> None:
        self.owner = owner
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a test has cut is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Httpd

    def setup(self) -> None:
        super().setup()
        self.server.owner._connections.add(self.connection)

    def finish(self) -> None:
        self.server.owner._connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, method: Callable[[ImageServer, str], None]) -> None:
        owner = self.server.owner
        try:
            owner.before(self.path, self)
            method(owner, self.path.lstrip("/"))
        except Answer as other:
            self._send(other.status, msgspec.json.encode({"error": other.error}))

    def _get(self, owner: ImageServer, path: str) -> None:
        self._authorised()
        if path in (f"pxed/image/{owner.image.id}", "pxed/image/golden"):
            self._json(owner.image.facts)
            return
        parts = {
            f"pxed/image/{owner.image.id}/manifest": owner.image.manifest.encode(),
            f"pxed/image/{owner.image.id}/layout": owner.image.layout,
            f"pxed/image/{owner.image.id}/data": owner.data,
        }
        if path not in parts:
            raise Answer(404, "No such image.")
        body = parts[path]
        if wanted := self.headers.get("Range"):
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            owner.ranges.append((first, last))
            self._send(206, body[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(body)}"})
        else:
            self._send(200, body)

    def _post(self, owner: ImageServer, path: str) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "pxed/agent/claim":
            claim = msgspec.json.decode(body, type=ClaimRequest)
            if claim.token != TOKEN:
                raise Answer(403, "The token is not valid.")
            owner.claims.append(claim)
            image = owner.image.id
            self._json(ClaimAnswer(7, "restore", image, "test-image", RUN, owner.debug, 0.05, owner.transport))
            return
        self._authorised()
        if path == "pxed/cast/join":
            if owner.session is None:
                raise Answer(409, "Multicast is off.")
            owner.joins.append(msgspec.json.decode(body, type=CastJoin))
            self._json(owner.session)
        elif path == f"pxed/image/{owner.image.id}/data":
            ranges = msgspec.json.decode(body, type=Ranges).ranges
            owner.posted.append(ranges)
            self._send(200, b"".join(owner.data[start:stop] for start, stop in ranges))
        elif path == "pxed/agent/report":
            owner.reports.append(msgspec.json.decode(body, type=Report))
            self._json(ReportAnswer(owner.stop))
        elif path == "pxed/agent/finish":
            owner.finish = msgspec.json.decode(body, type=FinishRequest)
            self._json(FinishAnswer("shell" if owner.debug and not owner.finish.ok else "reboot"))
            owner.finished.set()
        else:
            raise Answer(404, "No such call.")

    def _authorised(self) -> None:
        if not self.server.owner.public and self.headers.get("Authorization") != f"Bearer {RUN}":
            raise Answer(401, "No valid run token.")

    def _json(self, value: msgspec.Struct) -> None:
        self._send(200, msgspec.json.encode(value))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
