"""How far each machine is on its way from power-on to "imaged", and how long each stretch of it took.

Fed with what the services note anyway: timeline events, jobs in their new state, requests for files. Times are
arguments, in seconds since the epoch as events carry them; nothing here reads a clock or does I/O. Everything is
bounded: of more than MAX_FOLLOWED machines or jobs the oldest are forgotten, which costs samples and nothing else.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable

from msgspec import Struct

from pxed.types import Event, Job, JobState

__all__ = ["PHASES", "Phases"]

# What is measured, and between which two moments.
PHASES = {
    "discover-to-request": "a machine's first answered DHCP request to its first request for a file",
    "request-to-first-ack": "a TFTP read request to the client's first acknowledgement",
    "check-to-claim": "the check's answer, the environment, to the agent's claim of the job",
    "claim-to-first-byte": "the agent's claim to its first request for the image's data",
    "imaging": "the agent's claim to the job's success",
    "job": "the offer of the environment to the job's success",
}

MAX_FOLLOWED = 16384
# A machine that has not gone on for this long is switched off, or boots something that is not ours.
FORGOTTEN_AFTER = 300.0

# The kinds of timeline lines that are a place on the way, by the name that people read.
_PLACES = {"offer": "boot offered", "boot-program": "boot program", "check": "checked", "environment": "environment"}


class _Machine(Struct):
    place: str
    since: float
    discovered: float = 0.0  # of a machine that has asked for no file since


class _Job(Struct):
    checked: float = 0.0
    offered: float = 0.0
    claimed: float = 0.0
    first_byte: bool = False


class Phases:
    """`observe(phase, seconds)` is told of every stretch that has ended."""

    def __init__(self, observe: Callable[[str, float], None]) -> None:
        self._observe = observe
        self._machines: OrderedDict[str, _Machine] = OrderedDict()  # by MAC; who moved last stands last
        self._jobs: OrderedDict[int, _Job] = OrderedDict()

    def event(self, event: Event) -> None:
        """A timeline event, repeated ones included."""
        if event.kind == "check" and event.job_id is not None:
            self._job(event.job_id).checked = event.time
        place = _PLACES.get(event.kind)
        if place is None or not event.mac:
            return
        old = self._machines.pop(event.mac, None)
        new = self._machines[event.mac] = _Machine(place, event.time)
        if event.kind == "offer":  # firmware asks several times
            waits = old is not None and old.discovered and event.time - old.discovered < FORGOTTEN_AFTER
            new.discovered = old.discovered if old is not None and waits else event.time
        if len(self._machines) > MAX_FOLLOWED:
            self._machines.popitem(last=False)

    def requested(self, mac: str, now: float) -> None:
        """A machine asks for a file."""
        machine = self._machines.get(mac)
        if machine is not None and machine.discovered:
            self._tell("discover-to-request", now - machine.discovered)
            machine.discovered = 0.0

    def acknowledged(self, seconds: float) -> None:
        """A TFTP client's first acknowledgement came `seconds` after its request."""
        self._tell("request-to-first-ack", seconds)

    def job(self, job: Job) -> None:
        """A job's new state."""
        if job.state is JobState.OFFERED:
            followed = self._job(job.id)
            followed.offered = followed.offered or job.changed
        elif job.state is JobState.RUNNING:
            followed = self._job(job.id)
            if not followed.claimed:
                followed.claimed = job.changed
                if followed.checked:
                    self._tell("check-to-claim", job.changed - followed.checked)
        elif job.id in self._jobs:  # it has ended, or begins anew
            followed = self._jobs.pop(job.id)
            if job.state is JobState.SUCCEEDED and followed.claimed:
                self._tell("imaging", job.changed - followed.claimed)
                if followed.offered:
                    self._tell("job", job.changed - followed.offered)

    def first_byte(self, job_id: int, now: float) -> None:
        """An agent asks for image data; the first time counts."""
        followed = self._jobs.get(job_id)
        if followed is not None and followed.claimed and not followed.first_byte:
            followed.first_byte = True
            self._tell("claim-to-first-byte", now - followed.claimed)

    def places(self, now: float) -> dict[str, int]:
        """How many machines are where on their way to the agent's claim."""
        while self._machines:
            mac, oldest = next(iter(self._machines.items()))
            if 0 <= now - oldest.since < FORGOTTEN_AFTER:
                break
            del self._machines[mac]
        return dict(Counter(machine.place for machine in self._machines.values()))

    def _tell(self, phase: str, seconds: float) -> None:
        if seconds >= 0:  # a clock that was set back measures nothing
            self._observe(phase, seconds)

    def _job(self, job_id: int) -> _Job:
        followed = self._jobs.setdefault(job_id, _Job())
        if len(self._jobs) > MAX_FOLLOWED:
            self._jobs.popitem(last=False)
        return followed
