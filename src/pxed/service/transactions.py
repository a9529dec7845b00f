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

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from pxed.config import Config
from pxed.errors import NotFoundError, RefusedError
from pxed.service.ledger import Ledger
from pxed.service.live import Subscription
from pxed.store import Store
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
    Transport,
)
from pxed.work.identity import clean, mac_text, normalise
from pxed.work.machines import Change
from pxed.work.registry import Registry

__all__ = ["Transactions"]

# Seconds for which `asked` repeats an answer: as exact as the clock of the jobs' deadlines, which ticks once a second.
REPEATED = 1.0
MAX_ASKED = 16384  # machines; more than ask within that time


def _secret() -> str:
    """A new token: 128 bits, safe in URLs and on a kernel's command line."""
    return secrets.token_urlsafe(16)


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
        self._clock = clock
        self._registry = Registry(secret)
        self._ledger = Ledger(store, self._registry)
        self._asked: dict[Identity, tuple[int, float, Check]] = {}  # version, when, answer
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
            await transactions._ledger.load(clock())
        except BaseException:
            await store.close()
            raise
        return transactions

    def configure(self, config: Config) -> None:
        """Take over [transaction] and [jobs] of a (reloaded) configuration."""
        self._registry.unknown_machines = config.transaction.unknown_machines
        self._registry.silence = config.jobs.silence
        self._registry.boot_timeout = config.jobs.boot_timeout
        self._asked.clear()

    async def close(self) -> None:
        """Finish what is under way, save everything, close the database."""
        await self._ledger.close()

    @property
    def trouble(self) -> str:
        """Why the database could not be written at the last try, a sentence; empty when all is well."""
        return self._ledger.writer.error

    # -- asked from the boot path: from memory, at once -----------------------------------------------------------

    def check(self, identity: Identity, now: float) -> Check:
        """Is there work for this machine? Asked when firmware or a preboot client asks: the machine is starting.

        A running job whose agent has been quiet for some seconds has lost its machine to a restart; it becomes pending
        again here, or fails after its last attempt.
        """
        check, change = self._registry.check(identity, now, self._ledger.busy)
        self._ledger.take(change)
        return check

    def asked(self, identity: Identity, now: float) -> Check:
        """A machine's firmware asks: `seen` and `check` in one.

        Asked again within REPEATED, while nothing has happened to any machine or job, the answer is the same.
        """
        known = self._asked.get(identity)
        if known is not None and known[0] == self._ledger.version and 0 <= now - known[1] < REPEATED:
            return known[2]
        self.seen(identity, now)
        check = self.check(identity, now)
        if len(self._asked) >= MAX_ASKED:
            self._asked.clear()
        self._asked[identity] = (self._ledger.version, now, check)
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
        record, change = self._registry.ticket(identity, now, self._ledger.busy)
        self._ledger.take(change)
        return (record.job, record.token) if record else None

    def note(self, event: Event) -> bool:
        """A line on a machine's timeline. The machine is found by the event's MAC where its id is not given.

        Repetitions within a minute are counted in the line that is there, not added: False then.
        """
        return self._ledger.note(event)

    def tick(self, now: float) -> None:
        """Time passes: call it about once a second. Ends expired, unclaimed and silent jobs."""
        self._ledger.take(self._registry.tick(now, self._ledger.busy))
        self._ledger.save_progress(now)

    # -- asked by agents ------------------------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest, now: float) -> ClaimAnswer:
        """The agent takes its job; repeating it is safe. Raises RefusedError with the reason, or OperatorError when
        the database cannot be written (the agent may ask again later)."""
        self._learn(self._about(request), now)
        record = self._registry.of_token(request.token)

        async def run() -> ClaimAnswer:
            answer, change = self._registry.claim(request, now)
            await self._ledger.commit(change)
            return answer

        return await self._ledger.command([record.id] if record else [], run)

    async def report(self, run: str, report: Report, now: float) -> ReportAnswer:
        """Progress, kept in memory. The answer tells an agent to stop when its attempt is over. Raises RefusedError for
        a run that is not known."""
        answer, change = self._registry.report(run, report, now)
        if not change:
            return answer
        self._ledger.progress(change.jobs[0], change, now)
        return answer

    async def finish(self, run: str, request: FinishRequest, now: float) -> FinishAnswer:
        """The end of a job; repeating it is safe. Raises RefusedError, or OperatorError when the database cannot be
        written: the agent asks again, which counts as being heard."""
        record = self._registry.of_run(run)

        async def work() -> FinishAnswer:
            answer, change = self._registry.finish(run, request, now)
            await self._ledger.commit(change)
            return answer

        return await self._ledger.command([record.id] if record else [], work)

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
        return self._ledger.timeline.of(machine_id)

    async def history(self, machine_id: int) -> list[Event]:
        """A machine's whole timeline, from the database and from memory. What waits to be saved is saved before, if
        that is possible. Raises OperatorError when the database cannot be read."""
        return [line.shown() for line in await self._ledger.history(machine_id)]

    def subscribe(self) -> Subscription:
        """Everything that happens from now on: an async iterator of Event and Job; close it, or use it in `with`."""
        return self._ledger.hub.subscribe()

    def observe(self, observer: Callable[[Event | Job], None]) -> None:
        """Call `observer` at once with every event, repetitions included, and every job's new state. It is quick."""
        self._ledger.observers.append(observer)

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
        if mac.strip() and not identity.mac:
            raise RefusedError(f"{mac[:40]!r} is no machine's MAC address; one looks like 52:54:00:12:34:56.")

        async def run() -> Machine:
            machine, change = self._registry.machines.add(identity, name, self._clock())
            await self._ledger.commit(change)
            return machine

        return await self._ledger.command([], run, machines=True)

    async def remove_machine(self, machine: Machine | int | str) -> None:
        """Forget a machine, its jobs and its timeline. Raises NotFoundError, RefusedError or OperatorError."""
        machine_id = self._machine(machine).id

        async def run() -> None:
            await self._ledger.commit(self._registry.remove_machine(self.machine(machine_id)))

        await self._ledger.command([record.id for record in self._registry.of_machine(machine_id)], run, machines=True)

    async def create_job(
        self,
        machine: Machine | int | str,
        image: str,
        image_name: str = "",
        *,
        debug: bool = False,
        expires: float = 0.0,
        transport: Transport = "auto",
    ) -> Job:
        """A new restore job for a machine; it waits for those that the machine has already. `image` is its id.

        Raises NotFoundError for an unknown machine, OperatorError when the database cannot be written.
        """
        machine_id = self._machine(machine).id

        async def run() -> Job:
            target = self.machine(machine_id)
            record, change = self._registry.create(
                target, image, image_name, self._clock(), debug=debug, expires=expires, transport=transport
            )
            await self._ledger.commit(replace(change, machines=change.machines or (target,)))
            return record.job

        return await self._ledger.command([], run, machines=True)

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
            await self._ledger.commit(change)
            return change.jobs[0].job

        return await self._ledger.command([job_id], run)

    def _learn(self, identity: Identity, now: float) -> Machine | None:
        return self._ledger.learn(identity, now, known=self._registry.unknown_machines == "boot")

    def _about(self, request: ClaimRequest) -> Identity:
        """What a claim may teach about machines: nothing, unless its token is good for the machine that sent it."""
        identity = clean(request.identity)
        record = self._registry.of_token(request.token)
        found = self._registry.machines.resolve(identity).machine
        return identity if record and found and found.id == record.job.machine_id else Identity()

    def _machine(self, machine: Machine | int | str) -> Machine:
        if isinstance(machine, str):
            return self.find_machine(machine)
        return self.machine(machine if isinstance(machine, int) else machine.id)
