"""The life of a job: its states, the moves between them, and the numbers that keep it from looping.

    pending ──► offered ──► running ──► succeeded
       ▲  │        │ │         │ │
       │  │        │ └─────────┼─┴────► failed ──┐
       │  └────────┴───────────┴──────► cancelled ┼─► pending (retry)
       │  └───────────────────────────► expired ──┘
       └── the offer was not taken up in time; the machine restarted in the middle

- A job is *offered* when the machine's preboot client is given the kernel's command line with the job's token, and
  *running* when the agent has claimed it with that token.
- A token is good for one generation of the job and one agent. Each time the job becomes pending again its generation
  grows and it gets a new token, so whatever an earlier boot still holds is worthless.
- Nothing here loops: a job is offered at most MAX_OFFERS times per attempt without a claim, and claimed at most
  MAX_ATTEMPTS times; a person's retry starts both counts again.

Everything here is a pure function from a record to a record; `work.registry` keeps the records. No I/O, clock or
randomness: `now` and new tokens are arguments.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pxed.errors import InternalError
from pxed.types import Job, JobState, Step

__all__ = [
    "ACTIVE",
    "ENDED",
    "MAX_ATTEMPTS",
    "MAX_OFFERS",
    "MOVES",
    "OFFER_REPEAT",
    "RESTART_QUIET",
    "UNFINISHED",
    "JobRecord",
    "can_move",
]

# Claims of one job before it is given up. One retry covers a tripped cable or an impatient person at the power
# button; a machine that restarts in the middle three times has a fault that a fourth try will not cure.
MAX_ATTEMPTS = 3

# Boots of the environment without a claim before the job is given up: the kernel hangs or panics on this hardware,
# or its network driver is missing.
MAX_OFFERS = 3

# Seconds within which a repeated question for the token is the same boot (iPXE fetches a script again when a
# packet was lost). The quickest real restart, a virtual machine with no POST, needs longer to come back this far.
OFFER_REPEAT = 15.0

# Seconds without a word from the agent after which firmware asking for boot means that the machine restarted. Agents
# report every second; a machine needs longer than this from reset to its first DISCOVER. A stray, late or
# forged DISCOVER for a machine whose agent is talking therefore never ends a restore.
RESTART_QUIET = 5.0

# Run tokens of earlier attempts that are remembered, so that an agent left over from one is told to stop.
PAST_RUNS = 8

# The state table: every legal move. Nothing leaves SUCCEEDED.
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.OFFERED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}),
    JobState.OFFERED: frozenset({JobState.RUNNING, JobState.PENDING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.PENDING, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.PENDING}),
    JobState.CANCELLED: frozenset({JobState.PENDING}),
    JobState.EXPIRED: frozenset({JobState.PENDING}),
}

ACTIVE = frozenset({JobState.OFFERED, JobState.RUNNING})  # at most one of these per machine
UNFINISHED = ACTIVE | {JobState.PENDING}
ENDED = frozenset(JobState) - UNFINISHED


class JobRecord(Struct, frozen=True):
    """A job with what the server keeps to itself.

    `token` and `run` are stored as they are, not hashed: the token must be given again to firmware that asks again
    (also after a restart of the server), and a repeated claim must be answered with the same run. They are worth
    one job on one machine, and the database is readable by the server's user only.
    """

    job: Job
    token: str  # on the kernel's command line; good for one claim
    run: str = ""  # bearer token of the running attempt
    agent: str = ""  # who claimed
    offers: int = 0  # boots of the environment since the last claim
    offered: float = 0.0  # when the newest of them began
    claimed: float = 0.0
    firmware: str = ""  # "bios" or "uefi", as the agent says
    past_runs: tuple[str, ...] = ()

    @property
    def id(self) -> int:
        """The job's id."""
        return self.job.id

    @property
    def state(self) -> JobState:
        """The job's state."""
        return self.job.state


def can_move(old: JobState, new: JobState) -> bool:
    """True when the state table allows it."""
    return new in MOVES[old]


def _set_state(record: JobRecord, state: JobState, now: float, **changes: Any) -> JobRecord:
    """The only way a job's state changes. `changes` are fields of Job. Raises InternalError for an illegal move."""
    if not can_move(record.state, state):
        raise InternalError(f"Job {record.id} cannot go from {record.state} to {state}.")
    return replace(record, job=replace(record.job, state=state, changed=now, **changes))


def _again(record: JobRecord, now: float, token: str, reason: str, **changes: Any) -> JobRecord:
    """Pending once more: the next generation, with a new token."""
    past = (record.run, *record.past_runs)[:PAST_RUNS] if record.run else record.past_runs
    moved = _set_state(
        record,
        JobState.PENDING,
        now,
        generation=record.job.generation + 1,
        step="",
        percent=0.0,
        rate=0.0,
        reason=reason,
        **changes,
    )
    return replace(moved, token=token, run="", agent="", offered=0.0, claimed=0.0, past_runs=past)


def offer(record: JobRecord, now: float) -> JobRecord:
    """The machine was given the token: first (pending → offered) or again (still offered).

    Asked again within OFFER_REPEAT of the last time it is the same boot; later it counts as one more.
    The caller looks at `exhausted` first.
    """
    if record.state is JobState.OFFERED:
        same_boot = now - record.offered < OFFER_REPEAT
        return record if same_boot else replace(record, offers=record.offers + 1, offered=now)
    moved = _set_state(record, JobState.OFFERED, now, step=Step.BOOT.value, reason="")
    return replace(moved, offers=record.offers + 1, offered=now)


def exhausted(record: JobRecord, now: float) -> bool:
    """True when one more boot of the environment would be one too many (the loop guard)."""
    if record.state is JobState.OFFERED and now - record.offered < OFFER_REPEAT:
        return False
    return record.offers >= MAX_OFFERS


def claim(record: JobRecord, now: float, agent: str, run: str, firmware: str) -> JobRecord:
    """The agent has the job: offered → running."""
    moved = _set_state(record, JobState.RUNNING, now, attempts=record.job.attempts + 1, step=Step.CLAIM.value)
    return replace(moved, agent=agent, run=run, firmware=firmware, claimed=now, offers=0)


def restarted(record: JobRecord, now: float, token: str) -> JobRecord:
    """The machine restarted in the middle: pending again, or failed when that was the last attempt."""
    job = record.job
    where = f"during {job.step}" if job.step else "in the middle"
    if job.attempts >= MAX_ATTEMPTS:
        return fail(record, now, job.step, f"The machine restarted {where}; {job.attempts} attempts were made.")
    return _again(record, now, token, f"The machine restarted {where}.")


def unclaimed(record: JobRecord, now: float, token: str, timeout: float) -> JobRecord:
    """No claim within the boot timeout: pending again, or failed when that was the last offer."""
    reason = f"The machine was given the environment and its agent did not claim the job within {timeout:.0f} s"
    if record.offers >= MAX_OFFERS:
        return fail(record, now, Step.BOOT.value, f"{reason}, {record.offers} times.")
    return _again(record, now, token, f"{reason}.")


def fail(record: JobRecord, now: float, step: str, reason: str) -> JobRecord:
    """Failed in `step`, with a sentence."""
    return _set_state(record, JobState.FAILED, now, step=step, reason=reason, rate=0.0)


def succeed(record: JobRecord, now: float) -> JobRecord:
    """Done, exactly once."""
    return _set_state(record, JobState.SUCCEEDED, now, step=Step.FINISH.value, percent=100.0, rate=0.0, reason="")


def cancel(record: JobRecord, now: float, reason: str) -> JobRecord:
    """Given up by a person."""
    return _set_state(record, JobState.CANCELLED, now, reason=reason, rate=0.0)


def expire(record: JobRecord, now: float) -> JobRecord:
    """A pending job whose time is over."""
    return _set_state(record, JobState.EXPIRED, now, reason="The machine did not ask for work before the job expired.")


def retry(record: JobRecord, now: float, token: str, expires: float) -> JobRecord:
    """A person wants it tried again: both counts start anew."""
    moved = _again(record, now, token, "", attempts=0, expires=expires)
    return replace(moved, offers=0)
