"""The restore: fetch, prove, write; the seal last.

Frames come from two transports, mixed at will: each fetching thread has its own HTTP connection and takes the next
batch of what is wanted, and each opening thread takes frames that a multicast session's receiver has whole. Either
way a frame is decompressed and proved (zstd and BLAKE3 run without the GIL) and written at its place, in any order.
So all cores work, the network is kept busy by the other threads, and memory is bounded. Zero runs are laid down by a
thread of their own: they cost the network nothing. What an interrupted restore of the same image has left on the disk
is proved by reading it, and not fetched again.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

from pxed.agent.board import BATCH, Batch, Board, State
from pxed.agent.cast import Cast, Group
from pxed.agent.failure import AgentFailure, Stopped
from pxed.agent.fetcher import Fetcher
from pxed.agent.plan import Piece, Plan
from pxed.agent.progress import Tally, gigabytes
from pxed.agent.resume import RECORD_BEGIN, RECORD_END, SHORTEST, Record
from pxed.agent.source import Source
from pxed.agent.target import ALIGNMENT, Target, aligned_buffer
from pxed.images.chunk import CHUNK, ChunkError, Decompressor, digest_of
from pxed.types import Step

__all__ = ["Figures", "Restore", "check_seal", "unseal", "write_seal"]

CAST_TRIES = 2  # a chunk that the session brings wrong so often comes from HTTP
WORKERS = 8  # of a kind at most; more connections than this gain nothing on a 10 Gbit/s link
EARLY_SEAL = 64 << 10  # stored bytes of a seal that is worth fetching by HTTP before a session is joined: most are less


def worker_count() -> int:
    """One more than the cores, so that the network works while they do."""
    return max(2, min(WORKERS, (os.cpu_count() or 1) + 1))


class Figures:
    """What came from where, in stored bytes of proved chunks, and how often it was wrong."""

    def __init__(self) -> None:
        self.http = self.cast = 0
        self.resumed = 0  # chunks that were on the disk
        self.wrong: Counter[int] = Counter()  # frames of the session that were not what their name says, by ordinal
        self._lock = threading.Lock()

    @property
    def fetched(self) -> int:
        """Stored bytes that came over the network and were proved."""
        return self.http + self.cast

    def proved(self) -> None:
        """A chunk was on the disk already."""
        with self._lock:
            self.resumed += 1

    def came(self, stored: int, *, by_cast: bool) -> None:
        """A chunk was proved."""
        with self._lock:
            if by_cast:
                self.cast += stored
            else:
                self.http += stored


class Restore:
    """One image onto one target."""

    def __init__(self, plan: Plan, target: Target, tally: Tally, source: Source, cast: Cast | None = None) -> None:
        """`cast`: how to take part in a session; None: all by HTTP."""
        self._plan, self._target, self._tally, self._source, self._cast = plan, target, tally, source, cast
        self.figures = Figures()
        self._board = Board(plan.count)
        self._record = Record(target, source.image, plan.count)
        self._seal: dict[int, bytes] = {}
        self._claims: SimpleQueue[int] = SimpleQueue()
        self._group: Group | None = None
        self._failures: list[BaseException] = []

    def run(self) -> list[tuple[Piece, bytes]]:
        """Everything, the seal last; returns the seal, for reading it back. Raises the first failure, or Stopped."""
        plan, target, tally = self._plan, self._target, self._tally
        claimed = self._record.load() if self._record.possible else []
        joined = self._cast is not None and plan.count > 0 and self._cast.join()
        # A seal that is fetched first is found to be damaged before the old one is gone.
        seal = [plan.piece(ordinal) for ordinal in plan.seal]
        if not joined or sum(piece.stored for piece in seal) <= EARLY_SEAL:
            with self._source.fetcher() as fetcher:
                for piece in seal:
                    for _, data in fetcher.chunks([piece]):
                        self._keep(piece, data, by_cast=False)
        self._source.prepared()
        tally.check()  # the last moment at which a job that was cancelled leaves the disk as it is
        unseal(target, keep_record=bool(claimed))
        if claimed:
            tally.message(
                f"An earlier restore was interrupted: {len(claimed)} of {plan.count} chunks may be on the disk; "
                "they are proved."
            )
            for ordinal in self._board.claim(claimed):
                self._claims.put(ordinal)
        if joined and self._cast:
            have = self._board.bitmap(State.WORK, State.KEPT)
            self._group = self._cast.begin(plan.lengths, have, self._board)
        else:
            self._board.use_http(True)
        self._lay_down(bool(claimed))
        target.flush()
        tally.check()
        done = [(piece, self._seal[piece.ordinal]) for piece in seal]
        write_seal(done, plan.empty_head, target, tally)
        return done

    @property
    def transport(self) -> tuple[str, str]:
        """What brings the image now ("cast", "http", "waiting" for the group), and why it is not multicast."""
        if self._group:
            return self._group.transport, self._group.reason
        return ("http", "") if self._board.http else ("waiting", "")

    def counters(self) -> dict[str, int]:
        """Of the multicast receiver; empty when there is none."""
        return self._group.receiver.figures() if self._group else {}

    def account(self) -> str:
        """A sentence about what came from where."""
        figures = self.figures
        text = f"{gigabytes(figures.fetched)} over the network"
        if figures.cast:
            text += f", {gigabytes(figures.cast)} of it by multicast{self._group.account() if self._group else ''}"
        if figures.resumed:
            text += f"; {figures.resumed} of {self._plan.count} chunks were on the disk already"
        if figures.wrong:
            text += f"; {figures.wrong.total()} frames came damaged"
        return text + "."

    # -- threads -----------------------------------------------------------------------------------------------------

    def _lay_down(self, prove: bool) -> None:
        """Zero runs and all chunks, by several threads. Raises the first failure among them, or Stopped."""
        count = min(worker_count(), max(1, self._plan.count))
        works: list[Callable[[], None]] = [self._zero, self._note]
        works += [self._fetch] * count
        if prove:
            works += [self._prove] * count
        if self._group:
            works += [self._open_frames] * count + [self._group.run]
        threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._group:
            self._group.end()
        if self._failures:
            with suppress(AgentFailure):  # a disk that fails may not take it: what failed first is what is told
                self._save(now=True)  # another try goes on from here
            # A real failure says more than the Stopped of a thread that was told to end.
            raise next((error for error in self._failures if not isinstance(error, Stopped)), self._failures[0])

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failures.append(error)
            self._board.end()

    def _zero(self) -> None:
        for offset, length in self._plan.zeros:
            if self._failures:
                return
            self._tally.check()
            self._target.zero(offset, length)
            self._tally.add(length)

    def _note(self) -> None:
        """Keep the record; and see that the job was stopped when everybody else waits."""
        while not self._board.wait(SHORTEST):
            self._tally.check()
            self._save(now=False)

    def _save(self, *, now: bool) -> None:
        if self._record.possible:
            self._record.save(lambda group: self._board.bitmap(State.DONE, group=group), now=now)

    def _prove(self) -> None:
        raw = aligned_buffer(CHUNK)
        while not self._board.over:
            try:
                piece = self._plan.piece(self._claims.get_nowait())
            except Empty:
                return
            self._tally.check()
            data = raw[: piece.length]
            if self._holds(piece, data):
                self._board.finish(piece.ordinal)
                self._tally.add(piece.length)
                self.figures.proved()
            else:
                self._want_again(piece)

    def _holds(self, piece: Piece, into: memoryview) -> bool:
        try:
            self._target.read(piece.offset, into)
        except AgentFailure:
            return False  # what cannot be read can often be written
        return digest_of(into) == piece.digest

    def _fetch(self) -> None:
        raw: memoryview | None = None
        with self._source.fetcher() as fetcher:
            while (batch := self._board.next_batch(self._lacking)) is not None:
                raw = raw or aligned_buffer(BATCH * CHUNK)
                if batch.whole:
                    pieces = [self._plan.piece(ordinal) for ordinal in batch.whole]
                    if self._group:
                        self._group.receiver.hold(batch.whole)
                    self._write_batch(fetcher.chunks(pieces), raw)
                if batch.parts:
                    self._fetch_parts(fetcher, batch)

    def _lacking(self, ordinal: int) -> list[tuple[int, int]] | None:
        if not self._group:
            return None
        receiver = self._group.receiver
        found = receiver.missing(ordinal)
        if found == [(0, self._plan.lengths[ordinal])]:
            return None
        return [] if receiver.full else found

    def _fetch_parts(self, fetcher: Fetcher, batch: Batch) -> None:
        assert self._group is not None
        receiver = self._group.receiver
        ordinals = [ordinal for ordinal, _ in batch.parts]
        receiver.hold(ordinals)
        wanted = []
        for ordinal, ranges in batch.parts:
            at = self._plan.piece(ordinal).stored_at
            wanted += [(at + start, at + stop) for start, stop in ranges]
        data, at = fetcher.ranges(wanted), 0
        for ordinal, ranges in batch.parts:
            for start, stop in ranges:
                receiver.give(ordinal, start, data[at : at + stop - start])
                at += stop - start
        receiver.release(ordinals)
        self._board.parts_came(ordinals)

    def _open_frames(self) -> None:
        assert self._group is not None
        receiver, raw, zstd = self._group.receiver, aligned_buffer(CHUNK), Decompressor()
        while not self._board.over:
            if not (item := receiver.take(0.25)):
                continue
            ordinal, frame = item
            if not self._board.take(ordinal):
                continue
            self._tally.check()
            piece = self._plan.piece(ordinal)
            try:
                data = zstd.decompress(memoryview(frame), piece.length, piece.digest)
            except ChunkError:
                # The session gets another try, then HTTP, which names what stays damaged.
                self.figures.wrong[ordinal] += 1
                self._want_again(piece, by_http=self.figures.wrong[ordinal] >= CAST_TRIES)
                continue
            self._write_batch([(piece, data)], raw, by_cast=True)

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _want_again(self, piece: Piece, *, by_http: bool = False) -> None:
        # The group may bring it at once when the receiver wants it, and the board drops what it does not know as
        # wanted: first the board. But what HTTP has brought must not be wanted by the receiver after that.
        if not by_http:
            self._board.again(piece.ordinal)
        if self._group:
            self._group.receiver.done(piece.ordinal, False)
        if by_http:
            self._board.again(piece.ordinal, by_http=True)

    def _write_batch(self, chunks: Iterable[tuple[Piece, bytes]], raw: memoryview, *, by_cast: bool = False) -> None:
        """Gather chunks that lie together on the disk, and write each run of them at once."""
        run: list[Piece] = []
        start = filled = 0
        for piece, data in chunks:
            if piece.ordinal in self._plan.seal:
                self._keep(piece, data, by_cast=by_cast)
                continue
            if run and piece.offset != start + filled:
                self._write(run, start, raw[:filled], by_cast)
                run, filled = [], 0
            if not run:
                start = piece.offset
            run.append(piece)
            raw[filled : filled + len(data)] = data
            filled += len(data)
        if run:
            self._write(run, start, raw[:filled], by_cast)

    def _write(self, run: list[Piece], start: int, data: memoryview, by_cast: bool) -> None:
        self._target.write(start, data)
        for piece in run:
            self._finish(piece, by_cast=by_cast)
        self._tally.add(len(data))

    def _keep(self, piece: Piece, data: bytes, *, by_cast: bool) -> None:
        self._seal[piece.ordinal] = data
        self._finish(piece, by_cast=by_cast, kept=True)

    def _finish(self, piece: Piece, *, by_cast: bool, kept: bool = False) -> None:
        if self._group:
            self._group.receiver.done(piece.ordinal, True)
        self.figures.came(piece.stored, by_cast=by_cast)
        self._board.finish(piece.ordinal, kept=kept)


def unseal(target: Target, *, keep_record: bool = False) -> None:
    """Empty both ends of the disk: no boot sector, no partition table, primary or backup, until the seal is written."""
    edge = min(CHUNK, target.size)
    if keep_record:
        target.zero(0, RECORD_BEGIN)
        target.zero(RECORD_END, CHUNK - RECORD_END)
    else:
        target.zero(0, edge)
    target.zero(target.size - edge, edge)
    target.flush()


def write_seal(seal: list[tuple[Piece, bytes]], empty_head: int, target: Target, tally: Tally) -> None:
    """The seal, from the disk's end to its beginning, and its first block (boot sector, GPT header) last of all.

    Each part is flushed before the next: a power cut at any moment leaves a disk that does not boot, or a whole one.
    `empty_head`: bytes of the disk's first chunk where that is zero in the image; the record stood there.
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
        tally.add(len(data))
    if empty_head:
        target.zero(0, empty_head)
        target.flush()
        tally.add(empty_head)


def check_seal(seal: list[tuple[Piece, bytes]], target: Target) -> None:
    """Read the seal back from the disk. Raises AgentFailure when the disk gives other bytes than were written."""
    buffer = aligned_buffer(CHUNK)
    for piece, data in seal:
        target.read(piece.offset, buffer[: len(data)])
        if buffer[: len(data)] != data:
            raise AgentFailure(
                Step.VERIFY, f"The disk {target.path} does not hold what was written at byte {piece.offset}."
            )
