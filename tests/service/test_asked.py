"""Firmware that asks again: the same answer without a look, until something has happened, or a second has passed."""

import asyncio

import pytest
from msgspec.structs import replace

from pxed.service import ledger
from pxed.service.transactions import REPEATED
from pxed.types import ClaimRequest, Event, Verdict
from support.work import IMAGE, START, Clock, identity_of, mac_of, make_config, opened, run

ME, OTHER = identity_of(1), identity_of(2)


def test_a_job_is_known_to_the_next_request(tmp_path):
    async def main():
        async with opened(make_config(tmp_path), Clock()) as tx:
            assert tx.asked(ME, START).verdict is Verdict.IGNORE
            await tx.add_machine(mac=mac_of(1))
            assert tx.asked(ME, START).verdict is Verdict.NO_WORK
            job = await tx.create_job(mac_of(1), IMAGE, "debian")
            assert tx.asked(ME, START).verdict is Verdict.WORK
            assert tx.asked(OTHER, START).verdict is Verdict.IGNORE
            await tx.cancel_job(job.id)
            assert tx.asked(ME, START).verdict is Verdict.NO_WORK
            await tx.remove_machine(mac_of(1))
            assert tx.asked(ME, START).verdict is Verdict.IGNORE

    run(main())


def test_a_claim_is_known_while_it_is_being_saved_and_after(tmp_path):
    async def main():
        async with opened(make_config(tmp_path), Clock()) as tx:
            await tx.add_machine(mac=mac_of(1))
            await tx.create_job(mac_of(1), IMAGE, "debian")
            _, token = tx.ticket(ME, START)
            assert tx.asked(ME, START).verdict is Verdict.WORK
            claim = asyncio.create_task(tx.claim(ClaimRequest(token, "one", ME), START))
            while tx.asked(ME, START).verdict is Verdict.WORK:
                await asyncio.sleep(0)
            assert tx.asked(ME, START) == tx.check(ME, START)
            await claim
            assert tx.asked(ME, START).verdict is Verdict.HOLD
            assert tx.asked(ME, START) == tx.check(ME, START)

    run(main())


def test_policy_is_taken_over_at_once(tmp_path):
    async def main():
        config = make_config(tmp_path)
        async with opened(config, Clock()) as tx:
            assert tx.asked(ME, START).verdict is Verdict.IGNORE
            tx.configure(replace(config, transaction=replace(config.transaction, unknown_machines="hold")))
            assert tx.asked(ME, START).verdict is Verdict.HOLD

    run(main())


@pytest.mark.parametrize(("later", "seen"), [(0.5 * REPEATED, START), (REPEATED, START + REPEATED)])
def test_last_seen_is_as_old_as_an_answer_may_be(tmp_path, later, seen):
    async def main():
        async with opened(make_config(tmp_path), Clock()) as tx:
            tx.asked(ME, START)
            tx.asked(ME, START + later)
            assert tx.identify(ME).last_seen == seen

    run(main())


def test_counts_of_repetitions_are_saved_after_a_while_and_at_the_end(tmp_path):
    async def main():
        config = make_config(tmp_path)
        async with opened(config, Clock()) as tx:
            machine = await tx.add_machine(mac=mac_of(1))
            line = Event(START, mac_of(1), "offer", "Offered.", machine.id)
            assert tx.note(line)
            assert not tx.note(replace(line, time=START + 1))
            assert tx.timeline(machine.id)[-1].text == "Offered. (2 times in 1 s)"
            woken = []
            tx._ledger.writer.wake = lambda **_: woken.append(1)
            tx.tick(START + 2)
            assert woken
            woken.clear()
            assert not tx.note(replace(line, time=START + 3))
            tx.tick(START + 3)
            assert not woken  # counts alone are worth a write every few seconds
            tx.tick(START + 2 + ledger.SAVE_PROGRESS)
            assert woken
        async with opened(config, Clock()) as tx:
            assert tx.timeline(machine.id)[-1].text == "Offered. (3 times in 3 s)"

    run(main())


def test_counts_of_a_removed_machine_are_forgotten(tmp_path):
    async def main():
        async with opened(make_config(tmp_path), Clock()) as tx:
            machine = await tx.add_machine(mac=mac_of(1))
            line = Event(START, mac_of(1), "offer", "Offered.", machine.id)
            tx.note(line)
            tx.note(line)
            await tx.remove_machine(machine)
            assert tx._ledger._recounted == {}

    run(main())
