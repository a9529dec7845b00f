"""The database cannot be written: whoever needs it hears why, everything else goes on and is saved later."""

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from structlog.testing import capture_logs

from pxed.errors import OperatorError
from pxed.types import ClaimRequest, Event, FinishRequest, JobState, Report, Verdict
from support.work import IMAGE, START, identity_of, mac_of, make_config, opened, run

ME = identity_of(1)
READ_ONLY = ("PRAGMA query_only=ON", "PRAGMA query_only=OFF", "read-only: check the mount")
FULL = ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1073741823", "the disk is full")


@contextmanager
def trouble(tx, pragmas):
    """SQLite itself says what it says on a read-only or full disk; each connection is asked when next used."""
    begin, end, _ = pragmas
    engine = tx._ledger.store._engine.sync_engine
    asked = begin

    def ask(connection, _record, _proxy):
        cursor = connection.cursor()
        cursor.execute(asked)
        cursor.close()

    event.listen(engine, "checkout", ask)
    yield
    asked = end


def request(token, agent="one"):
    return ClaimRequest(token=token, agent=agent, identity=ME)


@pytest.mark.parametrize("pragmas", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_running_jobs_go_on_and_the_rest_is_told(tmp_path, pragmas):
    async def main():
        config = make_config(tmp_path)
        async with opened(config) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE, "debian")
            await tx.add_machine(mac=mac_of(2))
            await tx.create_job(mac_of(2), IMAGE, "debian")
            _, token = tx.ticket(ME, START)
            answer = await tx.claim(request(token), START)
            _, waiting = tx.ticket(identity_of(2), START)
            await tx.history(1)
            with trouble(tx, pragmas):
                big = "x" * 400  # a full disk refuses what needs a new page
                for number in range(60):
                    tx.note(Event(START + number, mac_of(1), "drop", f"{number} {big}"))
                with pytest.raises(OperatorError, match=pragmas[2]):
                    for number in range(1000, 2000):  # what fits into half-empty pages is still saved
                        await tx.add_machine(mac=mac_of(number), product="p" * 60)
                assert pragmas[2].split(":")[0] in tx.trouble
                assert tx.image_for_run(answer.run) == IMAGE  # the running restore reads on
                report = Report(step="restore", percent=55.0, message="Half of it.")
                assert (await tx.report(answer.run, report, START + 5)).stop == ""
                assert tx.job(1).percent == 55.0
                assert tx.check(identity_of(9), START).verdict is Verdict.IGNORE
                assert tx.seen(identity_of(9), START + 6, "DISCOVER").id
                tx.tick(START + 10)
            assert (await tx.claim(ClaimRequest(waiting, "two", identity_of(2)), START + 11)).job_id == 2
            await tx.history(1)
            assert tx.trouble == ""
            await tx.finish(answer.run, FinishRequest(ok=True, step="finish"), START + 12)
            before = (tx.machines(), tx.jobs(), tx.timeline(1))
        async with opened(config) as tx:
            assert (tx.machines(), tx.jobs(), tx.timeline(1)) == before
            assert any("Half of it." in event.text for event in tx.timeline(1))

    run(main())


def test_refused_command_changed_nothing(tmp_path):
    async def main():
        config = make_config(tmp_path)
        async with opened(config) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            _, token = tx.ticket(ME, START)
            await tx.history(1)
            before = (tx.machines(), tx.jobs(), tx.timeline(1))
            with trouble(tx, READ_ONLY):
                for ask in (
                    lambda: tx.claim(request(token), START),
                    lambda: tx.cancel_job(1),
                    lambda: tx.create_job(1, IMAGE),
                    lambda: tx.add_machine(mac=mac_of(5)),
                ):
                    with pytest.raises(OperatorError, match="cannot be used: it is read-only"):
                        await ask()
                assert (tx.machines(), tx.jobs(), tx.timeline(1)) == before
            answer = await tx.claim(request(token), START)  # the same token, as if nothing had been
            with trouble(tx, READ_ONLY):
                with pytest.raises(OperatorError):
                    await tx.finish(answer.run, FinishRequest(ok=True, step="finish"), START + 50)
                assert tx.job(1).state is JobState.RUNNING
                tx.tick(START + 100)  # the agent that asks again was heard: it is not silent
                assert tx.job(1).state is JobState.RUNNING
            await tx.finish(answer.run, FinishRequest(ok=True, step="finish"), START + 101)
            assert tx.job(1).state is JobState.SUCCEEDED

    run(main())


def test_history_has_what_could_not_be_saved(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            await tx.add_machine(mac=mac_of(1))
            for number in range(120):  # more than memory keeps
                tx.note(Event(START + number * 61, mac_of(1), "seen", f"before {number}", 1))
            begin = await tx.history(1)
            with trouble(tx, READ_ONLY):
                late = START + 120 * 61
                tx.note(Event(late, mac_of(1), "seen", "during"))
                tx.note(Event(late + 1, mac_of(1), "seen", "during"))
                for number in range(1, 121):
                    tx.note(Event(late + number * 61, mac_of(1), "seen", f"during {number}"))
                shown = await tx.history(1)
                assert await tx.history(1) == shown
            assert shown[: len(begin)] == begin
            texts = [event.text for event in shown[len(begin) :]]
            assert texts == ["during (2 times in 1 s)", *(f"during {number}" for number in range(1, 121))]
            assert await tx.history(1) == shown  # and all of it is saved when that works
            assert tx.trouble == ""
            assert [line.shown() for line in await tx._ledger.store.history(1)] == shown
            await tx.remove_machine(1)
            assert await tx.history(1) == []

    run(main())


def test_end_of_the_server_with_a_disk_that_stays_away(tmp_path):
    async def main():
        tx_config = make_config(tmp_path)
        async with opened(tx_config) as tx:
            await tx.add_machine(mac=mac_of(1))
            async with tx._ledger.store._engine.connect() as connection:
                await connection.exec_driver_sql(READ_ONLY[0])
            tx.seen(identity_of(2), START, "DISCOVER")
        return tx

    with capture_logs() as logs:
        run(main())
    last = logs[-1]
    assert last["event"] == "not saved at the end" and (last["machines"], last["jobs"], last["lines"]) == (1, 0, 2)
    assert [entry["event"] for entry in logs].count(
        "nothing can be saved; booting and running jobs go on from memory"
    ) == 1


IN_TMPFS = """
    import asyncio, subprocess, sys
    from pathlib import Path
    from support.work import IMAGE, START, identity_of, mac_of, make_config, opened
    from pxed.errors import OperatorError
    from pxed.log import set_up
    from pxed.service.transactions import Transactions
    from pxed.types import ClaimRequest, FinishRequest, Report

    async def main(place):
        config = make_config(place)
        async with opened(config) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            _, token = tx.ticket(identity_of(1), START)
            answer = await tx.claim(ClaimRequest(token, "one", identity_of(1)), START)
            ballast = place / "ballast"
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError as error:
                    print("ballast:", error.strerror)
            try:
                for number in range(2, 2000):
                    await tx.add_machine(mac=mac_of(number), product="p" * 60)
            except OperatorError as error:
                print("told:", error)
            await tx.report(answer.run, Report(step="restore", percent=77.0), START + 1)
            print("percent:", tx.job(1).percent)
            ballast.unlink()
            await tx.finish(answer.run, FinishRequest(ok=True, step="finish"), START + 2)
            machines = len(tx.machines())
        async with opened(config) as tx:
            print("after:", tx.job(1).state, len(tx.machines()) == machines)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        try:
            await Transactions.open(config)
        except OperatorError as error:
            print("read-only:", error)

    set_up("critical")
    asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.root
def test_disk_that_is_really_full_and_really_read_only(tmp_path):
    """A tmpfs of half a megabyte in a mount namespace of its own."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(IN_TMPFS))
    place = tmp_path / "small"
    place.mkdir()
    shell = 'mount -t tmpfs -o size=512k pxed-test "$1" && exec "$2" "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, "sh", place, sys.executable, script],
        env=os.environ | {"PYTHONPATH": ":".join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert said["ballast"] == "No space left on device"
    assert "cannot be used: the disk is full" in said["told"]
    assert said["percent"] == "77.0" and said["after"] == "succeeded True"
    assert "cannot be" in said["read-only"] and "ead-only" in said["read-only"]
