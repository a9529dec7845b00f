"""What the server has done and how long it took, for Prometheus and for `pxed top`.

The services tell each request, each end of a transfer and each decision here, never a packet: those are counted by the
engine in C, and read when somebody asks (`families`). Labels have few values: no machine and no file name is one.
"""

import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.registry import Collector

from pxed.service.families import Figured, Figures
from pxed.service.phases import PHASES, Phases
from pxed.types import Event, Failure, Job, JobState

__all__ = ["CONTENT_TYPE", "Inventory", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4"  # all of it is ASCII

# Seconds: from a lock-step round trip to an imaging over a slow link.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200)

RECENT_FAILURES = 20


class Inventory(Struct, frozen=True):
    """How many there are."""

    machines: int
    known: int  # of these
    jobs: Mapping[JobState, int]


class Metrics:
    """Made once for a server; a service that is given none counts into its own."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # When each began to be counted says nothing that the process' start time does not.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=False)
        self._phase = Histogram(
            "pxed_phase_seconds",
            f"Stretches of a machine's way. {'; '.join(f'{name}: {text}' for name, text in PHASES.items())}.",
            ["phase"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._transfer = Histogram(
            "pxed_transfer_seconds",
            "Whole files delivered, from the request to the last acknowledgement (TFTP) or byte (HTTP).",
            ["protocol", "kind"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        for name in PHASES:
            self._phase.labels(name)
        self._requests: Counter[tuple[str, str]] = Counter()
        self.http_outcomes: Counter[str] = Counter({"outcome.ok": 0, "outcome.cut": 0})
        self.failures: deque[Failure] = deque(maxlen=RECENT_FAILURES)
        self.phases = Phases(self._observe)
        ProcessCollector(registry=self._registry)

    def watch(self, figures: Mapping[str, Callable[[], Figures]], inventory: Callable[[], Inventory]) -> None:
        """Show these services' figures too. Once."""
        self._registry.register(Figured(figures))
        self._registry.register(_Own(self._requests, inventory))

    def text(self) -> bytes:
        """All of it in the text format of Prometheus (CONTENT_TYPE)."""
        return generate_latest(self._registry)

    # -- what the services tell ------------------------------------------------------------------------------------

    def requested(self, via: str, kind: str, mac: str = "") -> None:
        """Somebody asks for something of this kind; `mac` where the machine is known."""
        self._requests[via, kind] += 1
        if mac:
            self.phases.requested(mac, self._clock())

    def delivered(self, via: str, kind: str, seconds: float) -> None:
        """A whole file has reached its client."""
        self._transfer.labels(via, kind).observe(seconds)

    def failed(self, who: str, text: str) -> None:
        """Something ended badly; the last few are kept for whoever looks."""
        self.failures.append(Failure(self._clock(), who, text))

    def changed(self, change: Event | Job) -> None:
        """A timeline event, or a job in its new state."""
        if isinstance(change, Event):
            self.phases.event(change)
            return
        self.phases.job(change)
        if change.state is JobState.FAILED:
            self.failures.append(Failure(change.changed, f"job {change.id}", f"{change.step}: {change.reason}"))

    def _observe(self, phase: str, seconds: float) -> None:
        self._phase.labels(phase).observe(seconds)


class _Own(Collector):
    """What no service counts: requests by kind, machines, jobs, and which program this is."""

    def __init__(self, requests: Mapping[tuple[str, str], int], inventory: Callable[[], Inventory]) -> None:
        self._requests = requests
        self._inventory = inventory

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        now = self._inventory()
        build = Metric("pxed_build_info", "Which program this is.", "gauge")
        build.add_sample("pxed_build_info", {"version": version("pxed"), "python": platform.python_version()}, 1)
        machines = Metric("pxed_machines", "Machines, by whether an operator or policy added them.", "gauge")
        for known, count in (("yes", now.known), ("no", now.machines - now.known)):
            machines.add_sample("pxed_machines", {"known": known}, count)
        jobs = Metric("pxed_jobs", "Jobs, by state.", "gauge")
        for state in JobState:
            jobs.add_sample("pxed_jobs", {"state": state.value}, now.jobs.get(state, 0))
        requests = Metric("pxed_requests", "Requests of machines, by protocol and kind of thing.", "counter")
        for (via, kind), count in sorted(self._requests.items()):
            requests.add_sample("pxed_requests_total", {"protocol": via, "kind": kind}, count)
        yield from (build, machines, jobs, requests)
