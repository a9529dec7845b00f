"""Chunks by HTTP: one request for several frames, each proved; what stays damaged is named."""

from collections.abc import Callable, Iterator, Sequence

from pxed.agent.board import BATCH
from pxed.agent.failure import AgentFailure
from pxed.agent.plan import Piece, stretches
from pxed.agent.progress import Tally
from pxed.agent.server import Connection, Patience, Refused
from pxed.images.chunk import MAX_STORED, ChunkError, Decompressor
from pxed.types import Step

__all__ = ["CHUNK_TRIES", "Fetcher"]

CHUNK_TRIES = 3  # a chunk that arrives damaged may have been damaged on the way; thrice the same is the store's fault


class Fetcher:
    """Gets chunks of one image, proved. One for each thread."""

    def __init__(self, connection: Connection, image: str, progress: Tally, patience: Patience) -> None:
        self._connection, self._name = connection, f"pxed/image/{image}/data"
        self._progress, self._patience = progress, patience
        self._zstd = Decompressor()
        self._buffer: memoryview | None = None

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def chunks(self, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, bytes]]:
        """At most BATCH chunks, ascending. Raises AgentFailure naming a chunk that stays damaged, Stopped."""
        wanted = stretches(pieces)
        frames, at = self.ranges(wanted), 0
        for piece in pieces:
            self._progress.check()
            frame = frames[at : at + piece.stored]
            at += piece.stored
            try:
                yield piece, self._zstd.decompress(frame, piece.length, piece.digest)
            except ChunkError as error:
                raw = self._again(piece, error)
                frames = self.ranges(wanted)  # the buffer was used for the single chunk
                yield piece, raw

    def ranges(self, wanted: Sequence[tuple[int, int]]) -> memoryview:
        """The bytes of stretches [start, stop) of the image's data, until the next call; together at most BATCH frames.

        Raises AgentFailure when the server refuses, Unreachable when patience has ended, Stopped.
        """
        if self._buffer is None:
            self._buffer = memoryview(bytearray(BATCH * MAX_STORED))
        into = self._buffer[: sum(stop - start for start, stop in wanted)]
        ask: Callable[[], None]
        if len(wanted) == 1:
            start = wanted[0][0]

            def ask() -> None:
                self._connection.fetch_range(self._name, start, into)
        else:

            def ask() -> None:
                self._connection.fetch_ranges(self._name, wanted, into)

        try:
            self._patience.call(ask)
        except Refused as refusal:
            raise AgentFailure(Step.RESTORE, f"The server refuses the image's data: {refusal}") from refusal
        return into

    def _again(self, piece: Piece, first: ChunkError) -> bytes:
        error = first
        for _ in range(CHUNK_TRIES - 1):
            frame = self.ranges([(piece.stored_at, piece.stored_at + piece.stored)])
            try:
                return self._zstd.decompress(frame, piece.length, piece.digest)
            except ChunkError as again:
                error = again
        raise AgentFailure(
            Step.RESTORE,
            f"Chunk {piece.index} of the image (disk offset {piece.offset}) is damaged on the server: {error}. "
            "It was not written.",
        ) from error
