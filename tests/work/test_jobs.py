"""The state table, exhaustively: every legal move happens, every other one is refused by name."""

import itertools

import pytest

from pxed.errors import InternalError
from pxed.types import Job, JobState
from pxed.work import jobs
from pxed.work.jobs import MOVES, JobRecord

S = JobState
LEGAL = {
    (S.PENDING, S.OFFERED),
    (S.PENDING, S.FAILED),
    (S.PENDING, S.CANCELLED),
    (S.PENDING, S.EXPIRED),
    (S.OFFERED, S.RUNNING),
    (S.OFFERED, S.PENDING),
    (S.OFFERED, S.FAILED),
    (S.OFFERED, S.CANCELLED),
    (S.RUNNING, S.SUCCEEDED),
    (S.RUNNING, S.PENDING),
    (S.RUNNING, S.FAILED),
    (S.RUNNING, S.CANCELLED),
    (S.FAILED, S.PENDING),
    (S.CANCELLED, S.PENDING),
    (S.EXPIRED, S.PENDING),
}


def record_in(state, **fields):
    job = Job(1, 1, "restore", "ab", "debian", state, 10.0, 10.0, **fields)
    return JobRecord(job=job, token="t")


# Every way to move, and the state it leads to.
WAYS = {
    "offer": (S.OFFERED, lambda r: jobs.offer(r, 20.0)),
    "claim": (S.RUNNING, lambda r: jobs.claim(r, 20.0, "a", "run", "bios")),
    "restarted": (S.PENDING, lambda r: jobs.restarted(r, 20.0, "t2")),
    "unclaimed": (S.PENDING, lambda r: jobs.unclaimed(r, 20.0, "t2", 600)),
    "fail": (S.FAILED, lambda r: jobs.fail(r, 20.0, "restore", "no")),
    "succeed": (S.SUCCEEDED, lambda r: jobs.succeed(r, 20.0)),
    "cancel": (S.CANCELLED, lambda r: jobs.cancel(r, 20.0, "no")),
    "expire": (S.EXPIRED, lambda r: jobs.expire(r, 20.0)),
    "retry": (S.PENDING, lambda r: jobs.retry(r, 20.0, "t2", 0.0)),
}


def test_table_is_what_the_rules_say():
    assert {(old, new) for old, news in MOVES.items() for new in news} == LEGAL
    assert set(MOVES) == set(JobState)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobState, JobState)))
def test_every_pair_of_states(old, new):
    record = record_in(old)
    assert jobs.can_move(old, new) == ((old, new) in LEGAL)
    if (old, new) in LEGAL:
        moved = jobs._set_state(record, new, 20.0)
        assert moved.state is new and moved.job.changed == 20.0 and record.state is old
    else:
        with pytest.raises(InternalError, match=rf"Job 1 cannot go from {old} to {new}\."):
            jobs._set_state(record, new, 20.0)


@pytest.mark.parametrize(("way", "old"), list(itertools.product(WAYS, JobState)))
def test_every_way_from_every_state(way, old):
    new, move = WAYS[way]
    if way == "offer" and old is S.OFFERED:  # offered again: no move
        assert move(record_in(old)).state is S.OFFERED
    elif (old, new) in LEGAL:
        assert move(record_in(old)).state is new
    else:
        with pytest.raises(InternalError, match=f"from {old} to {new}"):
            move(record_in(old))


def test_nothing_leaves_succeeded():
    assert MOVES[S.SUCCEEDED] == frozenset()


def test_kinds_of_states():
    assert {S.OFFERED, S.RUNNING} == jobs.ACTIVE
    assert {S.PENDING, S.OFFERED, S.RUNNING} == jobs.UNFINISHED
    assert {S.SUCCEEDED, S.FAILED, S.CANCELLED, S.EXPIRED} == jobs.ENDED


def test_pending_again_is_a_new_generation_with_a_new_token():
    running = jobs.claim(jobs.offer(record_in(S.PENDING), 11.0), 12.0, "agent", "run", "uefi")
    again = jobs.restarted(running, 20.0, "t2")
    assert (again.job.generation, again.token, again.run, again.agent) == (2, "t2", "", "")
    assert again.past_runs == ("run",) and again.job.attempts == 1 and again.job.percent == 0.0
    assert again.job.reason == "The machine restarted during claim."


def test_last_attempt_fails_at_a_restart():
    running = record_in(S.RUNNING, attempts=jobs.MAX_ATTEMPTS, step="restore")
    failed = jobs.restarted(running, 20.0, "t2")
    assert failed.state is S.FAILED and failed.job.step == "restore"
    assert failed.job.reason == "The machine restarted during restore; 3 attempts were made."


def test_same_boot_is_one_offer():
    first = jobs.offer(record_in(S.PENDING), 100.0)
    assert first.offers == 1
    assert jobs.offer(first, 100.0 + jobs.OFFER_REPEAT - 1) is first
    second = jobs.offer(first, 100.0 + jobs.OFFER_REPEAT)
    assert second.offers == 2 and second.token == first.token and second.job.generation == 1


def test_loop_guard():
    record = record_in(S.PENDING)
    now = 100.0
    for _ in range(jobs.MAX_OFFERS):
        assert not jobs.exhausted(record, now)
        record = jobs.offer(record, now)
        assert not jobs.exhausted(record, now + 1)
        now += 60
    assert jobs.exhausted(record, now)
    assert jobs.unclaimed(record, now, "t2", 600.0).state is S.FAILED


def test_retry_starts_the_counts_again():
    failed = jobs.fail(record_in(S.RUNNING, attempts=3, generation=5), 20.0, "restore", "no")
    again = jobs.retry(failed, 30.0, "t9", 99.0)
    assert (again.job.attempts, again.offers, again.job.generation, again.job.expires) == (0, 0, 6, 99.0)
    assert again.job.reason == ""


def test_past_runs_are_bounded():
    record = record_in(S.RUNNING)
    for number in range(20):
        claimed = jobs.claim(jobs.offer(record_in(S.PENDING), 1.0), 1.0, "a", f"run{number}", "")
        claimed = JobRecord(job=claimed.job, token="t", run=f"run{number}", past_runs=record.past_runs)
        record = jobs.restarted(claimed, 2.0, "t")
    assert len(record.past_runs) == jobs.PAST_RUNS and record.past_runs[0] == "run19"
