"""The one object that everybody asks about machines and jobs: registry in memory, store behind it, timeline.

Used from the event loop's thread only. Two kinds of methods:

- Plain ones answer from memory at once (the DHCP path, the boot scripts): `check`, `seen`, `ticket`, `note`, `tick`
  and the listings. What they change is saved in the background.
- `async` ones that change a job's or machine's state answer when the change is on the disk: `claim`, `finish`, and
  all that an operator does. When the database cannot be written they raise OperatorError with the reason and nothing
  has changed; everything else goes on from memory and is saved when the database is back.

Progress (`report`) is kept in memory and saved every few seconds: after a crash a job's percentage may be a little old,
its state never is. After a restart, `kill -9` included, a running job goes on with the same run token; its silence is
counted anew.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from pxed.config import Config
from pxed.errors import NotFoundError
from pxed.service.live import Hub, Subscription
from pxed.store import Batch, Store, Writer
from pxed.types import (
    Check,
    ClaimAnswer,
    ClaimRequest,
    Event,
    FinishAnswer,
    FinishRequest,
    Identity,
    Job,
    Machine,
    Report,
    ReportAnswer,
)
from pxed.work.identity import clean, mac_text, normalise, plain_text
from pxed.work.machines import Change
from pxed.work.registry import MAX_TEXT, Registry
from pxed.work.timeline import Line, Timeline

__all__ = ["Transactions"]

T = TypeVar("T")

# Seconds between two writes of the same job's progress, and of the same machine's last_seen: memory is right, these
# only matter after a restart.
SAVE_PROGRESS = 5.0
SAVE_SEEN = 60.0

# Lines that wait for a database that cannot be written; the oldest go first. About 10 MB.
MAX_UNSAVED_LINES = 20_000


def _secret() -> str:
    """A new token: 128 bits, safe in URLs and on a kernel's command line."""
    return secrets.token_urlsafe(16)


class _Lock(asyncio.Lock):
    """A job's lock, and how many commands hold it or wait for it."""

    users = 0


class Transactions:
    """Made by `Transactions.open`; ended by `close`."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        clock: Callable[[], float] = time.time,
        secret: Callable[[], str] = _secret,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = Registry(secret)
        self._timeline = Timeline()
        self._hub = Hub()
        self._writer = Writer(store, self._collect, self._put_back)
        self._locks: dict[int, _Lock] = {}  # of jobs with a commit under way or waited for
        self._admin = asyncio.Lock()  # one operator's command about machines at a time
        self._reserved = False  # such a command is being committed: nothing is learned about machines meanwhile
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dirty_machines: set[int] = set()
        self._dirty_jobs: set[int] = set()
        self._removed: set[int] = set()
        self._dirty_lines: dict[int, Line] = {}
        self._progress: dict[int, float] = {}  # job id -> when its progress was last marked for saving
        self._seen_saved: dict[int, float] = {}
        self.configure(config)

    @classmethod
    async def open(
        cls,
        config: Config,
        path: str | Path = "",
        *,
        clock: Callable[[], float] = time.time,
        secret: Callable[[], str] = _secret,
    ) -> "Transactions":
        """Open the database (default: STATE_DIR/pxed.db), load it and begin. Raises OperatorError."""
        store = await Store.open(path or Path(config.server.state_dir) / "pxed.db")
        transactions = cls(store, config, clock=clock, secret=secret)
        try:
            await transactions._load()
        except BaseException:
            await store.close()
            raise
        return transactions

    def configure(self, config: Config) -> None:
        """Take over [transaction] and [jobs] of a (reloaded) configuration."""
        self._registry.unknown_machines = config.transaction.unknown_machines
        self._registry.silence = config.jobs.silence
        self._registry.boot_timeout = config.jobs.boot_timeout

    async def _load(self) -> None:
        now = self._clock()
        snapshot = await self._store.load()
        self._registry.load(snapshot.machines, snapshot.jobs, now)
        self._registry.reserve(snapshot.counters.get("machine", 1), snapshot.counters.get("job", 1))
        self._timeline.load(snapshot.lines, snapshot.counters["line"])
        self._writer.start()

    async def close(self) -> None:
        """Finish what is under way, save everything, close the database."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        self._dirty_jobs |= self._progress.keys()
        await self._writer.close()
        self._hub.close()
        await self._store.close()

    @property
    def trouble(self) -> str:
        """Why the database could not be written at the last try, a sentence; empty when all is well."""
        return self._writer.error

    # -- asked from the boot path: from memory, at once -----------------------------------------------------------

    def check(self, identity: Identity, now: float) -> Check:
        """Is there work for this machine? Asked when firmware or a preboot client asks: the machine is starting.

        A running job whose agent has been quiet for some seconds has lost its machine to a restart; it becomes pending
        again here, or fails after its last attempt.
        """
        check, change = self._registry.check(identity, now, self._locks)
        self._take(change)
        return check

    def seen(self, identity: Identity, now: float, text: str = "", kind: str = "seen") -> Machine | None:
        """The machine was heard: record it and what is new about it, with a line on its timeline if `text` is given.

        A machine that nobody added is listed as seen; it is known only where policy says so. Returns None when the
        identity names no machine.
        """
        machine = self._learn(clean(identity), now)
        if text:
            mac = mac_text(identity.mac) or (machine.macs[0] if machine and machine.macs else "")
            self.note(Event(time=now, mac=mac, kind=kind, text=text, machine_id=machine.id if machine else None))
        return machine

    def ticket(self, identity: Identity, now: float) -> tuple[Job, str] | None:
        """The job to boot this machine for, and the token for the kernel's command line; None when there is no work.

        The job is offered from now on. Asked again before the agent's claim the token is the same.
        """
        self._learn(clean(identity), now)
        record, change = self._registry.ticket(identity, now, self._locks)
        self._take(change)
        return (record.job, record.token) if record else None

    def note(self, event: Event) -> None:
        """A line on a machine's timeline. The machine is found by the event's MAC where its id is not given.

        Repetitions within a minute are counted in the line that is there, not added.
        """
        machine_id = event.machine_id
        if machine_id is None and event.mac:
            found = self._registry.machines.resolve(Identity(mac=mac_text(event.mac))).machine
            machine_id = found.id if found else None
        event = replace(event, text=plain_text(event.text, MAX_TEXT), machine_id=machine_id)
        line, new = self._timeline.note(event)
        if line is not None:
            self._line(line, publish=new)

    def tick(self, now: float) -> None:
        """Time passes: call it about once a second. Ends expired, unclaimed and silent jobs."""
        self._take(self._registry.tick(now, self._locks))
        due = [job_id for job_id, saved in self._progress.items() if not 0 <= now - saved < SAVE_PROGRESS]
        for job_id in due:
            del self._progress[job_id]
        if due:
            self._dirty_jobs.update(due)
            self._writer.wake()

    # -- asked by agents ------------------------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest, now: float) -> ClaimAnswer:
        """The agent takes its job; repeating it is safe. Raises RefusedError with the reason, or OperatorError when
        the database cannot be written (the agent may ask again later)."""
        self._learn(self._about(request), now)
        record = self._registry.of_token(request.token)

        async def run() -> ClaimAnswer:
            answer, change = self._registry.claim(request, now)
            await self._commit(change)
            return answer

        return await self._command([record.id] if record else [], run)

    async def report(self, run: str, report: Report, now: float) -> ReportAnswer:
        """Progress, kept in memory. The answer tells an agent to stop when its attempt is over. Raises RefusedError for
        a run that is not known."""
        answer, change = self._registry.report(run, report, now)
        if not change:
            return answer
        record = change.jobs[0]
        if record.id in self._locks:  # its end is being committed: progress must not come after it
            return answer
        self._registry.apply(change)
        for event in change.events:
            self.note(event)
        self._hub.publish(record.job)
        if change.durable:
            self._dirty_jobs.add(record.id)
            self._writer.wake()
        else:
            self._progress.setdefault(record.id, now)
        return answer

    async def finish(self, run: str, request: FinishRequest, now: float) -> FinishAnswer:
        """The end of a job; repeating it is safe. Raises RefusedError, or OperatorError when the database cannot be
        written: the agent asks again, which counts as being heard."""
        record = self._registry.of_run(run)

        async def work() -> FinishAnswer:
            answer, change = self._registry.finish(run, request, now)
            await self._commit(change)
            return answer

        return await self._command([record.id] if record else [], work)

    def image_for_run(self, run: str) -> str | None:
        """The image that the holder of this run token may read now; None when there is none."""
        return self._registry.image_for_run(run)

    def job_for_run(self, run: str) -> Job | None:
        """The job that this run token belongs or belonged to."""
        record = self._registry.of_run(run)
        return record.job if record else None

    # -- listings -------------------------------------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        """All machines by id, those only seen on the wire included."""
        return sorted(self._registry.machines, key=lambda machine: machine.id)

    def find_machine(self, key: str) -> Machine:
        """A machine by MAC in any writing, UUID, name or id. Raises NotFoundError."""
        return self._registry.machines.find(key)

    def machine(self, machine_id: int) -> Machine:
        """A machine by id. Raises NotFoundError."""
        machine = self._registry.machines.get(machine_id)
        if machine is None:
            raise NotFoundError(f"There is no machine {machine_id}.")
        return machine

    def identify(self, identity: Identity) -> Machine | None:
        """The machine that this identity is, if one is recorded."""
        return self._registry.machines.resolve(clean(identity)).machine

    def jobs(self) -> list[Job]:
        """All jobs by id."""
        return sorted((record.job for record in self._registry), key=lambda job: job.id)

    def job(self, job_id: int) -> Job:
        """A job by id. Raises NotFoundError."""
        return self._registry.record(job_id).job

    def jobs_wanting(self, image: str) -> list[Job]:
        """The unfinished jobs that need this image (id)."""
        return [
            job for job in self.jobs() if job.image == image and job.id in self._registry.unfinished(job.machine_id)
        ]

    def timeline(self, machine_id: int) -> list[Event]:
        """A machine's newest lines, oldest first (`history` has all)."""
        return self._timeline.of(machine_id)

    async def history(self, machine_id: int) -> list[Event]:
        """A machine's whole timeline from the database. Raises OperatorError when that cannot be read."""
        await self._writer.commit(Batch(), lambda: None)  # what is only in memory goes there first
        return await self._store.history(machine_id)

    def subscribe(self) -> Subscription:
        """Everything that happens from now on: an async iterator of Event and Job; close it, or use it in `with`."""
        return self._hub.subscribe()

    # -- what an operator does ------------------------------------------------------------------------------------

    async def add_machine(
        self,
        *,
        mac: str = "",
        uuid: str = "",
        serial: str = "",
        manufacturer: str = "",
        product: str = "",
        name: str = "",
    ) -> Machine:
        """Record a machine, or make one known that was only seen. Raises RefusedError or OperatorError."""
        identity = normalise(mac, uuid, serial, manufacturer, product)

        async def run() -> Machine:
            machine, change = self._registry.machines.add(identity, name, self._clock())
            await self._commit(change)
            return machine

        return await self._command([], run, machines=True)

    async def remove_machine(self, machine: Machine | int | str) -> None:
        """Forget a machine, its jobs and its timeline. Raises NotFoundError, RefusedError or OperatorError."""
        machine_id = self._machine(machine).id

        async def run() -> None:
            await self._commit(self._registry.remove_machine(self.machine(machine_id)))

        await self._command([record.id for record in self._registry.of_machine(machine_id)], run, machines=True)

    async def create_job(
        self,
        machine: Machine | int | str,
        image: str,
        image_name: str = "",
        *,
        debug: bool = False,
        expires: float = 0.0,
    ) -> Job:
        """A new restore job for a machine; it waits for those that the machine has already. `image` is its id.

        Raises NotFoundError for an unknown machine, OperatorError when the database cannot be written.
        """
        machine_id = self._machine(machine).id

        async def run() -> Job:
            target = self.machine(machine_id)
            record, change = self._registry.create(
                target, image, image_name, self._clock(), debug=debug, expires=expires
            )
            await self._commit(replace(change, machines=change.machines or (target,)))
            return record.job

        return await self._command([], run, machines=True)

    async def cancel_job(self, job_id: int) -> Job:
        """Give up an unfinished job; a running agent is told at its next report. Raises like `retry_job`."""
        return await self._job_command(job_id, lambda: self._registry.cancel(job_id, self._clock()))

    async def retry_job(self, job_id: int, expires: float = 0.0) -> Job:
        """A failed, cancelled or expired job is pending again. Raises NotFoundError, RefusedError, OperatorError."""
        return await self._job_command(job_id, lambda: self._registry.retry(job_id, self._clock(), expires))

    async def fail_job(self, job_id: int, step: str, reason: str) -> Job:
        """The server finds that an unfinished job cannot be done. Raises like `retry_job`."""
        return await self._job_command(job_id, lambda: self._registry.fail(job_id, step, reason, self._clock()))

    async def _job_command(self, job_id: int, plan: Callable[[], Change]) -> Job:
        async def run() -> Job:
            change = plan()
            await self._commit(change)
            return change.jobs[0].job

        return await self._command([job_id], run)

    def _machine(self, machine: Machine | int | str) -> Machine:
        if isinstance(machine, str):
            return self.find_machine(machine)
        return self.machine(machine if isinstance(machine, int) else machine.id)

    # -- the machinery: commands one after the other per job, commit first, then memory ---------------------------

    async def _command(
        self, job_ids: list[int], run: Callable[[], Coroutine[Any, Any, T]], *, machines: bool = False
    ) -> T:
        """Run a command alone on its jobs (and on the machines). It is finished even when the caller goes away."""
        task = asyncio.get_running_loop().create_task(self._locked(job_ids, run, machines))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has it; a caller that went away does not want it

    async def _locked(self, job_ids: list[int], run: Callable[[], Coroutine[Any, Any, T]], machines: bool) -> T:
        async with AsyncExitStack() as stack:
            if machines:
                await stack.enter_async_context(self._admin)
                self._reserved = True
                stack.callback(self._unreserve)
            for job_id in sorted(job_ids):
                lock = self._locks.setdefault(job_id, _Lock())
                lock.users += 1
                stack.callback(self._leave, job_id, lock)
                await stack.enter_async_context(lock)
            return await run()

    def _unreserve(self) -> None:
        self._reserved = False

    def _leave(self, job_id: int, lock: _Lock) -> None:
        lock.users -= 1
        if not lock.users:
            del self._locks[job_id]

    async def _commit(self, change: Change) -> None:
        """Save a change with its lines, then take it over. Raises OperatorError, and then nothing changed."""
        if not change:
            return
        lines = [self._timeline.line(event) for event in change.events]
        batch = Batch(
            machines={machine.id: machine for machine in change.machines},
            jobs={record.id: record for record in change.jobs},
            removed=set(change.removed),
            lines={line.id: line for line in lines},
            counters=self._counters(change),
        )
        await self._writer.commit(batch, lambda: self._committed(change, lines))

    def _committed(self, change: Change, lines: list[Line]) -> None:
        self._apply(change)
        for line in lines:
            self._timeline.insert(line)
            self._hub.publish(line.event)

    def _take(self, change: Change) -> None:
        """Take a change over now and save it in the background."""
        if not change:
            return
        self._apply(change)
        self._dirty_machines.update(machine.id for machine in change.machines)
        self._dirty_jobs.update(record.id for record in change.jobs)
        self._removed.update(change.removed)
        for event in change.events:
            self.note(event)
        self._writer.wake(soon=bool(change.jobs))

    def _apply(self, change: Change) -> None:
        self._registry.apply(change)
        for old, new in change.merged:
            for line in self._timeline.move(old, new):
                self._dirty_lines[line.id] = line
        for machine_id in change.removed:
            self._timeline.forget(machine_id)
            self._seen_saved.pop(machine_id, None)
            for line_id in [one for one, line in self._dirty_lines.items() if line.event.machine_id == machine_id]:
                del self._dirty_lines[line_id]
        for record in change.jobs:
            self._progress.pop(record.id, None)
            self._hub.publish(record.job)

    def _learn(self, identity: Identity, now: float) -> Machine | None:
        """What an identity teaches; nothing while an operator's command about machines is being committed."""
        if self._reserved:
            return self._registry.machines.resolve(identity).machine
        known = self._registry.unknown_machines == "boot"
        machine, change = self._registry.machines.learn(identity, now, known=known)
        if change.durable or not change.machines:
            self._take(change)
        else:  # last_seen alone: not worth a write each time
            self._registry.apply(change)
            seen = change.machines[0]
            if not 0 <= now - self._seen_saved.get(seen.id, -SAVE_SEEN) < SAVE_SEEN:
                self._seen_saved[seen.id] = now
                self._dirty_machines.add(seen.id)
                self._writer.wake()
        return machine

    def _about(self, request: ClaimRequest) -> Identity:
        """What a claim may teach about machines: nothing, unless its token is good for the machine that sent it."""
        identity = clean(request.identity)
        record = self._registry.of_token(request.token)
        found = self._registry.machines.resolve(identity).machine
        return identity if record and found and found.id == record.job.machine_id else Identity()

    def _line(self, line: Line, *, publish: bool) -> None:
        if publish:
            self._hub.publish(line.event)
        if line.event.machine_id is None:
            return  # of a machine that is not recorded: memory only
        self._dirty_lines[line.id] = line
        while len(self._dirty_lines) > MAX_UNSAVED_LINES:
            del self._dirty_lines[next(iter(self._dirty_lines))]
        self._writer.wake()

    def _counters(self, change: Change | None = None) -> dict[str, int]:
        machine_id, job_id = self._registry.machines.next_id, self._registry.next_job
        if change is not None:
            machine_id = max(machine_id, *(machine.id + 1 for machine in change.machines), 1)
            job_id = max(job_id, *(record.id + 1 for record in change.jobs), 1)
        return {"machine": machine_id, "job": job_id}

    def _collect(self) -> Batch:
        """What is not saved yet, as it is now."""
        machines = [self._registry.machines.get(one) for one in self._dirty_machines]
        batch = Batch(
            machines={machine.id: machine for machine in machines if machine is not None},
            jobs={record.id: record for record in self._registry.some(self._dirty_jobs)},
            removed=self._removed,
            lines={
                line_id: Line(line.id, line.event, line.count, line.last) for line_id, line in self._dirty_lines.items()
            },
        )
        if batch:
            batch.counters = self._counters()
        self._dirty_machines, self._dirty_jobs, self._removed, self._dirty_lines = set(), set(), set(), {}
        return batch

    def _put_back(self, batch: Batch) -> None:
        """What could not be saved is unsaved again."""
        self._dirty_machines.update(batch.machines)
        self._dirty_jobs.update(batch.jobs)
        self._removed |= batch.removed
        for line_id, line in batch.lines.items():
            self._dirty_lines.setdefault(line_id, line)
