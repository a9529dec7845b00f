"""What the configuration makes of rates and places."""

import pytest

from pxed.config import parse
from pxed.service.rates import Rates

SPEEDS = {"eth0": 125_000_000, "eth1": 1_250_000_000}
OF = {"10.0.0.1": "eth0", "10.0.0.2": "eth0", "10.1.0.1": "eth1", "10.2.0.1": "br0"}


def rates(tftp: str = "", server: str = "") -> Rates:
    config = parse(f'[server]\naddress = "10.0.0.1"\n{server}\n[tftp]\nroot = "/srv"\n{tftp}\n')
    return Rates(config, interface_of=lambda address: OF[address], speed_of=SPEEDS.get)


@pytest.mark.parametrize(
    ("tftp", "server", "addresses", "places"),
    [
        ("", "", ["10.0.0.1"], 250),  # one for each 4 Mbit/s
        ("", "", ["10.0.0.1", "10.0.0.2"], 250),  # two addresses, one line
        ("", "", ["10.0.0.1", "10.1.0.1"], 2750),
        ("", "", ["10.2.0.1"], 250),  # of unknown speed
        ("running = 7", "", ["10.1.0.1"], 7),
        ('rate = "400Mbit"', "", ["10.1.0.1"], 100),
        ('rate = "20Gbit"', "", ["10.1.0.1"], 2500),
        ("", 'rates = { eth1 = "800Mbit" }', ["10.1.0.1"], 200),
        ("", 'rates = { eth1 = "1Mbit" }', ["10.1.0.1"], 64),
    ],
)
def test_places_fill_the_lines(tftp: str, server: str, addresses: list[str], places: int) -> None:
    assert rates(tftp, server).places(addresses) == places


def test_one_pacer_for_each_interface_and_one_for_all() -> None:
    found = rates('rate = "1.5Gbit"', 'rates = { eth0 = "170Mbit" }')
    assert found.whole.rate == 187_500_000
    assert found.line("10.0.0.1") is found.line("10.0.0.2")
    assert found.line("10.0.0.1").rate == 21_250_000
    assert found.line("10.1.0.1").rate == 0


def test_a_reload_changes_the_pacers_that_run() -> None:
    found = rates('rate = "1Gbit"', 'rates = { eth0 = "170Mbit" }')
    line = found.line("10.0.0.1")
    found.configure(parse('[server]\naddress = "10.0.0.1"\nrates = { eth0 = "8Mbit/s" }\n[tftp]\nroot = "/srv"\n'))
    assert (found.whole.rate, line.rate) == (0, 1_000_000)


def test_without_a_configuration_nothing_is_limited() -> None:
    found = Rates()
    assert (found.whole.rate, found.line("10.0.0.1").rate, found.places(["10.0.0.1"])) == (0, 0, 250)
