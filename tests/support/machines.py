"""A stand-in for service.transactions where a test is about the wire: every machine gets the same verdict."""

from pxed.errors import RefusedError
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
    Verdict,
)

TOKEN = "t0ken"
RUN = "r4n"
IMAGE = "ab" * 32


class Machines:
    """Remembers what it was told: `events`, `sightings`, `tickets`, `failed`."""

    def __init__(self, verdict: Verdict = Verdict.WORK, reason: str = "Job 7 restores demo here.") -> None:
        self.verdict = verdict
        self.reason = reason
        self.events: list[Event] = []
        self.sightings: list[tuple[Identity, str]] = []
        self.tickets = 0
        self.failed: list[tuple[int, str, str]] = []  # (job, step, reason)
        self.image = IMAGE
        self.failure: Exception | None = None
        self.the_job = Job(7, 1, "restore", IMAGE, "demo", JobState.PENDING, 0.0, 0.0)

    def seen(self, identity: Identity, now: float, text: str = "") -> None:
        self.sightings.append((identity, text))

    def check(self, identity: Identity, now: float) -> Check:
        return Check(self.verdict, self.reason, machine_id=1, job_id=7 if self.verdict is Verdict.WORK else None)

    def asked(self, identity: Identity, now: float) -> Check:
        self.seen(identity, now)
        return self.check(identity, now)

    def ticket(self, identity: Identity, now: float) -> tuple[Job, str] | None:
        self.tickets += 1
        return self.the_job, TOKEN

    def job(self, job_id: int) -> Job:
        return self.the_job

    async def fail_job(self, job_id: int, step: str, reason: str) -> Job:
        if self.failure:
            raise self.failure
        self.failed.append((job_id, step, reason))
        return self.the_job

    def note(self, event: Event) -> None:
        self.events.append(event)

    def machine(self, machine_id: int) -> Machine:
        return Machine(machine_id, ("52:54:00:00:00:01",), name="pc-one")

    def job_for_run(self, run: str) -> Job | None:
        return self.the_job if run == RUN else None

    def image_for_run(self, run: str) -> str | None:
        return self.image if run == RUN else None

    async def claim(self, claim: ClaimRequest, now: float) -> ClaimAnswer:
        if self.failure:
            raise self.failure
        if claim.token != TOKEN:
            raise RefusedError("This token is of no job.")
        return ClaimAnswer(7, "restore", IMAGE, "demo", RUN)

    async def report(self, run: str, report: Report, now: float) -> ReportAnswer:
        return ReportAnswer(stop="" if run == RUN else "The job was cancelled.")

    async def finish(self, run: str, finish: FinishRequest, now: float) -> FinishAnswer:
        return FinishAnswer()
