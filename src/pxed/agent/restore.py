"""The restore: fetch, prove, write; the seal last.

Each worker thread has its own connection and takes the next batch of the plan: one range request, then for each frame
decompression and proof (zstd and BLAKE3 run without the GIL), then one write for what lies together on the disk. So
all cores work, the network is kept busy by the other threads, and memory is bounded by workers times a batch. Zero
runs are laid down by a thread of their own: they cost the network nothing.
"""

import os
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from pxed.agent.failure import AgentFailure, Stopped
from pxed.agent.plan import BATCH, Batch, Piece, Plan
from pxed.agent.progress import Progress
from pxed.agent.server import Connection, Patience, Refused
from pxed.agent.target import ALIGNMENT, Target, aligned_buffer
from pxed.images.chunk import CHUNK, MAX_STORED, ChunkError, Decompressor
from pxed.types import Step

__all__ = ["Fetcher", "lay_down", "unseal", "write_seal"]

CHUNK_TRIES = 3  # a chunk that arrives damaged may have been damaged on the way; thrice the same is the store's fault
WORKERS = 8  # at most; more connections than this gain nothing on a 10 Gbit/s link


def worker_count() -> int:
    """One more than the cores, so that the network works while they do."""
    return max(2, min(WORKERS, (os.cpu_count() or 1) + 1))


class Fetcher:
    """Gets chunks of one image, proved. One for each thread."""

    def __init__(self, connection: Connection, image: str, progress: Progress, patience: Patience) -> None:
        self._connection, self._name = connection, f"pxed/image/{image}/data"
        self._progress, self._patience = progress, patience
        self._zstd = Decompressor()
        self._frames = memoryview(bytearray(BATCH * MAX_STORED))

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def chunks(self, batch: Batch) -> Iterator[tuple[Piece, bytes]]:
        """Every chunk of a batch in order. Raises AgentFailure naming a chunk that stays damaged, Stopped."""
        frames = self._get(batch.start, batch.stored)
        for piece in batch.pieces:
            self._progress.check()
            begin = piece.stored_at - batch.start
            try:
                yield piece, self._zstd.decompress(frames[begin : begin + piece.stored], piece.length, piece.digest)
            except ChunkError as error:
                raw = self._again(piece, error)
                frames = self._get(batch.start, batch.stored)  # the buffer was used for the single chunk
                yield piece, raw

    def _get(self, start: int, length: int) -> memoryview:
        into = self._frames[:length]
        try:
            self._patience.call(lambda: self._connection.fetch_range(self._name, start, into))
        except Refused as refusal:
            raise AgentFailure(Step.RESTORE, f"The server refuses the image's data: {refusal}") from refusal
        return into

    def _again(self, piece: Piece, first: ChunkError) -> bytes:
        error = first
        for _ in range(CHUNK_TRIES - 1):
            frame = self._get(piece.stored_at, piece.stored)
            try:
                return self._zstd.decompress(frame, piece.length, piece.digest)
            except ChunkError as again:
                error = again
        raise AgentFailure(
            Step.RESTORE,
            f"Chunk {piece.index} of the image (disk offset {piece.offset}) is damaged on the server: {error}. "
            "It was not written.",
        ) from error


def unseal(target: Target) -> None:
    """Empty both ends of the disk: no boot sector, no partition table, primary or backup, until the seal is written."""
    edge = min(CHUNK, target.size)
    target.zero(0, edge)
    target.zero(target.size - edge, edge)
    target.flush()


def lay_down(plan: Plan, target: Target, progress: Progress, make_fetcher: Callable[[], Fetcher]) -> None:
    """Zero runs and all chunks but the seal, by several threads. Raises the first failure among them, or Stopped."""
    batches: SimpleQueue[Batch] = SimpleQueue()
    for batch in plan.batches:
        batches.put(batch)
    failures: list[BaseException] = []
    ended = threading.Event()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                ended.set()

        return run

    def fetch() -> None:
        raw = aligned_buffer(BATCH * CHUNK)
        with make_fetcher() as fetcher:
            while not ended.is_set():
                try:
                    batch = batches.get_nowait()
                except Empty:
                    return
                _write_batch(fetcher.chunks(batch), target, raw, progress)

    def zero() -> None:
        for offset, length in plan.zeros:
            if ended.is_set():
                return
            progress.check()
            target.zero(offset, length)
            progress.add(length)

    works = [zero, *[fetch] * min(worker_count(), len(plan.batches))]
    threads = [threading.Thread(target=guarded(work), name=work.__name__, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        # A real failure says more than the Stopped of a thread that was told to end.
        raise next((error for error in failures if not isinstance(error, Stopped)), failures[0])


def _write_batch(chunks: Iterator[tuple[Piece, bytes]], target: Target, raw: memoryview, progress: Progress) -> None:
    """Gather chunks that lie together on the disk, and write each run of them at once."""
    start = filled = 0
    for piece, data in chunks:
        if filled and piece.offset != start + filled:
            target.write(start, raw[:filled])
            progress.add(filled)
            filled = 0
        if not filled:
            start = piece.offset
        raw[filled : filled + len(data)] = data
        filled += len(data)
    if filled:
        target.write(start, raw[:filled])
        progress.add(filled)


def write_seal(seal: list[tuple[Piece, bytes]], target: Target, progress: Progress) -> None:
    """The seal, from the disk's end to its beginning, and its first block (boot sector, GPT header) last of all.

    Each part is flushed before the next: a power cut at any moment leaves a disk that does not boot, or a whole one.
    """
    buffer = aligned_buffer(CHUNK)
    for piece, data in sorted(seal, key=lambda item: item[0].offset, reverse=True):
        buffer[: len(data)] = data
        if piece.index == 0:
            head = min(ALIGNMENT, len(data))
            if len(data) > head:
                target.write(head, buffer[head : len(data)])
                target.flush()
            target.write(0, buffer[:head])
        else:
            target.write(piece.offset, buffer[: len(data)])
        target.flush()
        progress.add(len(data))


def check_seal(seal: list[tuple[Piece, bytes]], target: Target) -> None:
    """Read the seal back from the disk. Raises AgentFailure when the disk gives other bytes than were written."""
    buffer = aligned_buffer(CHUNK)
    for piece, data in seal:
        target.read(piece.offset, buffer[: len(data)])
        if buffer[: len(data)] != data:
            raise AgentFailure(
                Step.VERIFY, f"The disk {target.path} does not hold what was written at byte {piece.offset}."
            )
