"""Records to rows and back, and what is loaded and saved at once."""

from typing import Any

from msgspec import Struct, field, structs

from pxed.types import Event, Job, JobState, Machine
from pxed.work.jobs import JobRecord
from pxed.work.timeline import Line

__all__ = ["Batch", "Snapshot"]

Row = dict[str, Any]


class Snapshot(Struct, frozen=True):
    """Everything the server needs in memory at start."""

    machines: list[Machine]
    jobs: list[JobRecord]
    lines: list[Line]  # the newest of each machine, oldest first
    counters: dict[str, int]  # next ids: "machine", "job", "line"


class Batch(Struct):
    """Changes that become durable together, in one transaction: complete new records by id, and what is removed."""

    machines: dict[int, Machine] = field(default_factory=dict)
    jobs: dict[int, JobRecord] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)  # machines, with their jobs and lines
    lines: dict[int, Line] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """True when there is anything to save."""
        return bool(self.machines or self.jobs or self.removed or self.lines)

    def update(self, later: "Batch") -> None:
        """Add the later changes: the newer record of the same id wins, and what is removed has no records."""
        self.machines |= later.machines
        self.jobs |= later.jobs
        self.lines |= later.lines
        self.counters |= later.counters
        self.removed |= later.removed
        for machine_id in later.removed:
            self.machines.pop(machine_id, None)
        for job_id in [one for one, record in self.jobs.items() if record.job.machine_id in later.removed]:
            del self.jobs[job_id]
        for line_id in [one for one, line in self.lines.items() if line.event.machine_id in later.removed]:
            del self.lines[line_id]


def machine_row(machine: Machine) -> Row:
    """A machine without its MACs, which have rows of their own."""
    row = structs.asdict(machine)
    del row["macs"]
    return row


def mac_rows(machine: Machine) -> list[Row]:
    """A machine's MACs, in order."""
    return [{"mac": mac, "machine_id": machine.id, "position": n} for n, mac in enumerate(machine.macs)]


def machine_of(row: Row, macs: tuple[str, ...]) -> Machine:
    """A machine from its rows."""
    return Machine(**row, macs=macs)


_JOB_FIELDS = frozenset(Job.__struct_fields__)


def job_row(record: JobRecord) -> Row:
    """A job with the server's own fields, flat."""
    row = structs.asdict(record)
    del row["job"]
    row |= structs.asdict(record.job)
    row["state"] = record.state.value
    row["past_runs"] = " ".join(record.past_runs)
    return row


def job_of(row: Row) -> JobRecord:
    """A job from its row. Raises ValueError for a state that this version does not know."""
    job = {key: value for key, value in row.items() if key in _JOB_FIELDS}
    rest = {key: value for key, value in row.items() if key not in _JOB_FIELDS}
    job["state"] = JobState(job["state"])
    rest["past_runs"] = tuple(rest["past_runs"].split())
    return JobRecord(job=Job(**job), **rest)


def line_row(line: Line) -> Row:
    """A timeline line, flat."""
    return {"id": line.id, "last": line.last, "count": line.count, **structs.asdict(line.event)}


def line_of(row: Row) -> Line:
    """A timeline line from its row."""
    rest = dict(row)
    return Line(id=rest.pop("id"), last=rest.pop("last"), count=rest.pop("count"), event=Event(**rest))
