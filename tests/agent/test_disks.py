"""Which disk is written: the one decision of the agent that cannot be taken back."""

import pytest

from pxed.agent.disks import choose, find_disks, wait_for_disks
from pxed.agent.failure import AgentFailure
from pxed.agent.identity import identify
from support.agent_machine import FakeMachine

GIB = 1 << 30
PCI = "pci0000:00/0000:00:1f.2"
USB = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0"


def small(machine: FakeMachine, name: str, gibibytes: int, where: str = PCI, **values: object) -> None:
    """A disk that says it is large."""
    machine.add_disk(name, 512, where=where, **{"size": gibibytes * GIB // 512, **values})


def names(machine: FakeMachine) -> list[str]:
    """The targets, best first."""
    return [disk.path.removeprefix("/dev/") for disk in find_disks(machine) if not disk.removable]


def test_nvme_then_solid_state_then_rotating_then_emmc(machine: FakeMachine) -> None:
    small(machine, "mmcblk0", 8, "platform/80860F14:00/mmc_host/mmc0/mmc0:0001", device__type="MMC")
    small(machine, "sda", 100, PCI + "/ata1", queue__rotational=1)
    small(machine, "sdb", 200, PCI + "/ata2", queue__rotational=0)
    small(machine, "nvme0n1", 900, "pci0000:00/0000:01:00.0/nvme/nvme0", queue__rotational=0)
    assert names(machine) == ["nvme0n1", "sdb", "sda", "mmcblk0"]
    assert [disk.transport for disk in find_disks(machine)] == ["nvme", "sata", "sata", "mmc"]


def test_of_one_kind_the_smaller_first_then_by_name(machine: FakeMachine) -> None:
    for name, size in (("sdaa", 10), ("sdb", 10), ("sdc", 5), ("sda", 2000)):
        small(machine, name, size)
    assert names(machine) == ["sdc", "sdb", "sdaa", "sda"]


@pytest.mark.parametrize(
    ("name", "where", "values"),
    [
        ("sda", USB, {}),
        ("sda", PCI, {"removable": 1}),
        ("sda", PCI, {"ro": 1}),
        ("sda", PCI, {"size": 0}),
        ("sda", PCI, {"hidden": 1}),
        ("mmcblk0", "platform/mmc_host/mmc0/mmc0:aaaa", {"device__type": "SD"}),
        ("mmcblk0boot0", "platform/mmc_host/mmc0/mmc0:0001", {"device__type": "MMC"}),
        *((name, "virtual", {}) for name in ("loop0", "ram0", "zram0", "dm-0", "md0", "md127", "nbd0", "sr0", "fd0")),
    ],
)
def test_never_a_target(machine: FakeMachine, name: str, where: str, values: dict[str, object]) -> None:
    small(machine, name, 10, where, **values)
    assert names(machine) == []
    with pytest.raises(AgentFailure, match="no disk"):
        choose(find_disks(machine), GIB, 512)


def test_a_disk_without_hardware_behind_it_is_none(machine: FakeMachine) -> None:
    small(machine, "sda", 10)
    for path in (machine.sys / "block/sda/device").iterdir():
        path.unlink()
    (machine.sys / "block/sda/device").rmdir()
    assert names(machine) == []


def test_the_first_disk_too_small_does_not_cost_the_second_its_data(machine: FakeMachine) -> None:
    small(machine, "nvme0n1", 10, "pci/nvme/nvme0", device__model="Tiny")
    small(machine, "sda", 1000)
    with pytest.raises(AgentFailure, match=r"/dev/nvme0n1 \(Tiny\) is too small.*Nothing was written"):
        choose(find_disks(machine), 20 * GIB, 512)
    assert choose(find_disks(machine), 10 * GIB, 512).path == "/dev/nvme0n1"


def test_disks_that_turn_up_late_are_waited_for(machine: FakeMachine) -> None:
    looks = iter(["", "sda", "nvme0n1"])
    sleep = machine.sleep

    def turn_up(seconds: float) -> None:
        sleep(seconds)
        if name := next(looks, ""):
            small(machine, name, 10, PCI + "/" + name)

    machine.sleep = turn_up  # type: ignore[method-assign]
    assert [disk.path for disk in wait_for_disks(machine)] == ["/dev/nvme0n1", "/dev/sda"]


def test_a_machine_without_disks_is_not_waited_for_forever(machine: FakeMachine) -> None:
    assert wait_for_disks(machine) == []
    assert 60 <= machine.slept <= 62


def test_without_the_boot_interface_the_one_with_a_link_names_the_machine(machine: FakeMachine) -> None:
    for name, mac, carrier in (("eth0", "02:00:00:00:00:01", 0), ("eth1", "02:00:00:00:00:02", 1)):
        directory = machine.sys / "class/net" / name
        (directory / "device").mkdir(parents=True)
        for file, value in (("address", mac), ("carrier", carrier), ("type", 1)):
            (directory / file).write_text(f"{value}\n")
    (machine.sys / "class/net/lo").mkdir()
    assert identify(machine, "").mac == "02:00:00:00:00:02"
    assert identify(machine, "02:00:00:00:00:09").mac == "02:00:00:00:00:09"
    (machine.sys / "class/net/eth1/carrier").write_text("0\n")
    assert identify(machine, "").mac == "02:00:00:00:00:01"
