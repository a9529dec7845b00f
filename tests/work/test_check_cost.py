"""The check's cost does not grow with the number of machines: counted in lines of Python executed, not in seconds."""

import sys

import pytest

from pxed.work.identity import clean
from support.work import START, Driver, identity_of


def lines_of(call):
    """How many lines of Python `call` executes."""
    count = 0

    def trace(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def site(machines):
    driver = Driver()
    for number in range(machines):
        driver.job(driver.machine(number))
        driver.seen(identity_of(machines + number))
    driver.boot(1)
    return driver


@pytest.mark.parametrize("number", [0, 1, 10], ids=["work", "running", "stranger"])
def test_cost_of_a_check_is_that_of_ten_machines(number):
    few, many = site(5), site(2000)
    costs = []
    for driver in (few, many):
        identity = identity_of(number if number < 10 else 99_999)
        clean(identity)  # remembered afterwards, as for every machine that asks twice
        driver.registry.check(identity, START)
        costs.append(lines_of(lambda driver=driver, identity=identity: driver.registry.check(identity, START)))
    assert costs[0] == costs[1] < 150


def test_cost_of_being_seen_again():
    costs = []
    for driver in (site(5), site(2000)):
        driver.registry.machines.learn(identity_of(0), START, known=False)
        costs.append(lines_of(lambda driver=driver: driver.registry.machines.learn(identity_of(0), START, known=False)))
    assert costs[0] == costs[1]
