"""Helpers for tests of machines and jobs: predictable tokens, a registry that applies its changes, a small config."""

import asyncio
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from pxed.config import Config, Jobs, Server, Tftp, Transaction
from pxed.service.transactions import Transactions
from pxed.types import ClaimAnswer, ClaimRequest, Event, FinishRequest, Identity, Job, Machine, Report
from pxed.work.identity import normalise
from pxed.work.machines import Change
from pxed.work.registry import Registry

T = TypeVar("T")

IMAGE = "ab" * 32
START = 1_700_000_000.0  # the fake clock's beginning


class Tokens:
    """A secret source whose tokens a test can foresee."""

    def __init__(self, prefix: str = "token") -> None:
        self.prefix = prefix
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        return f"{self.prefix}-{self.made}"


def mac_of(number: int) -> str:
    """A MAC per number."""
    return "52:54:00:" + number.to_bytes(3, "big").hex(":")


def uuid_of(number: int) -> str:
    """A good UUID per number."""
    return f"9c5b94b1-35ad-49bb-b118-{number:012x}"


def identity_of(number: int, **more: str) -> Identity:
    """A machine's identity per number."""
    return normalise(**({"mac": mac_of(number), "uuid": uuid_of(number)} | more))


class Driver:
    """A registry with a fake clock; every change is applied at once and its events are kept."""

    def __init__(self, **settings: Any) -> None:
        self.tokens = Tokens()
        self.registry = Registry(self.tokens, **settings)
        self.now = START
        self.events: list[Event] = []

    def take(self, change: Change) -> Change:
        self.registry.apply(change)
        self.events += change.events
        return change

    def machine(self, number: int = 1, **more: str) -> Machine:
        machine, change = self.registry.machines.add(identity_of(number, **more), "", self.now)
        self.take(change)
        return machine

    def seen(self, identity: Identity, known: bool = False) -> Machine | None:
        machine, change = self.registry.machines.learn(identity, self.now, known=known)
        self.take(change)
        return machine

    def job(self, machine: Machine, **more: Any) -> Job:
        target = self.registry.machines.get(machine.id)
        assert target is not None
        record, change = self.registry.create(target, IMAGE, "debian", self.now, **more)
        self.take(change)
        return record.job

    def check(self, number: int = 1):
        check, change = self.registry.check(identity_of(number), self.now)
        self.take(change)
        return check

    def ticket(self, number: int = 1) -> str | None:
        record, change = self.registry.ticket(identity_of(number), self.now)
        self.take(change)
        return record.token if record else None

    def claim(self, token: str, agent: str = "agent", number: int = 1) -> ClaimAnswer:
        request = ClaimRequest(token=token, agent=agent, identity=identity_of(number), firmware="bios")
        answer, change = self.registry.claim(request, self.now)
        self.take(change)
        return answer

    def report(self, run: str, **fields: Any) -> str:
        answer, change = self.registry.report(run, Report(**({"step": "restore"} | fields)), self.now)
        self.take(change)
        return answer.stop

    def finish(self, run: str, ok: bool = True, **fields: Any) -> str:
        request = FinishRequest(**({"ok": ok, "step": "finish"} | fields))
        answer, change = self.registry.finish(run, request, self.now)
        self.take(change)
        return answer.then

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass in steps of ten seconds, as the server's clock does in steps of one."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 10)
            self.take(self.registry.tick(self.now))

    def state(self, job: Job) -> str:
        return self.registry.record(job.id).state.value

    def boot(self, number: int = 1, agent: str = "agent") -> str:
        """From the check to the claim; returns the run."""
        token = self.ticket(number)
        assert token is not None
        return self.claim(token, agent, number).run


class Clock:
    """A clock for Transactions that moves when told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def make_config(directory: Path, **sections: Any) -> Config:
    """The smallest configuration, with its state in `directory`."""
    known = {"transaction": Transaction, "jobs": Jobs}
    made = {name: known[name](**values) for name, values in sections.items()}
    return Config(server=Server(address="10.78.0.1", state_dir=str(directory)), tftp=Tftp(root=str(directory)), **made)


@asynccontextmanager
async def opened(config: Config, clock: Clock | None = None, tokens: Tokens | None = None):
    """Transactions that are closed at the end."""
    transactions = await Transactions.open(config, clock=clock or Clock(), secret=tokens or Tokens())
    try:
        yield transactions
    finally:
        await transactions.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; nothing of this project takes a minute."""

    async def limited() -> T:
        return await asyncio.wait_for(main, 60)

    return asyncio.run(limited())
