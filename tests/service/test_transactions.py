"""Transactions end to end over a real database file: what the DHCP path, agents and operators see."""

import asyncio

import pytest

from pxed.errors import NotFoundError, OperatorError, RefusedError
from pxed.service.transactions import Transactions
from pxed.types import ClaimRequest, Event, FinishRequest, Identity, JobState, Report, Verdict
from support.work import IMAGE, START, Clock, Tokens, identity_of, mac_of, make_config, opened, run, uuid_of

ME = identity_of(1)


def request(token, agent="one", number=1):
    return ClaimRequest(token=token, agent=agent, identity=identity_of(number), firmware="bios")


async def boot(tx, number=1, agent="one", now=START):
    """From the check to the claim."""
    _, token = tx.ticket(identity_of(number), now)
    return await tx.claim(request(token, agent, number), now)


def test_what_is_no_mac_is_said(tmp_path):
    async def main():
        async with opened(make_config(tmp_path), Clock()) as tx:
            for mac in ("zz", "01:00:5e:00:00:01"):
                with pytest.raises(RefusedError, match=f"'{mac}' is no machine's MAC address"):
                    await tx.add_machine(mac=mac, serial="7XK2M12")
            assert tx.machines() == []

    run(main())


def test_whole_way_of_a_restore(tmp_path):
    async def main():
        config, clock = make_config(tmp_path), Clock()
        async with opened(config, clock) as tx:
            assert tx.check(ME, START).verdict is Verdict.IGNORE
            machine = await tx.add_machine(mac=mac_of(1), name="lab1")
            assert tx.check(ME, START).verdict is Verdict.NO_WORK
            job = await tx.create_job(machine, IMAGE, "debian", debug=True, transport="cast")
            assert job.state is JobState.PENDING
            assert tx.check(ME, START + 1).verdict is Verdict.WORK
            tx.seen(ME, START + 1, "DISCOVER from BIOS")
            offered, token = tx.ticket(ME, START + 2)
            assert offered.state is JobState.OFFERED and tx.ticket(ME, START + 3)[1] == token
            answer = await tx.claim(request(token), START + 10)
            assert await tx.claim(request(token), START + 10) == answer
            assert answer.image == IMAGE and answer.debug and answer.transport == "cast"
            with pytest.raises(RefusedError, match="another agent"):
                await tx.claim(request(token, "two"), START + 10)
            assert tx.image_for_run(answer.run) == IMAGE and tx.job_for_run(answer.run).id == job.id
            report = Report(step="restore", percent=40.0, rate=1e8)
            assert (await tx.report(answer.run, report, START + 11)).stop == ""
            assert tx.job(job.id).percent == 40.0
            assert (await tx.finish(answer.run, FinishRequest(ok=True, step="finish"), START + 20)).then == "reboot"
            assert tx.job(job.id).state is JobState.SUCCEEDED and tx.image_for_run(answer.run) is None
            assert tx.check(ME, START + 30).verdict is Verdict.NO_WORK
            before = (tx.machines(), tx.jobs(), tx.timeline(1))
            kinds = ["seen", "job", "seen", "check", "claim", "restore", "job", "rebooted"]
            assert [event.kind for event in before[2]] == kinds
            assert await tx.history(1) == before[2]
        async with opened(config, clock) as tx:
            assert (tx.machines(), tx.jobs(), tx.timeline(1)) == before

    run(main())


def test_finding_machines(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            machine = await tx.add_machine(mac=mac_of(1), uuid=uuid_of(1), name="lab1")
            for key in ("lab1", "LAB1", mac_of(1).upper().replace(":", "-"), uuid_of(1), "1"):
                assert tx.find_machine(key) == machine
            assert tx.identify(ME) == machine and tx.identify(identity_of(2)) is None
            for ask in (lambda: tx.find_machine("nobody"), lambda: tx.machine(7), lambda: tx.job(7)):
                with pytest.raises(NotFoundError):
                    ask()

    run(main())


def test_job_for_an_unknown_machine(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            for machine in ("nobody", 7, mac_of(3)):
                with pytest.raises(NotFoundError, match="There is no machine"):
                    await tx.create_job(machine, IMAGE)
            assert tx.jobs() == []

    run(main())


def test_jobs_wanting_an_image(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            machine = await tx.add_machine(mac=mac_of(1))
            first = await tx.create_job(machine, IMAGE)
            second = await tx.create_job(machine.id, IMAGE)
            await tx.create_job(mac_of(1), "cd" * 32)
            assert [job.id for job in tx.jobs_wanting(IMAGE)] == [first.id, second.id]
            await tx.cancel_job(first.id)
            failed = await tx.fail_job(second.id, "boot", "The image was deleted.")
            assert failed.reason == "The image was deleted." and tx.jobs_wanting(IMAGE) == []
            assert (await tx.retry_job(second.id)).state is JobState.PENDING
            assert [job.id for job in tx.jobs_wanting(IMAGE)] == [second.id]

    run(main())


def test_two_jobs_the_second_waits(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            machine = await tx.add_machine(mac=mac_of(1))
            first = await tx.create_job(machine, IMAGE)
            second = await tx.create_job(machine, IMAGE)
            answer = await boot(tx)
            assert answer.job_id == first.id and tx.job(second.id).state is JobState.PENDING
            await tx.finish(answer.run, FinishRequest(ok=False, step="target", reason="No disk."), START)
            assert (await boot(tx)).job_id == second.id

    run(main())


def test_removed_machine_is_forgotten(tmp_path):
    async def main():
        config = make_config(tmp_path)
        async with opened(config) as tx:
            machine = await tx.add_machine(mac=mac_of(1))
            job = await tx.create_job(machine, IMAGE)
            with pytest.raises(RefusedError, match="cancel it before removing"):
                await tx.remove_machine(machine)
            await tx.cancel_job(job.id)
            tx.note(Event(START, mac_of(1), "drop", "A line that is not saved yet."))
            await tx.remove_machine("1")
            assert tx.machines() == [] and tx.jobs() == [] and tx.timeline(1) == []
        async with opened(config) as tx:
            assert tx.machines() == [] and tx.jobs() == [] and await tx.history(1) == []
            assert (await tx.add_machine(mac=mac_of(1))).id == 2  # the first one's timeline is not its own

    run(main())


@pytest.mark.parametrize(("policy", "known"), [("ignore", False), ("hold", False), ("boot", True)])
def test_seen_machines_by_policy(tmp_path, policy, known):
    async def main():
        config = make_config(tmp_path, transaction={"unknown_machines": policy})
        async with opened(config) as tx:
            machine = tx.seen(ME, START, "DISCOVER from BIOS")
            assert machine.known is known
            tx.seen(ME, START + 5, "DISCOVER from BIOS")
            texts = [event.text for event in tx.timeline(machine.id)]
            assert texts == ["Seen for the first time.", "DISCOVER from BIOS (2 times in 5 s)"]
            assert tx.seen(Identity(serial="x"), START) is None
        async with opened(config) as tx:
            assert [one.known for one in tx.machines()] == [known]
            assert [event.text for event in tx.timeline(1)] == texts

    run(main())


def test_sighting_that_turns_out_to_be_a_known_machine(tmp_path):
    async def main():
        config = make_config(tmp_path)
        async with opened(config) as tx:
            tx.seen(ME, START, "DISCOVER through the first NIC")
            machine = await tx.add_machine(mac=mac_of(2))
            tx.seen(Identity(mac=mac_of(2), uuid=uuid_of(1)), START + 9, "DISCOVER through the second NIC")
            timeline = tx.timeline(machine.id)
            assert tx.timeline(1) == [] and {event.machine_id for event in timeline} == {machine.id}
            assert any("the first NIC" in event.text for event in timeline)
        async with opened(config) as tx:
            assert [set(one.macs) for one in tx.machines()] == [{mac_of(1), mac_of(2)}]
            assert tx.timeline(machine.id) == timeline

    run(main())


def test_notes_find_their_machine(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            machine = await tx.add_machine(mac=mac_of(1))
            tx.note(Event(START, mac_of(1).upper(), "offer", "Offered\nundionly.kpxe."))
            tx.note(Event(START, mac_of(9), "drop", "Of a stranger."))
            assert tx.timeline(machine.id)[-1].text == "Offered undionly.kpxe."
            assert tx.timeline(machine.id)[-1].machine_id == machine.id and len(tx.timeline(machine.id)) == 2

    run(main())


def test_live_view(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            with tx.subscribe() as changes:
                machine = await tx.add_machine(mac=mac_of(1))
                await tx.create_job(machine, IMAGE, "debian")
                answer = await boot(tx)
                await tx.report(answer.run, Report(step="restore", percent=12.0), START + 1)
                got = [await anext(changes) for _ in range(9)]
                states = [one.state.value for one in got if not isinstance(one, Event)]
                assert states == ["pending", "offered", "running", "running"]
                kinds = [one.kind for one in got if isinstance(one, Event)]
                assert kinds == ["seen", "job", "check", "claim", "restore"]
            assert [one async for one in changes] == []

    run(main())


def test_watcher_that_does_not_read_costs_little(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            async with tx.subscribe() as changes:
                machine = await tx.add_machine(mac=mac_of(1))
                for number in range(3000):
                    tx.note(Event(START + 60 * number, mac_of(1), "offer", f"Line {number}.", machine.id))
            got = [one async for one in changes]
            assert len(got) == 1000 and got[-1].text == "Line 2999."

    run(main())


def test_reload_takes_over_the_policy(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            tx.configure(make_config(tmp_path, transaction={"unknown_machines": "hold"}, jobs={"silence": 5.0}))
            assert tx.check(ME, START).verdict is Verdict.HOLD
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            await boot(tx)
            tx.tick(START + 4)
            assert tx.jobs()[0].state is JobState.RUNNING
            tx.tick(START + 5)
            assert tx.jobs()[0].state is JobState.FAILED

    run(main())


# -- many at once


def test_hundreds_of_claims_at_once(tmp_path):
    """Two agents race for each token: one of them gets the job, each job once; all are in the database."""

    async def main():
        config, count = make_config(tmp_path), 150
        async with opened(config) as tx:
            for number in range(count):
                await tx.add_machine(mac=mac_of(number), uuid=uuid_of(number))
            await asyncio.gather(*(tx.create_job(mac_of(number), IMAGE) for number in range(count)))
            asks = []
            for number in range(count):
                _, token = tx.ticket(identity_of(number), START)
                asks += [tx.claim(request(token, agent, number), START) for agent in ("one", "two", "one")]
            answers = await asyncio.gather(*asks, return_exceptions=True)
            got = [one for one in answers if not isinstance(one, Exception)]
            assert len({one.run for one in got}) == len({one.job_id for one in got}) == count and len(got) == 2 * count
            assert all(isinstance(one, RefusedError) for one in answers if isinstance(one, Exception))
            runs = {one.run for one in got}
        async with opened(config) as tx:
            assert {job.state for job in tx.jobs()} == {JobState.RUNNING}
            assert all(tx.image_for_run(one) == IMAGE for one in runs)

    run(main())


def test_caller_that_goes_away_does_not_leave_half_a_claim(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            _, token = tx.ticket(ME, START)
            task = asyncio.create_task(tx.claim(request(token), START))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            answer = await tx.claim(request(token), START)  # the agent asks again and has its job
            assert answer.job_id == 1 and tx.job(1).attempts == 1

    run(main())


def test_cancel_and_finish_at_once_have_one_end(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            answer = await boot(tx)
            done = FinishRequest(ok=True, step="finish")
            got = await asyncio.gather(tx.finish(answer.run, done, START + 9), tx.cancel_job(1), return_exceptions=True)
            assert tx.job(1).state is JobState.SUCCEEDED
            assert isinstance(got[1], RefusedError) and "it is succeeded" in str(got[1])

    run(main())


def test_check_does_not_move_a_job_that_is_being_committed(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            answer = await boot(tx)
            task = asyncio.create_task(tx.finish(answer.run, FinishRequest(ok=True, step="finish"), START + 60))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert tx.check(ME, START + 300).verdict is Verdict.HOLD  # a restart, were it not for the commit
            assert tx.ticket(ME, START + 300) is None
            tx.tick(START + 300)
            await task
            assert tx.job(1).state is JobState.SUCCEEDED and tx.check(ME, START + 301).verdict is Verdict.NO_WORK

    run(main())


def test_commands_after_the_end_are_refused(tmp_path):
    async def main():
        async with opened(make_config(tmp_path)) as tx:
            pass
        with pytest.raises(OperatorError, match="The server is stopping"):
            await tx.add_machine(mac=mac_of(1))

    run(main())


def test_progress_is_saved_now_and_then_and_at_the_end(tmp_path):
    async def main():
        config = make_config(tmp_path)
        async with opened(config) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            answer = await boot(tx)
            stored = []
            for second in range(12):
                await tx.report(answer.run, Report(step="restore", percent=float(second)), START + second)
                tx.tick(START + second)
                await tx.history(1)  # everything marked for saving is on the disk after this
                stored.append((await tx._ledger.store.load()).jobs[0].job.percent)
            assert stored == [0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6]
        async with opened(config) as tx:
            assert tx.job(1).percent == 11.0 and tx.job(1).state is JobState.RUNNING

    run(main())


def test_tokens_have_128_bits_and_fit_a_command_line(tmp_path):
    async def main():
        tx = await Transactions.open(make_config(tmp_path))
        await tx.add_machine(mac=mac_of(1))
        await tx.create_job(mac_of(1), IMAGE)
        _, token = tx.ticket(ME, START)
        await tx.close()
        assert len(token) == 22 and token.isascii() and token.replace("-", "").replace("_", "").isalnum()

    run(main())


def test_agent_cannot_learn_machines_into_existence(tmp_path):
    async def main():
        async with opened(make_config(tmp_path), tokens=Tokens()) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE)
            _, token = tx.ticket(ME, START)
            for bad in (request("guess"), request(token, number=5)):
                with pytest.raises(RefusedError):
                    await tx.claim(bad, START)
            assert [machine.macs for machine in tx.machines()] == [(mac_of(1),)]

    run(main())
