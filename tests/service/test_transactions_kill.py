"""kill -9 at any moment: what was answered is there, a running job goes on with the same run."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pxed.types import ClaimRequest, FinishRequest, JobState, Report
from support.work import IMAGE, identity_of, mac_of, make_config, opened, run

SERVER = """
    import asyncio, sys, time
    from pathlib import Path
    from support.work import IMAGE, identity_of, mac_of, make_config
    from pxed.log import set_up
    from pxed.service.transactions import Transactions
    from pxed.types import ClaimRequest, Report

    async def main():
        tx = await Transactions.open(make_config(Path(sys.argv[1])))
        for number in range(1, 1_000_000):
            await tx.add_machine(mac=mac_of(number))
            job = await tx.create_job(mac_of(number), IMAGE)
            print("job", job.id, flush=True)
            _, token = tx.ticket(identity_of(number), time.time())
            print("token", token, flush=True)
            if number % 2:
                answer = await tx.claim(ClaimRequest(token, "agent", identity_of(number)), time.time())
                print("run", answer.run, job.id, flush=True)
                await tx.report(answer.run, Report(step="restore", percent=50.0), time.time())

    set_up("critical")
    asyncio.run(main())
"""


def killed_after(tmp_path, lines):
    """Run the server until it has printed so many lines, kill it, and return all it printed."""
    script = tmp_path / "server.py"
    script.write_text(textwrap.dedent(SERVER))
    path = ":".join([str(Path(__file__).parents[1]), *sys.path])
    server = subprocess.Popen(
        [sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": path}
    )
    try:
        said = [server.stdout.readline() for _ in range(lines)]
    finally:
        server.kill()
    rest = server.stdout.read()  # what it said between our last line and its death
    server.stdout.close()
    server.wait(30)
    whole = rest.rpartition("\n")[0].splitlines()
    return [line.split() for line in [*said, *whole] if line]


@pytest.mark.parametrize("lines", [1, 2, 3, 8, 21, 40])
def test_what_was_answered_is_there(tmp_path, lines):
    said = killed_after(tmp_path, lines)

    async def main():
        async with opened(make_config(tmp_path)) as tx:
            jobs = {job.id: job for job in tx.jobs()}
            for kind, *words in said:
                if kind == "job":
                    assert jobs[int(words[0])].image == IMAGE
                if kind == "run":
                    job = jobs[int(words[1])]
                    assert job.state is JobState.RUNNING and tx.image_for_run(words[0]) == IMAGE
            return await go_on(tx)

    async def go_on(tx):
        """The restore goes on with the run that the agent has, and the last token given is still good."""
        now = 1.9e9
        runs = [words[1] for words in said if words[0] == "run"]
        for token in runs[-1:]:
            assert (await tx.report(token, Report(step="restore", percent=60.0), now)).stop == ""
            await tx.finish(token, FinishRequest(ok=True, step="finish"), now)
        tokens = [words[1] for words in said if words[0] == "token"]
        number = len(tokens)
        if tokens and number % 2 == 0:
            claim = ClaimRequest(tokens[-1], "late", identity_of(number))
            assert (await tx.claim(claim, now)).job_id == number
        assert tx.find_machine(mac_of(1)).id == 1

    run(main())
