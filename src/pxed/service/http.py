"""Boot HTTP's routes: the names that TFTP has too, image data for agents, and the agents' calls."""

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from pxed.errors import GoneError, NotFoundError, OperatorError, PeerError, PxedError, RefusedError
from pxed.images.library import Library
from pxed.net.connection import Download, Limits
from pxed.net.http import BootHttp
from pxed.net.message import BytesBody, FileBody, Request, Response
from pxed.service.image_http import Forbidden, ImageRoutes, Unauthorised, allow_image, bearer, error
from pxed.service.metrics import Metrics
from pxed.service.names import BytesContent, Names, NotFound
from pxed.service.quiet import Crowd
from pxed.service.transactions import Transactions
from pxed.types import CastJoin, CastSession, ClaimRequest, FinishRequest, Report

__all__ = ["MachineHttp"]

_AGENT = "/pxed/agent/"
_IMAGE = "/pxed/image/"
_JOIN = "/pxed/cast/join"

# UEFI HTTP boot goes by the type, or by the extension where there is none (UEFI 2.10, 24.7.3.2).
_TYPES = {
    "efi": "application/efi",
    "iso": "application/vnd.efi-iso",
    "img": "application/vnd.efi-img",
    "ipxe": "text/plain; charset=utf-8",
    "json": "application/json",
    "cfg": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
_SCRIPT = "text/plain; charset=utf-8"
# For what is made for one machine, and for images: no cache on the way may keep it.
_NO_STORE = (("Cache-Control", "no-store"),)


class Casts(Protocol):
    """What the routes need of `service.cast`."""

    async def join(self, wanted: CastJoin, run: str, peer: str, local: str) -> CastSession:
        """The session for a receiver at address `peer`, which reached our `local`; `run` is its job's, if any.

        Raises NotFoundError, RefusedError or OperatorError.
        """


class MachineHttp:
    """Boot HTTP on a port of each of our addresses."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        port: int,
        names: Names,
        transactions: Transactions,
        library: Library,
        clock: Callable[[], float] = time.time,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        mac_of: Callable[[str], str] = lambda _address: "",
        public_images: bool = False,
        casts: Casts | None = None,
    ) -> None:
        """`mac_of`: whose address it is, for the log. `public_images`: read without a job, too."""
        self._names = names
        self._transactions = transactions
        self._library = library
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._mac_of = mac_of
        self._casts = casts
        self._crowd = Crowd(time.monotonic)
        self._log = structlog.get_logger("pxed.http")
        self._images = ImageRoutes(
            transactions,
            library,
            public=public_images,
            first_byte=self._note_first_byte,
            sent=self._note_part,
            unreadable=self._refuse,
        )
        self._server = BootHttp(addresses, port, self._handle, limits)

    @property
    def statistics(self) -> dict[str, int]:
        """Connections, requests, bytes, and what was given up by reason."""
        return {**self._server.statistics, **self._metrics.http_outcomes}

    @property
    def ports(self) -> list[int]:
        """The ports listened on, one per address."""
        return self._server.ports

    @property
    def public_images(self) -> bool:
        """Whether images are read without a job, too. May be set while it runs."""
        return self._images.public

    @public_images.setter
    def public_images(self, public: bool) -> None:
        self._images.public = public

    def downloads(self) -> list[Download]:
        """The responses that are being sent."""
        return self._server.downloads()

    def open(self) -> None:
        """Bind. Raises OperatorError, which says who holds the port."""
        self._server.open()

    def start(self) -> None:
        """Begin to serve; call it on the event loop."""
        self._server.start()

    async def stop(self, grace: float = 0.0) -> None:
        """Stop accepting; responses in progress get `grace` seconds."""
        await self._server.stop(grace)

    # -- routes ----------------------------------------------------------------------------------------------------

    def _handle(self, request: Request) -> Awaitable[Response]:
        if request.path.startswith(_AGENT):
            return self._answer_json(request, self._agent)
        if request.path.startswith(_IMAGE):
            return self._answer_json(request, self._image)
        if request.path == _JOIN:
            return self._answer_json(request, self._join)
        return self._name(request)

    async def _name(self, request: Request) -> Response:
        """A file, or something made for this machine."""
        if request.method == "POST":
            return Response.text(405, "only GET and HEAD here", (("Allow", "GET, HEAD"),))
        probe = request.method == "HEAD"
        peer, begun = request.peer[0], time.monotonic()
        content = await self._names.open(request.path, via="http", peer=peer, local=request.local[0], probe=probe)
        if isinstance(content, NotFound):
            if (more := self._crowd.room("not-found", peer)) is not None:
                self._log.info("not found", path=request.path[:200], peer=peer, reason=content.reason, **more)
            return Response.text(404, "there is nothing under this name")

        def sent(start: int, stop: int, complete: bool) -> None:
            self._note_end(request, stop - start, size, time.monotonic() - begun, complete)
            # A client that fetches by ranges has it all when it has the end.
            if complete and stop == size:
                self._names.delivered(request.path, via="http", peer=peer, size=size, seconds=time.monotonic() - begun)

        if isinstance(content, BytesContent):
            size = len(content.data)
            # A HEAD of a check has no effect, so there is no answer yet whose size could be told.
            known = bool(content.data) or not probe
            return Response(200, BytesBody(content.data), _SCRIPT, _NO_STORE, size_known=known, sent=sent)
        size = content.size
        kind = _TYPES.get(request.path.rpartition(".")[2].lower(), "application/octet-stream")
        return Response(200, FileBody(content.fd, size, content.mtime), kind, ranges=True, sent=sent)

    # -- agents ----------------------------------------------------------------------------------------------------

    async def _answer_json(self, request: Request, route: Callable[[Request], Awaitable[Response]]) -> Response:
        """Run a route; what it refuses becomes a JSON error."""
        try:
            return await route(request)
        except Unauthorised as trouble:
            return error(401, str(trouble), (("WWW-Authenticate", "Bearer"),))
        except Forbidden as trouble:
            return error(403, str(trouble))
        except (PxedError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as trouble:
            return self._refuse(request, trouble)

    def _refuse(self, request: Request, trouble: Exception) -> Response:
        """The JSON error for what a route, or the reading of a body that it gave, has raised."""
        if isinstance(trouble, NotFoundError):
            status, text = 404, str(trouble)
        elif isinstance(trouble, RefusedError):
            status, text = 409, str(trouble)
        elif isinstance(trouble, OperatorError):
            # A pack of the image store is lost, and agents shall not wait for it; or something may pass by itself: the
            # database cannot be written.
            status, text = 410 if isinstance(trouble, GoneError) else 503, str(trouble)
            self._log.error("agent's request failed", path=request.path, peer=request.peer[0], error=text)
            return error(status, text)
        elif isinstance(trouble, msgspec.MsgspecError | UnicodeDecodeError | RecursionError | PeerError):
            status, text = 400, f"the request's body is not what was expected: {trouble}"
        else:
            self._log.error("HTTP response failed", path=request.path, exc_info=trouble)
            return error(500, "this cannot be read; the server's log has the details")
        if (more := self._crowd.room("refused", request.peer[0])) is not None:
            self._log.info(
                "agent's request refused",
                path=request.path[:200],
                peer=request.peer[0],
                status=status,
                error=text,
                **more,
            )
        return error(status, text)

    async def _agent(self, request: Request) -> Response:
        """POST claim, report, finish."""
        call = request.path.removeprefix(_AGENT)
        self._metrics.requested("http", "agent")
        if call not in ("claim", "report", "finish"):
            return error(404, f"{request.path} is not a call for agents")
        if request.method != "POST":
            return error(405, "agents' calls are POSTs", (("Allow", "POST"),))
        now = self._clock()
        if call == "claim":
            claim = msgspec.json.decode(request.body, type=ClaimRequest)
            return Response.json(200, await self._transactions.claim(claim, now))
        run = bearer(request)
        if call == "report":
            report = msgspec.json.decode(request.body, type=Report)
            return Response.json(200, await self._transactions.report(run, report, now))
        finish = msgspec.json.decode(request.body, type=FinishRequest)
        return Response.json(200, await self._transactions.finish(run, finish, now))

    async def _image(self, request: Request) -> Response:
        self._metrics.requested("http", "image")
        return await self._images.answer(request)

    async def _join(self, request: Request) -> Response:
        """POST: take part in the multicast session of an image."""
        self._metrics.requested("http", "agent")
        if request.method != "POST":
            return error(405, "a session is joined by POST", (("Allow", "POST"),))
        wanted = msgspec.json.decode(request.body, type=CastJoin)
        run = allow_image(request, wanted.image, self._transactions, self.public_images)
        if self._casts is None:
            raise RefusedError("no image is sent by multicast here ([cast] enabled)")
        return Response.json(200, await self._casts.join(wanted, run, request.peer[0], request.local[0]))

    # -- figures ---------------------------------------------------------------------------------------------------

    def _note_end(self, request: Request, length: int, size: int, seconds: float, complete: bool) -> None:
        """One line per download of a name; `length`: bytes that went out."""
        self._note_part(0, length, complete)
        peer = request.peer[0]
        mac = self._mac_of(peer)
        log = self._log.info if complete else self._log.warning
        log(
            "http transfer",
            name=request.path[:200],
            peer=peer,
            port=request.peer[1],
            outcome="ok" if complete else "cut",
            bytes=length,
            size=size,
            seconds=round(seconds, 3),
            rate=round(length / seconds) if seconds else 0,
            **({"mac": mac} if mac else {}),
        )
        if not complete:
            self._metrics.failed(mac or peer, f"{request.path[:200]} over HTTP: cut off")

    def _note_part(self, start: int, stop: int, complete: bool) -> None:
        self._metrics.http_outcomes["outcome.ok" if complete else "outcome.cut"] += 1

    def _note_first_byte(self, run: str) -> None:
        if (job := self._transactions.job_for_run(run)) is not None:
            self._metrics.phases.first_byte(job.id, self._clock())
