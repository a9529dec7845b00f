"""How far machines are and how long each stretch took, from the events and jobs that say so."""

from pxed.service.phases import FORGOTTEN_AFTER, MAX_FOLLOWED, PHASES, Phases
from pxed.types import Event, Job, JobState

MAC = "52:54:00:12:34:56"


class Followed:
    """Phases, and what they told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.phases = Phases(lambda phase, seconds: self.told.append((phase, seconds)))

    def event(self, kind: str, now: float, mac: str = MAC, job: int | None = None) -> None:
        self.phases.event(Event(now, mac, kind, "…", job_id=job))

    def job(self, state: JobState, now: float, number: int = 7) -> None:
        self.phases.job(Job(number, 1, "restore", "ab", "demo", state, 0.0, now))


def test_a_boot_with_an_imaging() -> None:
    seen = Followed()
    seen.event("offer", 100.0)
    seen.event("offer", 104.0)  # firmware asks again; the first time counts
    seen.phases.requested(MAC, 106.0)
    seen.phases.acknowledged(0.002)
    seen.phases.requested(MAC, 107.0)  # the next file of the same boot
    seen.job(JobState.OFFERED, 110.0)
    seen.event("check", 111.0, job=7)
    seen.job(JobState.RUNNING, 131.0)
    seen.phases.first_byte(7, 133.0)
    seen.phases.first_byte(7, 140.0)
    seen.job(JobState.RUNNING, 150.0)
    seen.job(JobState.SUCCEEDED, 231.0)
    assert seen.told == [
        ("discover-to-request", 6.0), ("request-to-first-ack", 0.002), ("check-to-claim", 20.0),
        ("claim-to-first-byte", 2.0), ("imaging", 100.0), ("job", 121.0),
    ]  # fmt: skip
    assert [phase for phase, _ in seen.told] == list(PHASES)


def test_a_failed_job_is_no_imaging_and_a_retry_begins_anew() -> None:
    seen = Followed()
    seen.job(JobState.OFFERED, 10.0)
    seen.job(JobState.RUNNING, 20.0)
    seen.job(JobState.FAILED, 30.0)
    seen.job(JobState.PENDING, 40.0)
    seen.job(JobState.OFFERED, 50.0)
    seen.job(JobState.RUNNING, 60.0)
    seen.job(JobState.SUCCEEDED, 90.0)
    assert seen.told == [("imaging", 30.0), ("job", 40.0)]


def test_a_boot_that_was_given_up_is_not_measured_with_the_next() -> None:
    seen = Followed()
    seen.event("offer", 100.0)
    seen.event("offer", 100.0 + FORGOTTEN_AFTER)
    seen.phases.requested(MAC, 101.0 + FORGOTTEN_AFTER)
    assert seen.told == [("discover-to-request", 1.0)]


def test_a_clock_that_was_set_back_measures_nothing() -> None:
    seen = Followed()
    seen.event("offer", 100.0)
    seen.phases.requested(MAC, 50.0)
    seen.job(JobState.RUNNING, 100.0)
    seen.job(JobState.SUCCEEDED, 50.0)
    assert seen.told == []


def test_what_is_not_followed_is_not_measured() -> None:
    seen = Followed()
    seen.phases.requested(MAC, 1.0)
    seen.phases.first_byte(3, 1.0)
    seen.job(JobState.SUCCEEDED, 1.0)
    seen.event("offer", 1.0, mac="")
    assert (seen.told, seen.phases.places(1.0)) == ([], {})


def test_places_of_machines() -> None:
    seen = Followed()
    seen.event("offer", 100.0, "a")
    seen.event("offer", 101.0, "b")
    seen.event("offer", 102.0, "c")
    seen.event("boot-program", 103.0, "b")
    seen.event("no-work", 104.0, "c")  # says nothing about where it is
    assert seen.phases.places(105.0) == {"boot offered": 2, "boot program": 1}
    assert seen.phases.places(102.0 + FORGOTTEN_AFTER) == {"boot program": 1}


def test_strangers_take_bounded_memory() -> None:
    seen = Followed()
    for number in range(MAX_FOLLOWED + 10):
        seen.event("offer", 1.0, str(number))
        seen.job(JobState.OFFERED, 1.0, number)
    assert seen.phases.places(1.0) == {"boot offered": MAX_FOLLOWED}
    assert len(seen.phases._jobs) == MAX_FOLLOWED
