"""A disk that takes only so many bytes in a second: of the agent in this process, or of who writes into a pipe.

python -m pxed.bench.cast.slow RATE FILE         standard input into a file
"""

import os
import sys
import threading
import time
from pathlib import Path

__all__ = ["Throttle", "drain", "slow_agent"]

_PIECE = 1 << 16


class Throttle:
    """Writers wait as a disk lets them: what one writes delays whoever comes after it, in any thread."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def wait(self, count: int) -> None:
        """Return when `count` bytes would be written."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


def slow_agent(rate: float) -> None:
    """From now on the agent of this process writes to a disk that takes `rate` bytes in a second."""
    from pxed.agent.target import Target

    write, throttle = Target.write, Throttle(rate)

    def slowly(self: Target, offset: int, data: memoryview) -> None:
        throttle.wait(len(data))
        write(self, offset, data)

    Target.write = slowly  # type: ignore[method-assign]


def drain(rate: float, path: Path) -> None:
    """Standard input into a file."""
    throttle = Throttle(rate)
    with path.open("wb") as file:
        while piece := os.read(sys.stdin.fileno(), _PIECE):
            throttle.wait(len(piece))
            file.write(piece)


if __name__ == "__main__":
    drain(float(sys.argv[1]), Path(sys.argv[2]))
