"""Memory and disk in step: the registry, the timeline and the store behind `pxed.service.transactions`.

A change takes one of two ways. `take`: memory first, disk in the background (what the boot path decides). `commit`,
inside a `command`: disk first, then memory (what an agent or an operator is answered). Commands on the same job run
one after the other, and plain methods leave such a job alone meanwhile: a commit never overwrites what it did not see.
"""

import asyncio
import math
from collections.abc import Callable, Container, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace

from pxed.errors import OperatorError, PxedError
from pxed.service.live import Hub
from pxed.store import Batch, Store, Writer
from pxed.types import Event, Identity, Job, Machine
from pxed.work.identity import mac_text, plain_text
from pxed.work.jobs import JobRecord
from pxed.work.machines import Change
from pxed.work.registry import MAX_TEXT, Registry
from pxed.work.timeline import Line, Timeline

__all__ = ["Ledger"]

T = TypeVar("T")

log = structlog.get_logger("pxed.work")

# Seconds between two writes of the same job's progress, and of the same machine's last_seen: memory is right, these
# only matter after a restart.
SAVE_PROGRESS = 5.0
SAVE_SEEN = 60.0

# Lines that wait for a database that cannot be written; the oldest go first. About 10 MB.
MAX_UNSAVED_LINES = 20_000


class _Lock(asyncio.Lock):
    """A job's lock, and how many commands hold it or wait for it."""

    users = 0


class Ledger:
    """Made with an open store; `load`, then everything else, then `close`."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry
        self.timeline = Timeline()
        self.hub = Hub()
        self.observers: list[Callable[[Event | Job], None]] = []  # told of every event, merged or not, and job change
        self.writer = Writer(store, self._collect, self._put_back)
        self.version = 0  # grows when the answer of a check may have changed
        self._locks: dict[int, _Lock] = {}  # of jobs with a commit under way or waited for
        self._admin = asyncio.Lock()  # one command about machines at a time
        self._reserved = False  # such a command is being committed: nothing is learned about machines meanwhile
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dirty_machines: set[int] = set()
        self._dirty_jobs: set[int] = set()
        self._removed: set[int] = set()
        self._dirty_lines: dict[int, Line] = {}
        self._recounted: dict[int, Line] = {}  # lines whose counts alone are newer than in the database
        self._recounts_saved = -math.inf
        self._flying_lines: dict[int, Line] = {}  # collected last: not dirty, perhaps not in the database either
        self._progress: dict[int, float] = {}  # job id -> since when its progress is not marked for saving
        self._seen_saved: dict[int, float] = {}

    async def load(self, now: float) -> None:
        """Take over what the database holds, and begin to write. Raises OperatorError."""
        snapshot = await self.store.load()
        self.registry.load(snapshot.machines, snapshot.jobs, now)
        self.registry.reserve(snapshot.counters.get("machine", 1), snapshot.counters.get("job", 1))
        self.timeline.load(snapshot.lines, snapshot.counters["line"])
        try:
            await self.store.prune(now)
        except OperatorError as error:
            log.warning("old timeline lines were not removed", error=str(error))
        self.writer.start()

    async def close(self) -> None:
        """Finish what is under way, save everything, close the database."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        self._dirty_jobs |= self._progress.keys()
        await self.writer.close()
        self.hub.close()
        await self.store.close()

    @property
    def busy(self) -> Container[int]:
        """Ids of jobs that a command is about."""
        return self._locks

    # -- memory first ---------------------------------------------------------------------------------------------

    def take(self, change: Change) -> None:
        """Take a change over now and save it in the background."""
        if not change:
            return
        self._apply(change)
        self._dirty_machines.update(machine.id for machine in change.machines)
        self._dirty_jobs.update(record.id for record in change.jobs)
        self._removed.update(change.removed)
        for event in change.events:
            if event.job_id is None:
                self.note(event)
            else:  # what happens to a job is never merged or left out
                line = self.timeline.line(event)
                self.timeline.insert(line)
                self._unsaved(line)
                self.hub.publish(event)
        self.writer.wake(soon=bool(change.jobs))
        _tell(change)

    def note(self, event: Event) -> bool:
        """A line on a machine's timeline; a repetition is counted in the line that is there, and gives False."""
        line = self.timeline.repeated(event)  # most of a storm, found before any work is done on the text
        if line is not None:
            self._recount(line)
            return False
        machine_id = event.machine_id
        if machine_id is None and event.mac:
            found = self.registry.machines.resolve(Identity(mac=mac_text(event.mac))).machine
            machine_id = found.id if found else None
        event = replace(event, text=plain_text(event.text, MAX_TEXT), machine_id=machine_id)
        self._tell(event)
        line, new = self.timeline.note(event)
        if line is None:
            return False
        if not new:
            self._recount(line)
            return False
        self.hub.publish(line.event)
        if line.event.machine_id is not None:  # the lines of machines that are not recorded stay in memory
            self._unsaved(line)
            self.writer.wake()
        return True

    def _recount(self, line: Line) -> None:
        """A line's count grew: it is saved with the next lines, or when `save_progress` finds it due."""
        if line.event.machine_id is not None:
            self._recounted[line.id] = line
            if len(self._recounted) > MAX_UNSAVED_LINES:
                del self._recounted[next(iter(self._recounted))]

    def learn(self, identity: Identity, now: float, *, known: bool) -> Machine | None:
        """What an identity teaches; nothing while a command about machines is being committed."""
        if self._reserved:
            return self.registry.machines.resolve(identity).machine
        machine, change = self.registry.machines.learn(identity, now, known=known)
        if change.durable or not change.machines:
            self.take(change)
            return machine
        self.registry.apply(change)  # last_seen alone: not worth a write each time
        (seen,) = change.machines
        if not 0 <= now - self._seen_saved.get(seen.id, -SAVE_SEEN) < SAVE_SEEN:
            self._seen_saved[seen.id] = now
            self._dirty_machines.add(seen.id)
            self.writer.wake()
        return machine

    def progress(self, record: JobRecord, change: Change, now: float) -> None:
        """An agent's report: shown at once, saved at the beginning of a step and every few seconds."""
        if record.id in self._locks:  # its end is being committed: progress must not come after it
            return
        self.registry.apply(change)
        for event in change.events:
            self.note(event)
        self.hub.publish(record.job)
        if change.durable:
            self._dirty_jobs.add(record.id)
            self.writer.wake()
        else:
            self._progress.setdefault(record.id, now)

    def save_progress(self, now: float) -> None:
        """Mark the progress that has waited long enough for saving."""
        if self._recounted and not 0 <= now - self._recounts_saved < SAVE_PROGRESS:
            self._recounts_saved = now
            self.writer.wake()
        due = [job_id for job_id, since in self._progress.items() if not 0 <= now - since < SAVE_PROGRESS]
        for job_id in due:
            del self._progress[job_id]
        if due:
            self._dirty_jobs.update(due)
            self.writer.wake()

    # -- disk first -----------------------------------------------------------------------------------------------

    async def command(
        self, job_ids: list[int], run: Callable[[], Coroutine[Any, Any, T]], *, machines: bool = False
    ) -> T:
        """Run a command alone on its jobs (and on the machines). It is finished even when the caller goes away."""
        task = asyncio.get_running_loop().create_task(self._alone(job_ids, run, machines))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has it; a caller that went away does not want it

    async def _alone(self, job_ids: list[int], run: Callable[[], Coroutine[Any, Any, T]], machines: bool) -> T:
        async with AsyncExitStack() as stack:
            stack.callback(self._changed)
            if machines:
                await stack.enter_async_context(self._admin)
                self._reserved = True
                stack.callback(self._unreserve)
            for job_id in sorted(job_ids):
                lock = self._locks.setdefault(job_id, _Lock())
                lock.users += 1
                self._changed()
                stack.callback(self._leave, job_id, lock)
                await stack.enter_async_context(lock)
            return await run()

    def _unreserve(self) -> None:
        self._reserved = False

    def _leave(self, job_id: int, lock: _Lock) -> None:
        lock.users -= 1
        if not lock.users:
            del self._locks[job_id]

    async def commit(self, change: Change) -> None:
        """Save a change with its lines, then take it over. Raises OperatorError, and then nothing changed."""
        if not change:
            return
        lines = [self.timeline.line(event) for event in change.events]
        batch = Batch(
            machines={machine.id: machine for machine in change.machines},
            jobs={record.id: record for record in change.jobs},
            removed=set(change.removed),
            lines={line.id: line for line in lines},
            counters=self._counters(change),
        )
        await self.writer.commit(batch, lambda: self._committed(change, lines))

    def _committed(self, change: Change, lines: list[Line]) -> None:
        self._apply(change)
        for line in lines:
            self.timeline.insert(line)
            self.hub.publish(line.event)
        _tell(change)

    async def history(self, machine_id: int) -> list[Line]:
        """A machine's whole timeline, oldest first: the database's, and what could not be saved so far.

        Raises OperatorError when the database cannot be read.
        """
        with suppress(PxedError):  # what is only in memory goes there first if it can
            await self.writer.commit(Batch(), lambda: None)
        # Before the read: what is saved during it may be missing in what it gives.
        unsaved = [
            line
            for lines in (self._flying_lines, self._dirty_lines)
            for line in lines.values()
            if line.event.machine_id == machine_id
        ]
        found = {line.id: line for line in await self.store.history(machine_id)}
        for line in (*unsaved, *self.timeline.lines(machine_id)):
            if line.id not in found or line.count >= found[line.id].count:  # counts only grow
                found[line.id] = line
        return [found[line_id] for line_id in sorted(found)]

    # -- both -----------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self.version += 1

    def _apply(self, change: Change) -> None:
        self._changed()
        self.registry.apply(change)
        for old, new in change.merged:
            for line in self.timeline.move(old, new):
                self._unsaved(line)
        for machine_id in change.removed:
            self.timeline.forget(machine_id)
            self._seen_saved.pop(machine_id, None)
            for lines in (self._dirty_lines, self._recounted):
                for line_id in [one for one, line in lines.items() if line.event.machine_id == machine_id]:
                    del lines[line_id]
            left = {one: line for one, line in self._flying_lines.items() if line.event.machine_id != machine_id}
            self._flying_lines = left  # a new one: the batch that is being written keeps its own
        for record in change.jobs:
            self._progress.pop(record.id, None)
            self.hub.publish(record.job)
            self._tell(record.job)

    def _tell(self, change: Event | Job) -> None:
        for observer in self.observers:
            observer(change)

    def _unsaved(self, line: Line) -> None:
        self._dirty_lines[line.id] = line
        if len(self._dirty_lines) > MAX_UNSAVED_LINES:
            del self._dirty_lines[next(iter(self._dirty_lines))]

    def _counters(self, change: Change | None = None) -> dict[str, int]:
        machine_id, job_id = self.registry.machines.next_id, self.registry.next_job
        if change is not None:
            machine_id = max(machine_id, *(machine.id + 1 for machine in change.machines), 1)
            job_id = max(job_id, *(record.id + 1 for record in change.jobs), 1)
        return {"machine": machine_id, "job": job_id}

    def _collect(self) -> Batch:
        """What is not saved yet, as it is now."""
        machines = [self.registry.machines.get(one) for one in self._dirty_machines]
        self._dirty_lines = self._recounted | self._dirty_lines
        self._recounted = {}
        batch = Batch(
            machines={machine.id: machine for machine in machines if machine is not None},
            jobs={record.id: record for record in self.registry.some(self._dirty_jobs)},
            removed=self._removed,
            lines={one: Line(line.id, line.event, line.count, line.last) for one, line in self._dirty_lines.items()},
        )
        if batch:
            batch.counters = self._counters()
        self._flying_lines = batch.lines
        self._dirty_machines, self._dirty_jobs, self._removed, self._dirty_lines = set(), set(), set(), {}
        return batch

    def _put_back(self, batch: Batch) -> None:
        """What could not be saved is unsaved again; a machine that was removed meanwhile stays removed."""
        self._dirty_machines.update(batch.machines)
        self._dirty_jobs.update(batch.jobs)
        self._removed |= batch.removed
        older = {one: line for one, line in batch.lines.items() if one not in self._dirty_lines}
        self._dirty_lines = older | self._dirty_lines


def _tell(change: Change) -> None:
    """What happened to jobs and machines, in the log."""
    for event in change.events:
        log.info(event.text, kind=event.kind, mac=event.mac, machine=event.machine_id, job=event.job_id)
