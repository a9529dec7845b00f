"""Machines and jobs in memory: the transaction check, and everything that happens to a job.

Every method that changes something returns what changes (a `Change`) and touches nothing; `apply` takes it over. So
the caller can commit a change to the database first and let memory follow, or the other way round where an answer must
not wait (the DHCP path). Jobs in `busy` have such a commit under way: they are looked at, not moved.

The check costs a few dict look-ups whatever the number of machines. Time is the argument `now`, new tokens come from
the `secret` function given at the start; no I/O, clock or randomness here.
"""

import math
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Literal

from msgspec.structs import replace

from pxed.errors import NotFoundError, RefusedError
from pxed.types import (
    Check,
    ClaimAnswer,
    ClaimRequest,
    Event,
    FinishAnswer,
    FinishRequest,
    Identity,
    Job,
    JobState,
    Machine,
    Report,
    ReportAnswer,
    Step,
    Transport,
    Verdict,
)
from pxed.work import jobs
from pxed.work.identity import clean, plain_text
from pxed.work.jobs import JobRecord
from pxed.work.machines import Change, Machines, title

__all__ = ["Policy", "Registry"]

Policy = Literal["ignore", "boot", "hold"]

# A gap between two ticks of more than this means that the server itself stood still (a suspended host, a debugger) or
# that its clock was set: nobody is blamed for it, all silence clocks start again. `tick` is called every second.
MAX_TICK_GAP = 15.0

MAX_TEXT = 500  # characters of a sentence that an agent sends into the timeline
MAX_STEP = 32

_NOBODY: frozenset[int] = frozenset()

# Which kind of timeline line the beginning of a step is.
_STEP_KINDS = {
    Step.CLAIM.value: "claim",
    Step.TARGET.value: "target",
    Step.RESTORE.value: "restore",
    Step.VERIFY.value: "verified",
    Step.BOOT_ENTRY.value: "boot-entry",
}


class Registry:
    """All machines and jobs. `silence` and `boot_timeout` are seconds, as in [jobs] of the configuration."""

    def __init__(
        self,
        secret: Callable[[], str],
        *,
        unknown_machines: Policy = "ignore",
        silence: float = 60.0,
        boot_timeout: float = 600.0,
    ) -> None:
        self.machines = Machines()
        self.unknown_machines: Policy = unknown_machines
        self.silence = silence
        self.boot_timeout = boot_timeout
        self._secret = secret
        self._records: dict[int, JobRecord] = {}
        self._unfinished: dict[int, tuple[int, ...]] = {}  # machine id -> ids of its unfinished jobs, ascending
        self._open: dict[int, None] = {}  # ids of all unfinished jobs
        self._last: dict[int, int] = {}  # machine id -> id of the job that ended last
        self._by_token: dict[str, int] = {}
        self._by_run: dict[str, int] = {}
        self._heard: dict[int, float] = {}  # job id -> when its agent was last heard; not stored
        self._next_job = 1
        self._ticked: float | None = None

    # -- looking ------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[JobRecord]:
        return iter(self._records.values())

    @property
    def next_job(self) -> int:
        """The id that the next new job gets."""
        return self._next_job

    def record(self, job_id: int) -> JobRecord:
        """A job by id. Raises NotFoundError."""
        record = self._records.get(job_id)
        if record is None:
            raise NotFoundError(f"There is no job {job_id}.")
        return record

    def of_run(self, run: str) -> JobRecord | None:
        """The job that this run token belongs or belonged to."""
        return self._records.get(self._by_run.get(run, 0))

    def of_token(self, token: str) -> JobRecord | None:
        """The job that this claim token is for."""
        return self._records.get(self._by_token.get(token, 0))

    def some(self, job_ids: Iterable[int]) -> list[JobRecord]:
        """The jobs with these ids, as far as they exist."""
        return [self._records[job_id] for job_id in job_ids if job_id in self._records]

    def of_machine(self, machine_id: int) -> list[JobRecord]:
        """All jobs of a machine, oldest first."""
        return [record for record in self._records.values() if record.job.machine_id == machine_id]

    def unfinished(self, machine_id: int) -> tuple[int, ...]:
        """Ids of a machine's unfinished jobs, oldest first."""
        return self._unfinished.get(machine_id, ())

    def current(self, machine_id: int) -> JobRecord | None:
        """The job that is next for a machine: the offered or running one, else the oldest pending one."""
        first = None
        for job_id in self._unfinished.get(machine_id, ()):
            record = self._records[job_id]
            if record.state in jobs.ACTIVE:
                return record
            first = first or record
        return first

    def image_for_run(self, run: str) -> str | None:
        """The image that the holder of this run token may read; None when its attempt is not running."""
        record = self.of_run(run)
        return record.job.image if record and record.run == run and record.state is JobState.RUNNING else None

    # -- the check ----------------------------------------------------------------------------------------------

    def check(self, identity: Identity, now: float, busy: Container[int] = _NOBODY) -> tuple[Check, Change]:
        """Is there work for this machine? Asked by firmware or a preboot client, so the machine is (re)starting.

        That ends a running attempt whose agent has been quiet for RESTART_QUIET, which is the change returned.
        """
        found = self.machines.resolve(clean(identity))
        machine = found.machine
        if machine is None:
            return self._policy(None), Change()
        if found.conflict:
            return Check(Verdict.NO_WORK, found.conflict, machine.id), Change()
        record = self.current(machine.id)
        change = Change()
        if record is not None and record.id not in busy:
            change = self._overtaken(record, now)
            record = self._after(machine.id, record, change)
        if record is None:
            return self._no_job(machine, change), change
        what = f"job {record.id}, {record.job.kind} of {record.job.image_name}"
        if record.id in busy:
            return Check(Verdict.HOLD, f"Something is being decided about {what}.", machine.id, record.id), change
        if record.state is JobState.RUNNING:
            reason = f"The agent of {what} was heard less than {jobs.RESTART_QUIET:.0f} s ago: ask again in a moment."
            return Check(Verdict.HOLD, reason, machine.id, record.id), change
        return Check(Verdict.WORK, f"There is work: {what}.", machine.id, record.id), change

    def _policy(self, machine: Machine | None) -> Check:
        machine_id = machine.id if machine else None
        if self.unknown_machines == "hold":
            reason = (
                "Unknown machine: it is held until it is added and has a job (transaction.unknown_machines = hold)."
            )
            return Check(Verdict.HOLD, reason, machine_id)
        if self.unknown_machines == "boot":
            return Check(Verdict.NO_WORK, "New machine: no job waits for it.", machine_id)
        reason = "Unknown machine: left alone (transaction.unknown_machines = ignore)."
        return Check(Verdict.IGNORE, reason, machine_id)

    def _no_job(self, machine: Machine, change: Change) -> Check:
        """No work, and why; `change` is what this very check has made of the machine's last job."""
        if not machine.known:
            return self._policy(machine)
        last = change.jobs[0] if change.jobs else self._records.get(self._last.get(machine.id, 0))
        if last is None:
            reason = "No job waits for this machine."
        else:
            reason = f"No job waits for this machine; the last one, job {last.id}, ended as {last.state}."
        return Check(Verdict.NO_WORK, reason, machine.id)

    def _overtaken(self, record: JobRecord, now: float) -> Change:
        """What the machine's asking for boot, or the time, makes of its current job."""
        job = record.job
        if record.state is JobState.PENDING and 0 < job.expires <= now:
            return self._change(jobs.expire(record, now), now)
        if record.state is JobState.RUNNING and now - self._heard.get(job.id, record.claimed) >= jobs.RESTART_QUIET:
            return self._change(jobs.restarted(record, now, self._secret()), now)
        return Change()

    def _after(self, machine_id: int, record: JobRecord, change: Change) -> JobRecord | None:
        """The machine's current job once `change`, which is about `record`, has happened."""
        if not change.jobs:
            return record
        if change.jobs[0].state is JobState.PENDING:
            return change.jobs[0]
        waiting = [one for one in self._unfinished.get(machine_id, ()) if one != record.id]
        return self._records[waiting[0]] if waiting else None

    # -- the life of a job ----------------------------------------------------------------------------------------

    def ticket(self, identity: Identity, now: float, busy: Container[int] = _NOBODY) -> tuple[JobRecord | None, Change]:
        """The job to boot the machine for, offered now; None when the check says anything but work.

        Asked again before the claim it is the same job with the same token. A job offered too often fails instead.
        """
        check, change = self.check(identity, now, busy)
        if check.verdict is not Verdict.WORK or check.job_id is None:
            return None, change
        record = next((one for one in change.jobs if one.id == check.job_id), None) or self._records[check.job_id]
        if jobs.exhausted(record, now):
            reason = f"The machine was given the environment {record.offers} times and its agent never claimed the job."
            return None, change + self._change(jobs.fail(record, now, Step.BOOT.value, reason), now)
        offered = jobs.offer(record, now)
        if offered is record:
            return record, change
        text = f"Job {record.id} offered: {record.job.kind} of {record.job.image_name}."
        if offered.offers > 1:
            text += f" This is boot {offered.offers} of {jobs.MAX_OFFERS} without a claim."
        return offered, change + Change(jobs=(offered,), events=(self._event(record.job, now, "check", text),))

    def claim(self, request: ClaimRequest, now: float) -> tuple[ClaimAnswer, Change]:
        """The agent takes its job. Repeating it is safe for the same agent. Raises RefusedError with the reason."""
        record = self.of_token(request.token)
        if record is None or not request.token or not request.agent:
            raise RefusedError(
                "This token is not valid (any more): the job was offered again, retried or removed since this machine "
                "was booted. The machine must boot again."
            )
        job = record.job
        found = self.machines.resolve(clean(request.identity))
        if found.conflict:
            raise RefusedError(found.conflict)
        if found.machine is None or found.machine.id != job.machine_id:
            other = title(found.machine) if found.machine else "a machine that is not known"
            raise RefusedError(f"This token was made for another machine; it came from {other}.")
        if record.state in jobs.ENDED:
            raise RefusedError(f"Job {job.id} has ended already: it is {record.state}. {job.reason}".rstrip())
        if record.state is JobState.RUNNING:
            if record.agent != request.agent:
                raise RefusedError(f"The token of job {job.id} has been used already, by another agent.")
            return _answer(record), Change()
        current = self.current(job.machine_id)
        if current is not None and current.id != job.id and current.state in jobs.ACTIVE:
            raise RefusedError(
                f"Job {job.id} waits for job {current.id} of the same machine, which is {current.state}."
            )
        # Pending with a token in an agent's hands: the server was killed after it gave the token and before it had
        # written that it did.
        offered = jobs.offer(record, now) if record.state is JobState.PENDING else record
        firmware = request.firmware if request.firmware in ("bios", "uefi") else ""
        new = jobs.claim(offered, now, plain_text(request.agent, MAX_TEXT), self._secret(), firmware)
        text = f"The agent claimed job {job.id}, attempt {new.job.attempts} of {jobs.MAX_ATTEMPTS}"
        text += f", booted by {firmware.upper()}" if firmware else ""
        disks = ", ".join(f"{plain_text(d.path, 40)} {d.size / 1e9:.1f} GB" for d in request.disks[:16])
        text += f"; disks: {disks}." if disks else "."
        return _answer(new), Change(jobs=(new,), events=(self._event(new.job, now, "claim", text),))

    def report(self, run: str, report: Report, now: float) -> tuple[ReportAnswer, Change]:
        """Progress. Raises RefusedError for a run that never was; tells an agent whose attempt is over to stop."""
        record = self.of_run(run)
        if record is None:
            raise RefusedError("This run is not known here: the job was removed, or it is another server's.")
        if record.run != run:
            return ReportAnswer(stop="This attempt is over: the machine asked for boot again since."), Change()
        if record.state is not JobState.RUNNING:
            return ReportAnswer(stop=f"The job is {record.state}. {record.job.reason}".rstrip()), Change()
        self._heard[record.id] = now
        step = plain_text(report.step, MAX_STEP) or record.job.step
        new = replace(
            record.job, step=step, percent=_number(report.percent, 100.0), rate=_number(report.rate, math.inf)
        )
        kind = _STEP_KINDS.get(step, "job")
        text = plain_text(report.message, MAX_TEXT)
        if not text and step != record.job.step:
            text = f"Step {step} began."
        events = (self._event(new, now, kind, text),) if text else ()
        return ReportAnswer(), Change(jobs=(replace(record, job=new),), events=events, durable=step != record.job.step)

    def finish(self, run: str, request: FinishRequest, now: float) -> tuple[FinishAnswer, Change]:
        """The end of an attempt, in exactly one state. Repeating it is safe; contradicting it is refused."""
        record = self.of_run(run)
        if record is None:
            raise RefusedError("This run is not known here: the job was removed, or it is another server's.")
        job = record.job
        if record.run != run:
            raise RefusedError("This attempt is over: the machine asked for boot again since.")
        if record.state is JobState.RUNNING:
            self._heard[record.id] = now
        answer = FinishAnswer(then="shell" if job.debug and not request.ok else "reboot")
        if record.state is (JobState.SUCCEEDED if request.ok else JobState.FAILED):
            return answer, Change()
        if record.state is not JobState.RUNNING:
            raise RefusedError(f"Job {job.id} has ended already: it is {record.state}. {job.reason}".rstrip())
        if request.ok:
            took = f" in {now - record.claimed:.0f} s" if record.claimed else ""
            new = jobs.succeed(record, now)
            events = (
                self._event(new.job, now, "job", f"Job {job.id} succeeded: {job.kind} of {job.image_name}{took}."),
                self._event(new.job, now, "rebooted", "The agent restarts the machine into its own system."),
            )
            return answer, Change(jobs=(new,), events=events)
        reason = plain_text(request.reason, MAX_TEXT) or "The agent gave no reason."
        step = plain_text(request.step, MAX_STEP) or job.step
        return answer, self._change(jobs.fail(record, now, step, reason), now)

    # -- what an operator does ------------------------------------------------------------------------------------

    def create(
        self,
        machine: Machine,
        image: str,
        image_name: str,
        now: float,
        *,
        debug: bool = False,
        expires: float = 0.0,
        transport: Transport = "auto",
    ) -> tuple[JobRecord, Change]:
        """A new restore job. The machine is known from now on. A job that the machine has already goes first."""
        name = image_name or image[:12]
        job = Job(
            id=self._next_job,
            machine_id=machine.id,
            kind="restore",
            image=image,
            image_name=name,
            state=JobState.PENDING,
            created=now,
            changed=now,
            debug=debug,
            expires=expires,
            transport=transport,
        )
        record = JobRecord(job=job, token=self._secret())
        text = f"Job {job.id} made: {job.kind} of {name}."
        if (before := self.current(machine.id)) is not None:
            text += f" It waits for job {before.id}, which is {before.state}."
        known = () if machine.known else (replace(machine, known=True),)
        return record, Change(machines=known, jobs=(record,), events=(self._event(job, now, "job", text),))

    def cancel(self, job_id: int, now: float) -> Change:
        """Give up an unfinished job. Raises NotFoundError, or RefusedError when it has ended."""
        record = self.record(job_id)
        if record.state in jobs.ENDED:
            raise RefusedError(f"Job {job_id} has ended already: it is {record.state}.")
        return self._change(jobs.cancel(record, now, "Cancelled by an operator."), now)

    def retry(self, job_id: int, now: float, expires: float = 0.0) -> Change:
        """A failed, cancelled or expired job is pending again. Raises NotFoundError or RefusedError."""
        record = self.record(job_id)
        if record.state in jobs.UNFINISHED:
            raise RefusedError(f"Job {job_id} is {record.state}: there is nothing to retry.")
        if record.state is JobState.SUCCEEDED:
            raise RefusedError(f"Job {job_id} succeeded; make a new job to do the same again.")
        new = jobs.retry(record, now, self._secret(), expires)
        text = f"Job {job_id} is to be tried again."
        return Change(jobs=(new,), events=(self._event(new.job, now, "job", text),))

    def fail(self, job_id: int, step: str, reason: str, now: float) -> Change:
        """The server itself finds that a job cannot be done. Raises NotFoundError or RefusedError."""
        record = self.record(job_id)
        if record.state in jobs.ENDED:
            raise RefusedError(f"Job {job_id} has ended already: it is {record.state}.")
        return self._change(jobs.fail(record, now, step, reason), now)

    def remove_machine(self, machine: Machine) -> Change:
        """Forget a machine and its jobs. Raises RefusedError while one of them is unfinished."""
        unfinished = self._unfinished.get(machine.id, ())
        if unfinished:
            record = self._records[unfinished[0]]
            raise RefusedError(
                f"{title(machine)} has job {record.id}, which is {record.state}: cancel it before removing the machine."
            )
        return Change(removed=(machine.id,))

    # -- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float, busy: Container[int] = _NOBODY) -> Change:
        """What time alone decides: expired, unclaimed and silent jobs. Called about once a second."""
        if self._ticked is not None and not -MAX_TICK_GAP <= now - self._ticked <= MAX_TICK_GAP:
            self.restart_clocks(now)
        self._ticked = now
        open_records = [self._records[job_id] for job_id in self._open if job_id not in busy]
        moved = [new for record in open_records if (new := self._timed(record, now)) is not None]
        changes = [self._change(new, now) for new in moved]
        return Change(jobs=tuple(moved), events=tuple(event for change in changes for event in change.events))

    def _timed(self, record: JobRecord, now: float) -> JobRecord | None:
        job = record.job
        if record.state is JobState.PENDING:
            return jobs.expire(record, now) if 0 < job.expires <= now else None
        if record.state is JobState.OFFERED:
            if now - max(record.offered, self._heard.get(job.id, 0.0)) < self.boot_timeout:
                return None
            return jobs.unclaimed(record, now, self._secret(), self.boot_timeout)
        quiet = now - self._heard.setdefault(job.id, now)
        if quiet < self.silence:
            return None
        at = f" at {job.percent:.0f} %" if job.percent else ""
        return jobs.fail(
            record, now, job.step, f"The machine went silent in step {job.step}{at}: no report for {quiet:.0f} s."
        )

    def restart_clocks(self, now: float) -> None:
        """All waiting for agents starts again now: the server was not there to hear them."""
        for job_id in self._open:
            self._heard[job_id] = now

    # -- applying -------------------------------------------------------------------------------------------------

    def load(self, machines: list[Machine], records: list[JobRecord], now: float) -> None:
        """Take over what the database holds; the silence of running jobs counts from now."""
        in_order = sorted(records, key=lambda record: (record.job.changed, record.id))
        self.apply(Change(machines=tuple(machines), jobs=tuple(in_order)))
        self.restart_clocks(now)

    def reserve(self, next_machine: int, next_job: int) -> None:
        """Give no ids below these to new records: ids of removed ones are not used again."""
        self.machines.reserve(next_machine)
        self._next_job = max(self._next_job, next_job)

    def apply(self, change: Change) -> None:
        """Take over a change."""
        for machine_id in change.removed:
            for record in self.of_machine(machine_id) if machine_id in self._last else ():
                self._drop(record)
            self._last.pop(machine_id, None)
        self.machines.apply(change)
        for record in change.jobs:
            self._put(record)

    def _put(self, record: JobRecord) -> None:
        job = record.job
        old = self._records.get(job.id)
        self._records[job.id] = record
        if old is not None and old.token == record.token and old.run == record.run and old.state is record.state:
            return  # progress only
        self._next_job = max(self._next_job, job.id + 1)
        if old is not None and old.token != record.token:
            self._by_token.pop(old.token, None)
        self._by_token[record.token] = job.id
        for run in (record.run, *record.past_runs):
            if run:
                self._by_run[run] = job.id
        mine = self._unfinished.get(job.machine_id, ())
        if record.state in jobs.UNFINISHED:
            self._open[job.id] = None
            if job.id not in mine:
                self._unfinished[job.machine_id] = tuple(sorted((*mine, job.id)))
        else:
            self._open.pop(job.id, None)
            self._last[job.machine_id] = job.id
            left = tuple(one for one in mine if one != job.id)
            if left:
                self._unfinished[job.machine_id] = left
            else:
                self._unfinished.pop(job.machine_id, None)
        if record.state is JobState.RUNNING:
            self._heard[job.id] = record.claimed
        else:
            self._heard.pop(job.id, None)

    def _drop(self, record: JobRecord) -> None:
        del self._records[record.id]
        self._open.pop(record.id, None)
        self._heard.pop(record.id, None)
        self._by_token.pop(record.token, None)
        for run in (record.run, *record.past_runs):
            self._by_run.pop(run, None)

    # -- timeline lines -------------------------------------------------------------------------------------------

    def _event(self, job: Job, now: float, kind: str, text: str) -> Event:
        machine = self.machines.get(job.machine_id)
        mac = machine.macs[0] if machine and machine.macs else ""
        return Event(time=now, mac=mac, kind=kind, text=text, machine_id=job.machine_id, job_id=job.id)

    def _change(self, record: JobRecord, now: float) -> Change:
        """A job's new state with the line that tells it."""
        job = record.job
        if record.state is JobState.FAILED:
            event = self._event(job, now, "failed", f"Job {job.id} failed in step {job.step or 'boot'}: {job.reason}")
        elif record.state is JobState.PENDING:
            event = self._event(job, now, "job", f"{job.reason} Job {job.id} waits for the machine again.")
        else:
            event = self._event(job, now, "job", f"Job {job.id} is {record.state}. {job.reason}".rstrip())
        return Change(jobs=(record,), events=(event,))


def _answer(record: JobRecord) -> ClaimAnswer:
    job = record.job
    return ClaimAnswer(
        job_id=job.id,
        kind=job.kind,
        image=job.image,
        image_name=job.image_name,
        run=record.run,
        debug=job.debug,
        transport=job.transport,
    )


def _number(value: float, most: float) -> float:
    """A peer's figure, made safe to show and to store."""
    return min(value, most) if 0 <= value < math.inf else 0.0
