"""How far the job is, told to the server every second from a thread of its own.

A thread, because the job must be seen to live while a disk takes half a minute for one flush.
"""

import threading
from collections import deque
from collections.abc import Callable

from pxed.agent.failure import Stopped
from pxed.agent.server import Connection, Refused, Unreachable
from pxed.types import Report, Step

__all__ = ["Progress", "Tally", "gigabytes"]

RATE_WINDOW = 5.0  # seconds over which the rate is an average
LONGEST_SILENCE = 3600.0  # seconds without a word from the server after which the machine is freed for another try


class Tally:
    """Counts what is done, and stops those who do it. Any thread may call it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.stop_reason = ""
        self.stopped = threading.Event()  # whoever ends the work stops everything that waits on it
        self.step = Step.TARGET
        self.done = self.total = 0  # bytes of disk
        self._say = say
        self._lock = threading.Lock()

    def begin(self, step: Step) -> None:
        """A step begins."""
        self.step = step

    def message(self, text: str) -> None:
        """A sentence for whoever watches."""
        self._say(text)

    def expect(self, total: int) -> None:
        """Bytes of disk that there are to lay down."""
        self.total = total

    def add(self, count: int) -> None:
        """Bytes of disk laid down."""
        with self._lock:
            self.done += count

    def check(self) -> None:
        """Raise Stopped when the work was taken away."""
        if self.stopped.is_set():
            raise Stopped(self.stop_reason)

    def stop(self, reason: str) -> None:
        """End everything that works on it."""
        self.stop_reason = self.stop_reason or reason
        self.stopped.set()

    def wait(self, seconds: float) -> bool:
        """Wait; True when the work was stopped meanwhile."""
        return self.stopped.wait(seconds)


class Progress(Tally):
    """Reports what it counts to the server."""

    def __init__(
        self, connection: Connection, every: float, now: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        super().__init__(say)
        self._connection, self._every, self._now = connection, every, now
        self._messages: deque[tuple[Step, str]] = deque()
        self._samples: deque[tuple[float, int]] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def end(self) -> None:
        """Report what is left to be said, once more, and stop."""
        self._ending = True
        self._wake.set()
        self._thread.join()
        self._connection.close()

    def message(self, text: str) -> None:
        """A sentence for the timeline and the machine's console."""
        super().message(text)
        with self._lock:
            self._messages.append((self.step, text))
        self._wake.set()

    def snapshot(self, message: str = "", step: Step | None = None) -> Report:
        """The figures of this moment."""
        with self._lock:
            now, done = self._now(), self.done
            self._samples.append((now, done))
            while now - self._samples[0][0] > RATE_WINDOW and len(self._samples) > 2:
                self._samples.popleft()
            began, before = self._samples[0]
            moving = self.step == Step.RESTORE and now > began
            rate = (done - before) / (now - began) if moving else 0.0
            percent = 100.0 * done / self.total if self.total else 0.0
        return Report(step or self.step, round(percent, 1), done, self.total, round(rate), message)

    def _run(self) -> None:
        heard = self._now()
        while not self.stopped.is_set():
            ending = self._ending  # read before the report: what is counted later is said by `finish`
            try:
                self._report_all()
                heard = self._now()
            except Unreachable:
                if self._now() - heard > LONGEST_SILENCE:
                    self.stop("The server has not answered for an hour.")
            except Refused as refusal:
                self.stop(f"The server does not know this job any more: {refusal}")
            if ending and not self._messages:
                return
            self._wake.wait(self._every)
            self._wake.clear()

    def _report_all(self) -> None:
        """Send every waiting message in order, or plain figures; a message is gone only once it was taken."""
        while True:
            with self._lock:
                step, text = self._messages[0] if self._messages else (self.step, "")
            answer = self._connection.report(self.snapshot(text, step))
            if answer.stop:
                self.stop(answer.stop)
            if not text:
                return
            with self._lock:
                self._messages.popleft()
                if not self._messages:
                    return


def gigabytes(count: int) -> str:
    """Bytes as an operator reads them: '1.5 GB', '20.0 MB'."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
