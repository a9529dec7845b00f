"""What the server hears while a job runs."""

import threading

import pytest

from pxed.agent.failure import Stopped
from pxed.agent.progress import LONGEST_SILENCE, Progress
from pxed.agent.server import Connection, Refused, Unreachable
from pxed.types import Report, ReportAnswer, Step


class Wire(Connection):
    """A server's end without a network: `answer` is called for every report."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.down = False
        self.stop = ""
        self.refusal: Refused | None = None
        self.tried = threading.Semaphore(0)

    def close(self) -> None:
        """Nothing is open."""

    def report(self, report: Report) -> ReportAnswer:
        try:
            if self.refusal:
                raise self.refusal
            if self.down:
                raise Unreachable("down")
            self.reports.append(report)
            return ReportAnswer(self.stop)
        finally:
            self.tried.release()


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def wire() -> Wire:
    return Wire()


def make(wire: Wire, clock: Clock | None = None) -> Progress:
    progress = Progress(wire, 0.001, clock or Clock(), lambda text: None)
    progress.start()
    return progress


def test_every_message_arrives_once_in_order_with_its_step_also_through_an_outage(wire: Wire) -> None:
    wire.down = True
    progress = make(wire)
    progress.message("one")
    progress.begin(Step.RESTORE)
    progress.message("two")
    for _ in range(3):
        assert wire.tried.acquire(timeout=30)
    progress.begin(Step.VERIFY)
    progress.message("three")
    wire.down = False
    progress.end()
    said = [(report.step, report.message) for report in wire.reports if report.message]
    assert said == [(Step.TARGET, "one"), (Step.RESTORE, "two"), (Step.VERIFY, "three")]


def test_figures_and_rate(wire: Wire) -> None:
    clock = Clock()
    progress = Progress(wire, 1.0, clock, lambda text: None)
    progress.begin(Step.RESTORE)
    progress.expect(1000)
    assert progress.snapshot().rate == 0
    for second in range(1, 11):
        clock.time = float(second)
        progress.add(10 if second <= 5 else 50)
        report = progress.snapshot()
    assert (report.percent, report.done, report.total) == (30.0, 300, 1000)
    assert report.rate == pytest.approx(50, abs=5), "of the last seconds, not of the whole"
    progress.begin(Step.VERIFY)
    assert progress.snapshot().rate == 0


@pytest.mark.parametrize("how", ["stop", "refusal", "silence"])
def test_what_ends_a_job_from_outside(wire: Wire, how: str) -> None:
    clock = Clock()
    progress = make(wire, clock)
    progress.check()
    if how == "stop":
        wire.stop = "cancelled"
    elif how == "refusal":
        wire.refusal = Refused(410, "The job has ended.")
    else:
        wire.down = True
        assert wire.tried.acquire(timeout=30)
        clock.time = LONGEST_SILENCE + 1
    assert progress.stopped.wait(30)
    assert progress.wait(0)
    with pytest.raises(Stopped, match={"stop": "cancelled", "refusal": "job has ended", "silence": "an hour"}[how]):
        progress.check()
    progress.end()
