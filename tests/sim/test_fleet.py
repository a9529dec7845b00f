"""Every kind of firmware boots the whole way from pxed's own state machines, in networks of every kind of badness."""

from collections import Counter
from typing import Any

import pytest

from pxed.bench.firmware import ROWS, Row, row
from pxed.bench.fleet.network import Trouble
from pxed.bench.fleet.plan import Plan
from pxed.bench.fleet.virtual import Simulation
from pxed.boot import scripts

NETWORKS = {
    "no loss": Trouble(),
    "1 % loss": Trouble(loss=0.01),
    "5 % loss": Trouble(loss=0.05),
    "duplicates": Trouble(duplicate=0.2),
    "reordering": Trouble(reorder=0.05, held=0.001),
    "slow": Trouble(delay=0.05),
}


def play(row: Row, trouble: Trouble, *, machines: int = 6, seed: int = 1, **more: Any) -> Simulation:
    """A small fleet of one kind."""
    plan = Plan(machines, 60_000, 40_000, trouble.loss, 1e8, mix={row.name: 1.0}, seed=seed, **more)
    simulation = Simulation(plan, trouble)
    simulation.run()
    return simulation


def ends(simulation: Simulation) -> set[tuple[str, str]]:
    return {(machine.outcome, machine.reason) for machine in simulation.machines}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_firmware_through_every_network(row: Row, name: str) -> None:
    assert ends(play(row, NETWORKS[name], bulk="tftp")) == {("done", "")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_server_that_comes_late_is_still_in_time(row: Row) -> None:
    assert ends(play(row, Trouble(late=row.late))) == {("done", "")}


@pytest.mark.parametrize("name", ["uefi", "bios", "shim"])
def test_behind_an_mtu_hole_the_second_boot_gets_smaller_blocks(name: str) -> None:
    """The first one waits for full-size blocks until its patience ends; the server has understood by then."""
    first = play(row(name), Trouble(mtu_hole=1400))
    assert {machine.steps[-1].name for machine in first.machines} == {"boot program"}
    assert {machine.outcome for machine in first.machines} == {"lost"}
    again = play(row(name), Trouble(mtu_hole=1400), restarts=1)
    assert ends(again) == {("done", "")}
    assert {end.blksize for end in again.server.finished if end.outcome == "ok" and end.bytes > 1000} == {
        1024, *([512] if name == "shim" else [])
    }  # fmt: skip


def test_ipxe_by_http_does_not_meet_an_mtu_hole() -> None:
    assert ends(play(row("ipxe"), Trouble(mtu_hole=1400))) == {("done", "")}


def test_every_way_is_gone_whole() -> None:
    """The steps of each kind, in order."""
    ipxe = ["script", "check", "kernel", "initramfs"]
    firmware = ["DHCP", "port 4011", "size probe", "boot program"]
    ways = {
        "uefi": [*firmware, "iPXE: DHCP", *ipxe],
        "bios": ["DHCP", "size probe", "boot program", "iPXE: DHCP", *ipxe],
        "ipxe": ["DHCP", *ipxe],
        "shim": [*firmware, "revocations.efi", "grubx64.efi", "grub.cfg", "kernel", "initramfs"],
    }
    for name, way in ways.items():
        (machine,) = play(row(name), Trouble(), machines=1).machines
        assert [step.name for step in machine.steps] == way
        assert sum(step.bytes for step in machine.steps) >= 60_000


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_machines_without_work(row: Row) -> None:
    """pxed says nothing: firmware goes on to its next boot device after its own patience."""
    plan = Plan(3, 60_000, 40_000, mix={row.name: 1.0})
    simulation = Simulation(plan, Trouble(), work=False)
    simulation.run()
    assert {machine.outcome for machine in simulation.machines} == {"lost"}
    assert not simulation.server.finished


def test_a_job_that_ends_between_firmware_and_check_is_no_work() -> None:
    plan = Plan(1, 60_000, 40_000, mix={"uefi": 1.0})
    simulation = Simulation(plan, Trouble())
    content = simulation.server.content

    def late(name: str, via: str, now: float) -> bytes | None:
        return (
            scripts.local_script("nothing left to do")
            if name.startswith(scripts.CHECK_PREFIX)
            else content(name, via, now)
        )

    simulation.server.content = late  # type: ignore[method-assign]
    simulation.run()
    assert [(m.outcome, m.reason) for m in simulation.machines] == [
        ("no work", "pxed: nothing left to do; booting the local disk")
    ]


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    def times(seed: int) -> list[float]:
        return [machine.steps[-1].ended for machine in play(row("uefi"), Trouble(loss=0.05), seed=seed).machines]

    assert times(1) == times(1)
    assert times(1) != times(2)


@pytest.mark.parametrize("queue", [None, 1 << 20], ids=["own port", "a switch behind"])
def test_a_hundred_at_once_with_loss(queue: int | None) -> None:
    plan = Plan(100, 60_000, 60_000, 0.01, 1e8, queue=queue)
    simulation = Simulation(plan, Trouble(loss=0.01))
    simulation.run()
    assert Counter(machine.outcome for machine in simulation.machines) == {"done": 100}
    kinds = Counter(machine.row.name for machine in simulation.machines)
    assert kinds == {"uefi": 60, "bios": 25, "ipxe": 10, "shim": 5}


def test_power_on_is_spread() -> None:
    plan = Plan(50, 1000, 1000, spread=30.0)
    simulation = Simulation(plan, Trouble())
    simulation.run()
    assert 25 < max(simulation.power_on) <= 30
    assert min(simulation.power_on) < 5
    assert all(m.steps[0].began == at for m, at in zip(simulation.machines, simulation.power_on, strict=True))


def test_a_wrong_byte_is_seen() -> None:
    plan = Plan(1, 60_000, 40_000, mix={"uefi": 1.0})
    simulation = Simulation(plan, Trouble())
    good = simulation.machines[0].known["snponly.efi"]
    simulation.machines[0].known = {"snponly.efi": good[:5000] + b"?" + good[5001:]}
    simulation.run()
    assert simulation.machines[0].reason == "a wrong byte after offset 4404"
