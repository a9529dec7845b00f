"""How long the transaction check takes with 10,000 machines: `pytest benchmarks/bench_check.py`.

Do not trust it across machines: it measures CPython on this one. The target is under 1 ms at 10,000 machines; what
keeps it there is checked without a clock in tests/work/test_check_cost.py.
"""

import pytest

from support.work import START, Driver, identity_of

MACHINES = 10_000


@pytest.fixture(scope="module")
def site():
    """A tenth has a job that waits, a tenth is running one, a tenth was only seen, the rest has no work."""
    driver = Driver()
    for number in range(MACHINES):
        if number % 10 == 2:
            driver.seen(identity_of(number))
            continue
        machine = driver.machine(number)
        if number % 10 < 2:
            driver.job(machine)
            if number % 10:
                driver.boot(number)
    return driver


@pytest.mark.parametrize(
    "kind", [pytest.param(0, id="work"), pytest.param(1, id="running"), pytest.param(3, id="no-work")]
)
def test_check(benchmark, site, kind):
    identities = [identity_of(number) for number in range(kind, MACHINES, 10)]
    benchmark.extra_info["machines"] = MACHINES

    def every_tenth():
        for identity in identities:
            site.registry.check(identity, START)

    benchmark(every_tenth)
    if benchmark.enabled:
        assert benchmark.stats.stats.mean / len(identities) < 1e-3


def test_seen_again(benchmark, site):
    identities = [identity_of(number) for number in range(3, MACHINES, 10)]
    benchmark(lambda: [site.registry.machines.learn(identity, START, known=False) for identity in identities])


def test_tick(benchmark, site):
    benchmark(site.registry.tick, START)
