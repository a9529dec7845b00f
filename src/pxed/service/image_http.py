"""Boot HTTP's routes about images: what an image is, its manifest, layout and data, and ranges of the data at will.

GET  /pxed/image/KEY              which image a name or id is
GET  /pxed/image/ID/manifest      its manifest; /layout: stored lengths; /data: its frames, by ranges
POST /pxed/image/ID/data          the bytes of many ranges in one answer

An image is read with the bearer token of a job that wants it, or, where `[images] public` says so, without any.
"""

import asyncio
import os
import re
from collections.abc import Callable

import msgspec

from pxed.errors import PeerError
from pxed.images.library import Library
from pxed.images.reading import ImageData
from pxed.net.message import Body, BytesBody, FileBody, Request, Response, Segment
from pxed.service.transactions import Transactions
from pxed.types import MOST_RANGE_BYTES, ImageFacts, Ranges

__all__ = ["Forbidden", "ImageRoutes", "RangesBody", "Unauthorised", "allow_image", "bearer", "error"]

_IMAGE = "/pxed/image/"
_PARTS = ("manifest", "layout", "data")
# As the store has names and ids: nothing needs percent-decoding.
_KEY = re.compile(r"[A-Za-z0-9._+-]{1,128}")
# No cache on the way may keep what is for one machine, nor so much.
_NO_STORE = (("Cache-Control", "no-store"),)


class Unauthorised(Exception):
    """No bearer token where one is needed (401)."""


class Forbidden(Exception):
    """A bearer token that is not good for this (403)."""


class ImageRoutes:
    """Answers what is beneath /pxed/image/.

    `first_byte(run)` is told when a job asks for data, `sent` how a response ended, `unreadable` makes the answer when
    data cannot be read.
    """

    def __init__(
        self,
        transactions: Transactions,
        library: Library,
        *,
        public: bool,
        first_byte: Callable[[str], None],
        sent: Callable[[int, int, bool], None],
        unreadable: Callable[[Request, Exception], Response],
    ) -> None:
        self.public = public
        self._transactions = transactions
        self._library = library
        self._first_byte = first_byte
        self._sent = sent
        self._unreadable = unreadable

    async def answer(self, request: Request) -> Response:
        """The answer. Raises Unauthorised, Forbidden, PxedError or MsgspecError."""
        key, slash, part = request.path.removeprefix(_IMAGE).partition("/")
        if (slash and part not in _PARTS) or not _KEY.fullmatch(key):
            return error(404, f"{request.path} is no part of an image")
        if request.method == "POST" and part != "data":
            return error(405, "this is only read here", (("Allow", "GET, HEAD"),))
        if not slash:
            return await self._facts(request, key)
        run = allow_image(request, key, self._transactions, self.public)
        # The library reads its index and the manifest from disk: not on the event loop.
        if part == "data":
            if run:
                self._first_byte(run)
            body = await self._data(request, key)
        elif part == "layout":
            body = BytesBody(await asyncio.to_thread(self._library.layout, key))
        else:
            fd = await asyncio.to_thread(self._library.open_manifest, key)
            found = os.fstat(fd)
            body = FileBody(fd, found.st_size, found.st_mtime_ns)
        return Response(
            200,
            body,
            headers=_NO_STORE,
            ranges=request.method != "POST",
            sent=self._sent,
            unreadable=lambda trouble: self._unreadable(request, trouble),
        )

    async def _facts(self, request: Request, key: str) -> Response:
        run = bearer(request, needed=not self.public)
        image = await asyncio.to_thread(self._library.get, key)
        if run and not self.public and self._transactions.image_for_run(run) != image.id:
            raise Forbidden("this run is not known, its job has ended, or it is about another image")
        facts = ImageFacts(
            id=image.id,
            name=image.name,
            size=image.size,
            sector=image.sector,
            stored_chunks=image.stored_chunks,
            data_size=image.data_size,
        )
        return Response.json(200, facts)

    async def _data(self, request: Request, image: str) -> Body:
        ranges = msgspec.json.decode(request.body, type=Ranges).ranges if request.method == "POST" else None
        data = await asyncio.to_thread(self._library.open_data, image)
        if ranges is None:
            return data
        try:
            return RangesBody(data, ranges)
        except PeerError:
            data.close()
            raise


class RangesBody:
    """Ranges of an image's data, one after the other, as a body. Raises PeerError when they are not as they must be."""

    def __init__(self, data: ImageData, ranges: tuple[tuple[int, int], ...]) -> None:
        at, total = 0, 0
        for start, stop in ranges:
            if not at <= start < stop <= data.size:
                raise PeerError(f"the range {start} to {stop} is empty, out of order, or beyond {data.size}")
            at = stop
            total += stop - start
        if total > MOST_RANGE_BYTES:
            raise PeerError(f"{total} bytes are asked for at once; at most {MOST_RANGE_BYTES} may be")
        self._data = data
        self._ranges = ranges
        self._size = total

    @property
    def size(self) -> int:
        """Bytes of all ranges."""
        return self._size

    def segments(self, start: int, stop: int) -> list[Segment]:
        """All of it: a POST has no Range. Raises GoneError and OperatorError as ImageData does."""
        assert (start, stop) == (0, self._size)
        return [segment for one in self._ranges for segment in self._data.segments(*one)]

    def intact(self) -> bool:
        """As the data is."""
        return self._data.intact()

    def close(self) -> None:
        """Close the data."""
        self._data.close()


def allow_image(request: Request, image: str, transactions: Transactions, public: bool) -> str:
    """The run that asks for this image (id), "" for anybody where images are public. Raises Unauthorised, Forbidden."""
    run = bearer(request, needed=not public)
    if not run:
        return ""
    allowed = transactions.image_for_run(run)
    if allowed is None:
        raise Forbidden("this run is not known, or its job has ended")
    if allowed != image:
        raise Forbidden("this run's job is about another image")
    return run


def bearer(request: Request, *, needed: bool = True) -> str:
    """The run of an Authorization header (RFC 6750 2.1); "" without one unless it is `needed`. Raises Unauthorised."""
    if not needed and "authorization" not in request.headers:
        return ""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorised("an Authorization header with the run's bearer token is needed")
    return token.strip()


def error(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """The JSON error that agents understand."""
    return Response(status, BytesBody(msgspec.json.encode({"error": text})), "application/json", headers)
