"""The store: what is saved comes back, all or nothing, in any order of records."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed.errors import InternalError
from pxed.store import Batch, Store
from pxed.store.records import job_of, job_row, line_of, line_row
from pxed.store.store import LINE_AGE
from pxed.types import Event, Job, JobState, Machine
from pxed.work.jobs import JobRecord
from pxed.work.timeline import KEPT, Line
from support.work import mac_of, run, uuid_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
floats = st.floats(allow_nan=False, allow_infinity=False)
ints = st.integers(0, 2**40)
jobs = st.builds(
    Job,
    id=st.integers(1, 9),
    machine_id=st.just(1),
    kind=st.just("restore"),
    image=texts,
    image_name=texts,
    state=st.sampled_from(JobState),
    created=floats,
    changed=floats,
    generation=ints,
    attempts=ints,
    step=texts,
    percent=floats,
    rate=floats,
    reason=texts,
    debug=st.booleans(),
    expires=floats,
)
tokens = st.text("abcXYZ019-_", min_size=1, max_size=22)
records = st.builds(
    JobRecord,
    job=jobs,
    token=tokens,
    run=tokens,
    agent=texts,
    offers=ints,
    offered=floats,
    claimed=floats,
    firmware=st.sampled_from(["", "bios", "uefi"]),
    past_runs=st.lists(tokens, max_size=8).map(tuple),
)
events = st.builds(
    Event,
    time=floats,
    mac=st.just(mac_of(1)),
    kind=st.just("job"),
    text=texts,
    machine_id=st.none() | ints,
    job_id=st.none() | ints,
)
lines = st.builds(Line, id=ints, event=events, count=ints, last=floats)


def machine(number, **fields):
    return Machine(id=number, macs=(mac_of(number),), uuid=uuid_of(number), **fields)


def record(number, state=JobState.PENDING, machine_id=1, **fields):
    job = Job(number, machine_id, "restore", "ab", "debian", state, 1.0, 1.0)
    return JobRecord(job=job, **({"token": f"token-{number}"} | fields))


def line(number, machine_id=1, time=100.0):
    return Line(number, Event(time, mac_of(1), "job", f"Line {number}.", machine_id), 1, time)


def batch(machines=(), jobs=(), lines=(), removed=()):
    return Batch(
        machines={one.id: one for one in machines},
        jobs={one.id: one for one in jobs},
        lines={one.id: one for one in lines},
        removed=set(removed),
    )


async def saved(path, *batches):
    """Save, close, open and load."""
    store = await Store.open(path)
    try:
        for one in batches:
            await store.save(one)
    finally:
        await store.close()
    store = await Store.open(path)
    try:
        return await store.load()
    finally:
        await store.close()


@given(records)
def test_job_rows(one):
    assert job_of(job_row(one)) == one


@given(lines)
def test_line_rows(one):
    assert line_of(line_row(one)) == one


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=records, lines=st.lists(lines, unique_by=lambda one: one.id, max_size=5))
def test_round_trip_through_the_file(tmp_path_factory, record, lines):
    known = Machine(1, (mac_of(3), mac_of(1), mac_of(2)), uuid_of(1), "s", "m", "p", "näme", True, 1.5, 2.5)
    path = tmp_path_factory.mktemp("store") / "pxed.db"
    loaded = run(saved(path, batch([known], [record], lines)))
    assert loaded.machines == [known] and loaded.jobs == [record]
    mine = sorted((one for one in lines if one.event.machine_id is not None), key=lambda one: one.id)
    assert loaded.lines == mine
    assert loaded.counters["line"] == max((one.id + 1 for one in lines), default=1)


def test_newer_records_replace_older_ones(tmp_path):
    first, second = machine(1, name="a"), Machine(1, (mac_of(2), mac_of(1)), name="b")
    loaded = run(saved(tmp_path / "db", batch([first], [record(1)]), batch([second], [record(1, JobState.EXPIRED)])))
    assert loaded.machines == [second] and loaded.jobs == [record(1, JobState.EXPIRED)]


def test_removed_machine_takes_everything_along(tmp_path):
    before = batch([machine(1), machine(2)], [record(1), record(2, machine_id=2)], [line(1), line(2, 2)])
    loaded = run(saved(tmp_path / "db", before, batch(removed=[1])))
    assert loaded.machines == [machine(2)] and [one.id for one in loaded.jobs] == [2]
    assert [one.id for one in loaded.lines] == [2]


def test_mac_of_a_removed_machine_goes_to_another_in_one_batch(tmp_path):
    kept = Machine(2, (mac_of(2), mac_of(1)))
    loaded = run(saved(tmp_path / "db", batch([machine(1), machine(2)]), batch([kept], removed=[1])))
    assert loaded.machines == [kept]


def test_one_job_ends_and_another_begins_in_one_batch(tmp_path):
    """In whatever order they come, the machine has one active job at any moment of the transaction."""
    begin = batch([machine(1)], [record(1, JobState.RUNNING), record(2)])
    for first, second in ((1, 2), (2, 1)):
        path = tmp_path / f"db{first}"
        later = batch(jobs=[record(first, JobState.OFFERED), record(second, JobState.FAILED)])
        before = begin if first == 2 else batch([machine(1)], [record(2, JobState.RUNNING), record(1)])
        assert [one.state for one in sorted(run(saved(path, before, later)).jobs, key=lambda one: one.id)].count(
            JobState.OFFERED
        ) == 1


def test_two_active_jobs_are_a_bug_that_the_database_refuses(tmp_path):
    with pytest.raises(InternalError, match="refused a batch as contradictory"):
        run(saved(tmp_path / "db", batch([machine(1)], [record(1, JobState.RUNNING), record(2, JobState.OFFERED)])))


def test_batch_is_all_or_nothing(tmp_path):
    async def main():
        store = await Store.open(tmp_path / "db")
        bad = batch([machine(1)], [record(1), record(2, machine_id=99)])  # there is no machine 99
        with pytest.raises(InternalError):
            await store.save(bad)
        loaded = await store.load()
        await store.close()
        return loaded

    loaded = run(main())
    assert loaded.machines == [] and loaded.jobs == []


def test_load_takes_the_newest_lines_and_history_has_all(tmp_path):
    async def main():
        store = await Store.open(tmp_path / "db")
        await store.save(batch([machine(1), machine(2)], lines=[line(n, 1 + n % 2) for n in range(1, 401)]))
        loaded, history, short = await store.load(), await store.history(1), await store.history(1, limit=3)
        await store.prune(100.0 + LINE_AGE)
        kept = len(await store.history(1))
        await store.prune(101.0 + LINE_AGE)
        left = await store.history(1)
        await store.close()
        return loaded, history, short, kept, left

    loaded, history, short, kept, left = run(main())
    assert len(loaded.lines) == 2 * KEPT and loaded.lines[-1].id == 400
    assert [one.id for one in loaded.lines] == sorted(one.id for one in loaded.lines)
    assert len(history) == kept == 200 and [one.event.text for one in short] == ["Line 396.", "Line 398.", "Line 400."]
    assert left == []


def test_thousands_in_one_batch(tmp_path):
    many = [machine(n) for n in range(1, 3001)]
    later = batch([machine(n, name=f"n{n}") for n in range(1, 3001)], removed=range(1, 1500, 2))
    for number in list(later.removed):
        del later.machines[number]
    loaded = run(saved(tmp_path / "db", batch(many), later))
    assert len(loaded.machines) == 3000 - 750


def test_update_lets_the_later_win_and_removal_count():
    one = batch([machine(1)], [record(1)], [line(1), line(2, 2)])
    one.update(batch([machine(1, name="x"), machine(2)], [record(2, machine_id=2)], removed=[]))
    assert one.machines[1].name == "x" and bool(one)
    one.update(batch(removed=[1]))
    assert list(one.machines) == [2] and list(one.jobs) == [2] and list(one.lines) == [2] and one.removed == {1}
    assert not Batch()
