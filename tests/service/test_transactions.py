"""Transactions end to end over a real database file: what the DHCP path, agents and operators see."""

import asyncio

import pytest

from pxed.config import Config, Server, Tftp
from pxed.errors import NotFoundError, RefusedError
from pxed.service.transactions import Transactions
from pxed.types import ClaimRequest, FinishRequest, Identity, JobState, Report, Verdict

MAC = "52:54:00:12:34:56"
ME = Identity(mac=MAC, uuid="aabbccdd-1122-3344-5566-778899aabbcc")
IMAGE = "ab" * 32


@pytest.fixture
def config(tmp_path):
    return Config(server=Server(address="10.78.0.1", state_dir=str(tmp_path)), tftp=Tftp(root=str(tmp_path)))


def test_whole_way_of_a_restore(config):
    async def main():
        tx = await Transactions.open(config, clock=lambda: 1000.0)
        assert tx.check(ME, 1000.0).verdict is Verdict.IGNORE
        machine = await tx.add_machine(mac=MAC, name="lab1")
        assert tx.check(ME, 1000.0).verdict is Verdict.NO_WORK
        job = await tx.create_job(machine, IMAGE, "debian", debug=True)
        assert job.state is JobState.PENDING
        assert tx.check(ME, 1001.0).verdict is Verdict.WORK
        tx.seen(ME, 1001.0, "DISCOVER from BIOS")
        offered, token = tx.ticket(ME, 1002.0)
        assert offered.state is JobState.OFFERED and tx.ticket(ME, 1003.0)[1] == token
        answer = await tx.claim(ClaimRequest(token=token, agent="one", identity=ME, firmware="bios"), 1010.0)
        again = await tx.claim(ClaimRequest(token=token, agent="one", identity=ME, firmware="bios"), 1010.0)
        assert answer == again and answer.image == IMAGE and answer.debug
        with pytest.raises(RefusedError, match="another agent"):
            await tx.claim(ClaimRequest(token=token, agent="two", identity=ME), 1010.0)
        assert tx.image_for_run(answer.run) == IMAGE
        assert (await tx.report(answer.run, Report(step="restore", percent=40.0, rate=1e8), 1011.0)).stop == ""
        assert tx.job(job.id).percent == 40.0
        assert (await tx.finish(answer.run, FinishRequest(ok=True, step="finish"), 1020.0)).then == "reboot"
        assert tx.job(job.id).state is JobState.SUCCEEDED
        assert tx.image_for_run(answer.run) is None
        assert tx.check(ME, 1030.0).verdict is Verdict.NO_WORK
        assert tx.find_machine("lab1") == tx.find_machine(MAC.upper().replace(":", "-")) == tx.find_machine("1")
        before = (tx.machines(), tx.jobs(), tx.timeline(1))
        assert [event.kind for event in before[2]] == [
            "seen", "job", "seen", "check", "claim", "restore", "job", "rebooted",
        ]  # fmt: skip
        assert await tx.history(1) == before[2]
        await tx.close()
        tx = await Transactions.open(config)
        assert (tx.machines(), tx.jobs(), tx.timeline(1)) == before
        with pytest.raises(NotFoundError):
            tx.find_machine("nobody")
        await tx.close()

    asyncio.run(main())
