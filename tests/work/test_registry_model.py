"""The registry under any order of events: machines that boot, restart and fall silent, operators, clocks.

Invariants: at most one job per machine is offered or running; what succeeded never changes; a token brings one agent
one run; only a running attempt may read its image; the indices agree with the records; every move is in the table.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from pxed.errors import RefusedError
from pxed.types import JobState, Verdict
from pxed.work import jobs
from support.work import IMAGE, Driver, identity_of

NUMBERS = st.sampled_from([1, 1, 1, 2, 2, 3])  # the third is not known at first
AGENTS = st.sampled_from(["one", "two"])


class Site(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.driver = Driver(unknown_machines="ignore")
        self.states: dict[int, JobState] = {}
        self.done = {}  # job id -> its record when it succeeded
        self.tokens: dict[str, int] = {}  # every token ever given, with its machine
        self.runs: dict[str, str] = {}  # run -> token
        self.taken: dict[str, str] = {}  # token -> agent
        for number in (1, 2):
            self.driver.machine(number)

    def machine(self, number):
        return self.driver.registry.machines.resolve(identity_of(number)).machine

    @rule(number=NUMBERS)
    def seen(self, number):
        assert self.driver.seen(identity_of(number)) is not None

    @rule(number=NUMBERS, expires=st.sampled_from([0.0, 5.0, 300.0]), debug=st.booleans())
    def create(self, number, expires, debug):
        if machine := self.machine(number):
            self.driver.job(machine, expires=expires and self.driver.now + expires, debug=debug)

    @rule(number=NUMBERS)
    def check(self, number):
        before = self.machine(number)
        check = self.driver.check(number)
        if check.verdict is Verdict.WORK:
            assert self.driver.registry.record(check.job_id).state in (JobState.PENDING, JobState.OFFERED)
            assert self.driver.registry.record(check.job_id).job.machine_id == before.id
        if before is not None and before.known:
            assert check.verdict is not Verdict.IGNORE

    @rule(number=NUMBERS)
    def ticket(self, number):
        token = self.driver.ticket(number)
        if token:
            self.tokens[token] = number
            assert self.driver.ticket(number) == token

    @rule(number=NUMBERS, agent=AGENTS, quiet=st.sampled_from([0.0, 20.0]))
    def boot(self, number, agent, quiet):
        """The whole way from a new job to its claim, with or without a restart in the middle of the one before."""
        self.driver.now += quiet
        machine = self.machine(number)
        if machine is not None and self.driver.registry.current(machine.id) is None:
            self.driver.job(machine)
        token = self.driver.ticket(number)
        if token:
            self.tokens[token] = number
            self.try_claim(token, agent, number)

    @rule(data=st.data(), agent=AGENTS, number=NUMBERS)
    def claim(self, data, agent, number):
        if self.tokens:
            self.try_claim(data.draw(st.sampled_from(list(self.tokens)[-4:])), agent, number)

    @rule(data=st.data(), agent=AGENTS)
    def claim_again(self, data, agent):
        if self.taken:
            token = data.draw(st.sampled_from(list(self.taken)[-3:]))
            self.try_claim(token, agent, self.tokens[token])

    def try_claim(self, token, agent, number):
        try:
            answer = self.driver.claim(token, agent, number)
        except RefusedError:
            return
        assert number == self.tokens[token], "a token is good for its machine only"
        assert self.taken.setdefault(token, agent) == agent, "a token is good for one agent only"
        assert self.runs.setdefault(answer.run, token) == token, "a run belongs to one token"
        assert len([run for run, one in self.runs.items() if one == token]) == 1, "a token brings one run"
        assert self.driver.registry.image_for_run(answer.run) == IMAGE

    @rule(data=st.data(), percent=st.floats(allow_nan=True), step=st.sampled_from(["restore", "verify", ""]))
    def report(self, data, percent, step):
        if self.runs:
            run = data.draw(st.sampled_from(list(self.runs)[-4:]))
            stop = self.driver.report(run, percent=percent, step=step)
            assert (stop == "") == (self.driver.registry.image_for_run(run) is not None)

    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data, ok):
        if not self.runs:
            return
        run = data.draw(st.sampled_from(list(self.runs)[-4:]))
        try:
            then = self.driver.finish(run, ok)
        except RefusedError:
            return
        assert self.driver.finish(run, ok) == then, "repeating the end is safe"
        assert self.driver.registry.image_for_run(run) is None

    @rule(seconds=st.sampled_from([1.0, 4.0, 20.0, 70.0, 700.0]))
    def time(self, seconds):
        self.driver.tick(seconds)

    @rule(seconds=st.floats(-5000, 5000))
    def clock_is_set(self, seconds):
        self.driver.now += seconds
        self.driver.take(self.driver.registry.tick(self.driver.now))

    @rule(data=st.data(), what=st.sampled_from(["cancel", "retry", "fail"]))
    def operate(self, data, what):
        records = list(self.driver.registry)
        if not records:
            return
        record = data.draw(st.sampled_from(records))
        registry, now = self.driver.registry, self.driver.now
        try:
            if what == "fail":
                change = registry.fail(record.id, "boot", "The image is gone.", now)
            else:
                change = getattr(registry, what)(record.id, now)
        except RefusedError:
            assert what == "retry" or record.state in jobs.ENDED
        else:
            self.driver.take(change)

    @rule(number=NUMBERS)
    def remove(self, number):
        machine = self.machine(number)
        if machine is None:
            return
        try:
            change = self.driver.registry.remove_machine(machine)
        except RefusedError:
            assert self.driver.registry.current(machine.id) is not None
            return
        gone = {record.id for record in self.driver.registry.of_machine(machine.id)}
        self.driver.take(change)
        self.runs = {run: token for run, token in self.runs.items() if self.driver.registry.of_run(run)}
        for job_id in gone:
            self.states.pop(job_id, None)
            self.done.pop(job_id, None)

    @rule(lost=st.booleans())
    def server_restarts(self, lost):
        """`lost`: it was killed before it had written that it offered jobs; their tokens are in agents' hands."""
        old = self.driver
        records = [forget_offer(record) if lost else record for record in old.registry]
        self.driver = Driver(unknown_machines="ignore")
        self.driver.now, self.driver.tokens.made = old.now, old.tokens.made
        self.driver.registry.load(list(old.registry.machines), records, old.now)
        self.driver.registry.reserve(old.registry.machines.next_id, old.registry.next_job)

    @invariant()
    def moves_are_in_the_table(self):
        for record in self.driver.registry:
            before = self.states.get(record.id)
            if before is not None and before is not record.state:
                assert reachable(before, record.state)
            self.states[record.id] = record.state

    @invariant()
    def succeeded_never_changes(self):
        for record in self.driver.registry:
            if record.state is JobState.SUCCEEDED:
                assert self.done.setdefault(record.id, record) == record
            else:
                assert record.id not in self.done

    @invariant()
    def one_active_job_per_machine(self):
        active = [record.job.machine_id for record in self.driver.registry if record.state in jobs.ACTIVE]
        assert len(active) == len(set(active))

    @invariant()
    def counts_are_bounded(self):
        for record in self.driver.registry:
            assert record.job.attempts <= jobs.MAX_ATTEMPTS and record.offers <= jobs.MAX_OFFERS
            assert 0 <= record.job.percent <= 100

    @invariant()
    def indices_agree(self):
        registry = self.driver.registry
        for machine in registry.machines:
            unfinished = [record.id for record in registry.of_machine(machine.id) if record.state in jobs.UNFINISHED]
            assert list(registry.unfinished(machine.id)) == sorted(unfinished)
        for record in registry:
            assert registry.of_token(record.token) == record
            assert registry.machines.get(record.job.machine_id) is not None
            assert record.run or record.state is not JobState.RUNNING
        tokens = [record.token for record in registry]
        assert len(tokens) == len(set(tokens))


def forget_offer(record):
    """The record as it was before its offer."""
    if record.state is not JobState.OFFERED:
        return record
    return replace(record, offered=0.0, offers=0, job=replace(record.job, state=JobState.PENDING))


def reachable(old, new):
    """A rule may make two moves at once (pending → offered → running at a claim after a lost write)."""
    return any(new in jobs.MOVES[middle] for middle in {old, *jobs.MOVES[old]})


Site.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestSite = Site.TestCase
