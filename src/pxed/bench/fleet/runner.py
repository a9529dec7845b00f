"""What runs virtual machines: events in order of time, and the machines' deadlines among them."""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from pxed.bench.fleet.machine import Fetch, Machine, Send

__all__ = ["Runner"]


class Runner(ABC):
    """Subclasses move `now`, call what is due, and carry what machines send. `left`: machines without an outcome."""

    def __init__(self, machines: Sequence[Machine], power_on: Sequence[float]) -> None:
        self.machines, self.power_on = machines, power_on
        self.now = 0.0
        self.left = len(machines)
        self.queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._due = [float("inf")] * len(machines)  # when a machine's timer event comes
        for machine, at in zip(machines, power_on, strict=True):
            self.at(at, self._power_on, machine)

    @abstractmethod
    def send(self, machine: Machine, sent: Send) -> None:
        """A datagram leaves a machine."""

    @abstractmethod
    def fetch(self, machine: Machine, fetch: Fetch) -> None:
        """A machine begins a download by HTTP; `fetched` is called at its end."""

    @property
    def ready(self) -> int:
        """How many machines have their outcome."""
        return len(self.machines) - self.left

    def at(self, at: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call something at a time."""
        self._number += 1
        heapq.heappush(self.queue, (at, self._number, call, arguments))

    def receive(self, machine: Machine, payload: bytes, source: tuple[str, int], port: int) -> None:
        """A datagram reaches a machine."""
        if machine.deadline is not None and machine.port == port:
            machine.receive(payload, source, port, self.now)
            self._after(machine)

    def fetched(self, machine: Machine, body: bytes, problem: str) -> None:
        """A download has ended."""
        machine.fetched(body, problem, self.now)
        self._after(machine)

    def _power_on(self, machine: Machine) -> None:
        machine.start(self.now)
        self._after(machine)

    def _after(self, machine: Machine) -> None:
        """It was called: what it wants to send leaves, and its deadline is noted."""
        out, machine.out = machine.out, []
        deadline = machine.deadline
        if deadline is None:
            self.left -= 1
        elif deadline < self._due[machine.number]:
            self._due[machine.number] = deadline
            self.at(deadline, self._timer, machine, deadline)
        for what in out:
            if isinstance(what, Send):
                self.send(machine, what)
            else:
                self.fetch(machine, what)

    def _timer(self, machine: Machine, due: float) -> None:
        # The deadline moves with every packet; its event only when it has come.
        if due != self._due[machine.number]:
            return
        self._due[machine.number] = float("inf")
        deadline = machine.deadline
        if deadline is None or deadline == float("inf"):
            return
        if deadline <= self.now:
            machine.on_timer(self.now)
            self._after(machine)
        else:
            self._due[machine.number] = deadline
            self.at(deadline, self._timer, machine, deadline)
