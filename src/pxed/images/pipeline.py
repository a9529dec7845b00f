"""Work on many chunks by several threads, results in order: what import, verify and export have in common.

Threads are enough: zstd, BLAKE3 and reading all release the interpreter lock for a chunk's whole length.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pxed.images.chunk import CHUNK, DEFAULT_LEVEL, Compressor, Decompressor

__all__ = ["Progress", "Tools", "ordered", "thread_count"]

Progress = Callable[[int, int, int], None]
"""Called with (bytes done, bytes in all, bytes stored) as work goes on; always once at its end."""

AHEAD = 8
"""Chunks in flight for each thread: enough that threads go on while the writer syncs, little enough memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Tools(threading.local):
    """One of each for every thread."""

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        self.compressor = Compressor(level)
        self.decompressor = Decompressor()
        self.buffer = bytearray(CHUNK)


def thread_count() -> int:
    """How many threads make sense here: the processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def ordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`function` of every item, in the order of the items, several at a time.

    An exception of one ends the iteration; what has not begun by then is dropped.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pxed-chunks")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= threads * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
