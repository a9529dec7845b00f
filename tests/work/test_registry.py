"""The registry with a fake clock: the check's verdicts, and what happens to a job on every way through its life."""

import pytest

from pxed.errors import NotFoundError, RefusedError
from pxed.types import ClaimRequest, DiskFact, Identity, Step, Verdict
from pxed.work import jobs
from pxed.work.identity import normalise
from support.work import IMAGE, START, Driver, identity_of, mac_of

BOGUS = "03000200-0400-0500-0006-000700080009"


@pytest.fixture
def driver():
    return Driver()


@pytest.fixture
def machine(driver):
    return driver.machine(1)


# -- the check's verdicts


@pytest.mark.parametrize(
    ("policy", "verdict"), [("ignore", Verdict.IGNORE), ("boot", Verdict.NO_WORK), ("hold", Verdict.HOLD)]
)
def test_unknown_machine_by_policy(policy, verdict):
    driver = Driver(unknown_machines=policy)
    assert driver.check().verdict is verdict and driver.check().machine_id is None
    driver.seen(identity_of(1))
    assert driver.check().verdict is verdict and driver.check().machine_id == 1


def test_known_machine_is_not_held():
    """After its restore a machine of a site that holds unknown ones must boot its own system."""
    driver = Driver(unknown_machines="hold")
    machine = driver.machine(1)
    assert driver.check().verdict is Verdict.NO_WORK
    driver.job(machine)
    driver.finish(driver.boot())
    check = driver.check()
    assert check.verdict is Verdict.NO_WORK and check.reason.endswith("the last one, job 1, ended as succeeded.")


def test_job_on_a_sighting_makes_it_known(driver):
    seen = driver.seen(identity_of(1))
    driver.job(seen)
    assert driver.registry.machines.get(seen.id).known
    assert driver.check().verdict is Verdict.WORK


def test_work(driver, machine):
    job = driver.job(machine)
    check = driver.check()
    assert (check.verdict, check.machine_id, check.job_id) == (Verdict.WORK, machine.id, job.id)
    assert check.reason == "There is work: job 1, restore of debian."


def test_no_work_on_contradicting_evidence(driver, machine):
    driver.job(machine)
    mixed = normalise(mac_of(1), identity_of(2).uuid)
    check, change = driver.registry.check(mixed, START)
    assert check.verdict is Verdict.NO_WORK and "There is no work for it: add it" in check.reason and not change
    assert driver.registry.ticket(mixed, START)[0] is None
    token = driver.ticket()
    with pytest.raises(RefusedError, match="There is no work for it"):
        driver.registry.claim(ClaimRequest(token, "agent", mixed), START)


def test_dock_does_not_bring_another_machines_job(driver, machine):
    """A's job waits; B, known, boots through the dock that A was announced by."""
    driver.machine(2)
    driver.job(machine)
    assert driver.registry.check(normalise(mac_of(1), identity_of(2).uuid), START)[0].verdict is Verdict.NO_WORK


def test_bogus_values_of_a_careless_caller_are_dropped(driver, machine):
    """boot makes Identities without knowing what is bogus."""
    driver.job(machine)
    driver.take(driver.registry.machines.learn(Identity(mac=mac_of(1)), START, known=False)[1])
    assert driver.registry.check(Identity(mac=mac_of(1).upper(), uuid=BOGUS), START)[0].verdict is Verdict.WORK
    assert driver.registry.check(Identity(mac=mac_of(3), uuid=BOGUS), START)[0].verdict is Verdict.IGNORE


# -- ticket and claim


def test_ticket_is_the_same_until_the_claim(driver, machine):
    job = driver.job(machine)
    token = driver.ticket()
    assert token and driver.state(job) == "offered"
    driver.now += 60
    assert driver.ticket() == token
    assert [event.text for event in driver.events if event.kind == "check"] == [
        "Job 1 offered: restore of debian.",
        "Job 1 offered: restore of debian. This is boot 2 of 3 without a claim.",
    ]


def test_no_ticket_without_work(driver, machine):
    assert driver.ticket() is None and driver.ticket(5) is None


def test_token_is_good_once(driver, machine):
    driver.job(machine)
    token = driver.ticket()
    answer = driver.claim(token, "one")
    assert driver.claim(token, "one") == answer
    with pytest.raises(RefusedError, match="token of job 1 has been used already, by another agent"):
        driver.claim(token, "two")
    driver.finish(answer.run)
    for agent in ("one", "two"):
        with pytest.raises(RefusedError, match="has ended already: it is succeeded"):
            driver.claim(token, agent)


def test_token_is_bound_to_the_machine(driver, machine):
    driver.job(machine)
    driver.machine(2)
    token = driver.ticket()
    with pytest.raises(RefusedError, match="made for another machine; it came from"):
        driver.claim(token, number=2)
    with pytest.raises(RefusedError, match="a machine that is not known"):
        driver.claim(token, number=3)
    assert driver.claim(token).job_id == 1


@pytest.mark.parametrize(("token", "agent"), [("", "a"), ("guess", "a"), ("token-1", "")])
def test_bad_tokens(driver, machine, token, agent):
    driver.job(machine)
    driver.ticket()
    with pytest.raises(RefusedError, match="not valid"):
        driver.claim(token, agent)


def test_claim_is_told_with_the_disks(driver, machine):
    driver.job(machine)
    disk = DiskFact(path="/dev/sda\n", size=500_107_862_016)
    request = ClaimRequest(driver.ticket(), "agent", identity_of(1), "uefi", (disk,))
    driver.take(driver.registry.claim(request, driver.now)[1])
    assert (
        driver.events[-1].text == "The agent claimed job 1, attempt 1 of 3, booted by UEFI; disks: /dev/sda 500.1 GB."
    )


def test_token_that_the_server_forgot_having_offered(driver, machine):
    """Killed between the answer and the write: the job is pending again, its token in an agent's hands is good."""
    job = driver.job(machine)
    token = driver.registry.record(job.id).token
    assert driver.claim(token).job_id == job.id and driver.state(job) == "running"


# -- two jobs for one machine


def test_second_job_waits_for_the_first(driver, machine):
    first, second = driver.job(machine), driver.job(machine)
    assert driver.events[-1].text == "Job 2 made: restore of debian. It waits for job 1, which is pending."
    run = driver.boot()
    waiting = driver.registry.record(second.id).token
    with pytest.raises(RefusedError, match="Job 2 waits for job 1 of the same machine, which is running"):
        driver.claim(waiting)
    driver.finish(run)
    assert (driver.state(first), driver.state(second)) == ("succeeded", "pending")
    assert driver.check().job_id == second.id
    driver.finish(driver.boot())
    assert driver.state(second) == "succeeded" and driver.check().verdict is Verdict.NO_WORK


def test_second_job_starts_after_the_first_failed(driver, machine):
    driver.job(machine)
    second = driver.job(machine)
    driver.finish(driver.boot(), ok=False, step="restore", reason="no")
    assert driver.check().job_id == second.id


# -- restarts in the middle


def test_restart_in_the_middle_starts_over(driver, machine):
    job = driver.job(machine)
    token = driver.ticket()
    run = driver.claim(token).run
    driver.report(run, percent=40.0)
    driver.now += jobs.RESTART_QUIET
    assert driver.check().verdict is Verdict.WORK
    record = driver.registry.record(job.id)
    assert (record.state, record.job.generation, record.job.percent) == ("pending", 2, 0.0)
    assert driver.events[-1].text == "The machine restarted during restore. Job 1 waits for the machine again."
    assert driver.ticket() not in (token, None)
    with pytest.raises(RefusedError, match="not valid"):
        driver.claim(token)
    assert driver.report(run) == "This attempt is over: the machine asked for boot again since."
    with pytest.raises(RefusedError, match="attempt is over"):
        driver.finish(run)
    assert driver.registry.image_for_run(run) is None


def test_stray_discover_does_not_end_a_restore(driver, machine):
    """The agent was heard a moment ago: the packet is late, doubled or forged."""
    job = driver.job(machine)
    run = driver.boot()
    for _ in range(30):
        driver.now += 1
        assert driver.report(run) == ""
        check = driver.check()
        assert check.verdict is Verdict.HOLD and check.job_id == job.id
        assert driver.ticket() is None
    assert driver.state(job) == "running"


def test_three_restarts_are_a_failure(driver, machine):
    job = driver.job(machine)
    for _ in range(jobs.MAX_ATTEMPTS):
        assert driver.check().verdict is Verdict.WORK
        driver.report(driver.boot())
        driver.now += 30
    check = driver.check()
    assert check.verdict is Verdict.NO_WORK
    assert check.reason == f"No job waits for this machine; the last one, job {job.id}, ended as failed."
    assert driver.registry.record(job.id).job.reason == "The machine restarted during restore; 3 attempts were made."
    assert driver.events[-1].kind == "failed"


def test_next_job_is_offered_when_a_restart_failed_the_first(driver, machine):
    driver.job(machine)
    second = driver.job(machine)
    for _ in range(jobs.MAX_ATTEMPTS):
        driver.boot()
        driver.now += 30
    assert driver.check().job_id == second.id


# -- the loop guard and the deadlines


def test_boot_loop_without_a_claim_ends(driver, machine):
    job = driver.job(machine)
    for _ in range(jobs.MAX_OFFERS):
        assert driver.ticket()
        driver.now += 60
    assert driver.ticket() is None
    assert driver.registry.record(job.id).job.step == Step.BOOT
    assert "3 times and its agent never claimed" in driver.registry.record(job.id).job.reason
    assert driver.check().verdict is Verdict.NO_WORK and driver.ticket() is None


def test_asking_twice_in_one_boot_is_no_loop(driver, machine):
    job = driver.job(machine)
    for _ in range(20):
        assert driver.ticket()
        driver.now += jobs.OFFER_REPEAT / 21
    assert driver.registry.record(job.id).offers == 1


def test_offer_that_nobody_takes_up(driver, machine):
    job = driver.job(machine)
    tokens = []
    for round_ in range(jobs.MAX_OFFERS):
        tokens.append(driver.ticket())
        driver.tick(590)
        assert driver.state(job) == "offered"
        driver.tick(20)
        assert driver.state(job) == ("pending" if round_ < jobs.MAX_OFFERS - 1 else "failed")
    assert len(set(tokens)) == 3
    assert driver.events[-1].text.endswith("did not claim the job within 600 s, 3 times.")


def test_claim_starts_the_count_of_offers_again(driver, machine):
    job = driver.job(machine)
    for _ in range(jobs.MAX_ATTEMPTS - 1):
        for _ in range(jobs.MAX_OFFERS):
            token = driver.ticket()
            driver.now += 60
        driver.claim(token)
        driver.now += 60
        driver.check()
    assert driver.state(job) == "pending" and driver.ticket()


def test_silence_is_a_failure(driver, machine):
    job = driver.job(machine)
    run = driver.boot()
    driver.tick(50)
    driver.report(run, percent=41.7)
    driver.tick(50)
    assert driver.state(job) == "running"
    driver.tick(10)
    assert driver.registry.record(job.id).job.reason == (
        "The machine went silent in step restore at 42 %: no report for 60 s."
    )
    assert driver.report(run).startswith("The job is failed. The machine went silent")
    with pytest.raises(RefusedError, match="has ended already: it is failed"):
        driver.finish(run, ok=True)


def test_retry_after_silence_starts_over(driver, machine):
    job = driver.job(machine)
    driver.boot()
    driver.tick(100)
    driver.take(driver.registry.retry(job.id, driver.now))
    run = driver.boot()
    driver.finish(run)
    assert driver.state(job) == "succeeded" and driver.registry.record(job.id).job.generation == 2


def test_clock_that_jumps_blames_nobody(driver, machine):
    job = driver.job(machine)
    driver.boot()
    driver.tick(30)
    driver.now += 3600  # the host was suspended, or somebody set its clock
    driver.take(driver.registry.tick(driver.now))
    driver.tick(50)
    assert driver.state(job) == "running"
    driver.now -= 7200
    driver.take(driver.registry.tick(driver.now))
    driver.tick(50)
    assert driver.state(job) == "running"
    driver.tick(20)
    assert driver.state(job) == "failed"


def test_pending_job_expires(driver, machine):
    job = driver.job(machine, expires=START + 100)
    driver.tick(90)
    assert driver.state(job) == "pending"
    driver.tick(10)
    assert driver.state(job) == "expired" and driver.check().verdict is Verdict.NO_WORK


def test_expired_job_is_not_work_even_before_the_tick(driver, machine):
    job = driver.job(machine, expires=START + 100)
    driver.now += 100
    assert driver.check().verdict is Verdict.NO_WORK and driver.state(job) == "expired"


def test_offered_job_does_not_expire_under_the_machine(driver, machine):
    job = driver.job(machine, expires=START + 100)
    token = driver.ticket()
    driver.tick(200)
    assert driver.claim(token).job_id == job.id


def test_busy_jobs_are_left_alone(driver, machine):
    job = driver.job(machine, expires=START + 10)
    driver.now += 1000
    assert driver.registry.check(identity_of(1), driver.now, {job.id})[0].verdict is Verdict.HOLD
    assert driver.registry.ticket(identity_of(1), driver.now, {job.id}) == (None, driver.registry.tick(0.0, {job.id}))
    assert not driver.registry.tick(driver.now, {job.id})


# -- reports and the end


def test_report_shows_and_tells(driver, machine):
    job = driver.job(machine)
    run = driver.boot()
    assert driver.report(run, step="target", message="Chose /dev/sda.") == ""
    assert driver.report(run, step="restore", percent=10.0, rate=2e8) == ""
    assert driver.report(run, step="restore", percent=20.0, rate=2e8) == ""
    now = driver.registry.record(job.id).job
    assert (now.step, now.percent, now.rate) == ("restore", 20.0, 2e8)
    assert [(event.kind, event.text) for event in driver.events[-2:]] == [
        ("target", "Chose /dev/sda."),
        ("restore", "Step restore began."),
    ]


@pytest.mark.parametrize(
    ("percent", "shown"), [(-1.0, 0.0), (250.0, 100.0), (float("nan"), 0.0), (float("inf"), 0.0), (99.5, 99.5)]
)
def test_figures_of_a_peer_are_made_safe(driver, machine, percent, shown):
    job = driver.job(machine)
    driver.report(driver.boot(), percent=percent, rate=percent, step="x" * 100, message="y" * 1000 + "\0")
    now = driver.registry.record(job.id).job
    assert now.percent == shown and 0 <= now.rate < float("inf") and len(now.step) == 32
    assert len(driver.events[-1].text) == 500


def test_unknown_runs_are_refused(driver, machine):
    for ask in (driver.report, driver.finish):
        with pytest.raises(RefusedError, match="This run is not known here"):
            ask("guess")
    with pytest.raises(RefusedError):
        driver.report("")


def test_finish_is_one_state_and_repeatable(driver, machine):
    job = driver.job(machine)
    run = driver.boot()
    assert driver.finish(run) == driver.finish(run) == "reboot"
    with pytest.raises(RefusedError, match="it is succeeded"):
        driver.finish(run, ok=False)
    assert driver.state(job) == "succeeded"
    assert driver.report(run) == "The job is succeeded."


@pytest.mark.parametrize(("debug", "then"), [(False, "reboot"), (True, "shell")])
def test_failure_is_told(driver, machine, debug, then):
    job = driver.job(machine, debug=debug)
    run = driver.boot()
    assert driver.finish(run, ok=False, step="target", reason="The disk is too small.") == then
    now = driver.registry.record(job.id).job
    assert (now.state, now.step, now.reason) == ("failed", "target", "The disk is too small.")
    assert driver.events[-1].text == "Job 1 failed in step target: The disk is too small."
    assert driver.finish(run, ok=False) == then
    assert driver.check().verdict is Verdict.NO_WORK


def test_image_is_readable_by_the_running_attempt_only(driver, machine):
    driver.job(machine)
    assert driver.registry.image_for_run("") is None
    run = driver.boot()
    assert driver.registry.image_for_run(run) == IMAGE and driver.registry.image_for_run("x") is None
    driver.finish(run)
    assert driver.registry.image_for_run(run) is None


# -- operators


def test_cancel_stops_a_running_agent(driver, machine):
    job = driver.job(machine)
    run = driver.boot()
    driver.take(driver.registry.cancel(job.id, driver.now))
    assert driver.report(run) == "The job is cancelled. Cancelled by an operator."
    with pytest.raises(RefusedError, match="ended already"):
        driver.registry.cancel(job.id, driver.now)
    assert driver.check().verdict is Verdict.NO_WORK


def test_what_cannot_be_retried(driver, machine):
    job = driver.job(machine)
    with pytest.raises(RefusedError, match="is pending: there is nothing to retry"):
        driver.registry.retry(job.id, START)
    driver.finish(driver.boot())
    with pytest.raises(RefusedError, match="succeeded; make a new job"):
        driver.registry.retry(job.id, START)
    for ask in (driver.registry.retry, driver.registry.cancel):
        with pytest.raises(NotFoundError, match="There is no job 77"):
            ask(77, START)


def test_server_fails_a_job_whose_image_is_gone(driver, machine):
    job = driver.job(machine)
    driver.take(driver.registry.fail(job.id, "boot", "The image was deleted.", START))
    assert driver.state(job) == "failed"
    with pytest.raises(RefusedError):
        driver.registry.fail(job.id, "boot", "again", START)


def test_machine_with_work_is_not_removed(driver, machine):
    job = driver.job(machine)
    with pytest.raises(RefusedError, match="has job 1, which is pending: cancel it"):
        driver.registry.remove_machine(machine)
    run = driver.boot()
    driver.take(driver.registry.cancel(job.id, START))
    driver.take(driver.registry.remove_machine(machine))
    assert list(driver.registry) == [] and driver.check().verdict is Verdict.IGNORE
    with pytest.raises(RefusedError, match="not known here"):
        driver.report(run)
    assert driver.job(driver.machine(1)).id == job.id + 1


# -- after a restart of the server


def test_load_goes_on_where_it_was(driver, machine):
    job = driver.job(machine)
    run = driver.boot()
    driver.report(run, percent=30.0)
    later = Driver()
    later.now = START + 100_000
    later.registry.load(list(driver.registry.machines), list(driver.registry), later.now)
    assert later.report(run, percent=31.0) == "" and later.registry.image_for_run(run) == IMAGE
    later.tick(50)
    assert later.state(job) == "running"  # its silence counts from the load
    later.tick(20)
    assert later.state(job) == "failed"


def test_load_gives_an_offered_job_its_whole_time(driver, machine):
    job = driver.job(machine)
    token = driver.ticket()
    later = Driver()
    later.now = START + 100_000
    later.registry.load(list(driver.registry.machines), list(driver.registry), later.now)
    later.tick(590)
    assert later.state(job) == "offered" and later.claim(token).job_id == job.id
