"""`pxed job watch`: jobs as they go, from the server's live stream.

Three ways to show the same changes: bars on a terminal, one line per step in a pipe, JSON lines for programs.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click
import msgspec

from pxed.api.control import Change
from pxed.cli.client import Client
from pxed.cli.output import clock, is_terminal, json_text, rate
from pxed.errors import OperatorError
from pxed.text import printable
from pxed.types import Event, Job, JobState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ENDED", "follow"]

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

# In a pipe, a running step is worth a new line each so many percent.
PLAIN_PERCENT = 10.0


def follow(client: Client, wanted: frozenset[int], labels: dict[int, str], *, as_json: bool) -> bool:
    """Show the jobs `wanted` (none: all unfinished ones) until they have ended. True when all of them succeeded."""
    with closing(client.stream("/events", Change)) as changes:
        next(changes, None)  # from here on no change is missed, so what is asked now is only ever overtaken
        if wanted:
            jobs = {job_id: client.get(f"/jobs/{job_id}", Job) for job_id in sorted(wanted)}
        else:
            jobs = {job.id: job for job in client.get("/jobs", list[Job]) if job.state not in ENDED}
        with _view(labels, as_json) as view:
            _show(changes, jobs, view)
    return all(job.state == JobState.SUCCEEDED for job in jobs.values())


def _show(changes: Iterator[Change], jobs: dict[int, Job], view: "_View") -> None:
    """Until all `jobs` have ended; keeps them current."""
    for job in jobs.values():
        view.job(job)
    while not all(job.state in ENDED for job in jobs.values()):
        change = next(changes, None)
        if change is None:
            raise OperatorError("The server ended before the jobs did; they go on when it is started again.")
        if change.event is not None and change.event.job_id in jobs:
            view.event(change.event)
        if change.job is not None and change.job.id in jobs and change.job.changed >= jobs[change.job.id].changed:
            jobs[change.job.id] = change.job
            view.job(change.job)


class _View:
    """Shows changes; one of the three ways."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @abstractmethod
    def job(self, job: Job) -> None:
        """A job's state now."""

    @abstractmethod
    def event(self, event: Event) -> None:
        """A line of its timeline."""


class _JsonView(_View):
    def job(self, job: Job) -> None:
        click.echo(json_text(msgspec.json.encode(Change(job=job))))

    def event(self, event: Event) -> None:
        click.echo(json_text(msgspec.json.encode(Change(event=event))))


class _PlainView(_View):
    """A line when the state or the step changes, and at each tenth of a step."""

    def __init__(self, labels: dict[int, str]) -> None:
        self._labels = labels
        self._said: dict[int, tuple[str, str, int]] = {}

    def job(self, job: Job) -> None:
        now = (job.state, job.step, int(job.percent // PLAIN_PERCENT))
        if self._said.get(job.id) == now:
            return
        self._said[job.id] = now
        _print_line(job.changed, _label(self._labels, job), _words(job))

    def event(self, event: Event) -> None:
        _print_line(event.time, self._labels.get(event.machine_id or 0, event.mac), event.text)


class _BarView(_View):
    """A bar per job; the timeline scrolls by above them."""

    def __init__(self, labels: dict[int, str]) -> None:
        from rich import progress

        self._labels = labels
        self._tasks: dict[int, TaskID] = {}
        self._bars: Progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[words]}", markup=False),
            progress.TimeElapsedColumn(),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def job(self, job: Job) -> None:
        if job.id not in self._tasks:
            title = printable(f"{job.id} {_label(self._labels, job)}")
            self._tasks[job.id] = self._bars.add_task(title, total=100.0, words="")
        done = 100.0 if job.state == JobState.SUCCEEDED else job.percent
        self._bars.update(self._tasks[job.id], completed=done, words=printable(_words(job)))
        if job.state in ENDED:
            self._bars.stop_task(self._tasks[job.id])

    def event(self, event: Event) -> None:
        from rich.text import Text

        label = self._labels.get(event.machine_id or 0, event.mac)
        self._bars.console.print(Text(printable(f"{clock(event.time)}  {label}  {event.text}")))


def _view(labels: dict[int, str], as_json: bool) -> _View:
    if as_json:
        return _JsonView()
    return _BarView(labels) if is_terminal() else _PlainView(labels)


def _label(labels: dict[int, str], job: Job) -> str:
    return labels.get(job.machine_id, f"machine {job.machine_id}")


def _words(job: Job) -> str:
    """'running restore 42% 118.0 MiB/s', 'failed at verify: …'."""
    if job.state == JobState.RUNNING:
        return _joined(("running", job.step, f"{job.percent:.0f}%" if job.percent else "", rate(job.rate)))
    if job.reason:
        return f"{job.state}{f' at {job.step}' if job.state == JobState.FAILED and job.step else ''}: {job.reason}"
    return job.state


def _joined(words: Iterable[str]) -> str:
    return " ".join(word for word in words if word)


def _print_line(moment: float, label: str, text: str) -> None:
    click.echo("\t".join(printable(word) for word in (clock(moment), label, text)))
