"""The boot entry: which loader, where in the order, and what is done when firmware refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pxed.agent.host import ToolError
from pxed.agent.target import Target
from pxed.agent.uefi import BootOrder, find_loader, new_order, parse_entries, set_boot_entry
from pxed.images.manifest import Manifest, Partition, PartitionTable
from support.agent_machine import FakeMachine

UUID = "11112222-3333-4444-5555-666677778888"
PRINTED = f"""\
BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0003,0001,0000,00AF
Boot0000* UiApp\tFvVol(7cb8bdc9)/FvFile(462caa21)
Boot0001* old system\tHD(1,GPT,{UUID.upper()},0x1000,0x10000)/File(\\EFI\\old\\shimx64.efi)
Boot0003* UEFI PXEv4 (MAC:525400123456)\tPciRoot(0x0)/Pci(0x3,0x0)/MAC(525400123456,1)/IPv4(0.0.0.0)
Boot00AF  UEFI disk\tPciRoot(0x0)/Pci(0x4,0x0)
"""


class Firmware:
    """Plays `efibootmgr` and `mount`; `esp` is the partition's content."""

    def __init__(
        self, machine: FakeMachine, esp: Path, entries: dict[str, str], order: list[str], current: str
    ) -> None:
        self.machine, self.esp, self.entries, self.order, self.current = machine, esp, entries, order, current
        self.next = ""
        self.refuses = False

    def __call__(self, command: tuple[str, ...]) -> str:
        return getattr(self, f"_{command[0]}")(command[1:]) or ""

    def _mount(self, words: tuple[str, ...]) -> None:
        self.machine.mount_point.rmdir()
        self.machine.mount_point.symlink_to(self.esp)

    def _umount(self, words: tuple[str, ...]) -> None:
        self.machine.mount_point.unlink()
        self.machine.mount_point.mkdir()

    def _efibootmgr(self, words: tuple[str, ...]) -> str:
        if "-C" in words:
            if self.refuses:
                raise ToolError("efibootmgr: Could not prepare Boot variable: No space left on device")
            assert words[words.index("-d") + 1 : words.index("-d") + 4] == (str(self.machine.dev / "vda"), "-p", "1")
            label, loader = words[words.index("-L") + 1], words[words.index("-l") + 1]
            self.entries["0007"] = f"{label}\tHD(1,GPT,{UUID})/File({loader})"
        elif "-B" in words:
            number = words[words.index("-b") + 1]
            del self.entries[number]
            self.order.remove(number)
        elif "-o" in words:
            self.order = words[words.index("-o") + 1].split(",")
        elif "-n" in words:
            self.next = words[words.index("-n") + 1]
        lines = [f"Boot{number}* {text}" for number, text in self.entries.items()]
        return "\n".join([f"BootCurrent: {self.current}", f"BootOrder: {','.join(self.order)}", *lines]) + "\n"


@pytest.fixture
def manifest() -> Manifest:
    esp = Partition(1, 1 << 20, 33 << 20, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", UUID)
    return Manifest.build(64 << 20, 512, PartitionTable("gpt", "", (esp,)), [], b"")


@pytest.fixture
def firmware(machine: FakeMachine, tmp_path: Path) -> Firmware:
    machine.make_uefi()
    machine.add_disk("vda", 1 << 20, vda1__partition=1)
    esp = tmp_path / "esp"
    for name in ("EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi", "EFI/debian/mmx64.efi"):
        (esp / name).parent.mkdir(parents=True, exist_ok=True)
        (esp / name).write_text(name)
    (machine.root / "mnt").mkdir()
    parsed = parse_entries(PRINTED)
    played = Firmware(machine, esp, dict(parsed.entries), list(parsed.order), parsed.current)
    machine.play = played
    return played


@pytest.fixture
def set_entry(machine: FakeMachine, manifest: Manifest) -> Callable[[], str]:
    def set_it() -> str:
        target = Target(machine.dev / "vda")
        target.close()
        return set_boot_entry(machine, target, manifest, "image one")

    return set_it


def test_entries_are_read() -> None:
    parsed = parse_entries(PRINTED)
    assert (parsed.current, parsed.order) == ("0003", ("0003", "0001", "0000", "00AF"))
    assert sorted(parsed.entries) == ["0000", "0001", "0003", "00AF"]
    assert parse_entries("EFI variables are not supported on this system.\n") == BootOrder("", (), {})


def test_a_site_that_boots_from_the_network_first_stays_so() -> None:
    before = BootOrder("0003", ("0003", "0001"), {"0003": "PXE", "0001": "disk"})
    assert new_order(before, "0007") == ("0003", "0007", "0001")


def test_otherwise_the_own_system_comes_first() -> None:
    before = BootOrder("0003", ("0001", "0003", "0009"), {"0003": "PXE", "0001": "disk"})
    assert new_order(before, "0007") == ("0007", "0001", "0003")
    assert new_order(BootOrder("", (), {}), "0007") == ("0007",)


def test_the_new_system_is_next_and_its_old_entry_gone(firmware: Firmware, set_entry: Callable[[], str]) -> None:
    said = set_entry()
    assert (firmware.next, firmware.order) == ("0007", ["0003", "0007", "0000", "00AF"])
    assert "0001" not in firmware.entries
    assert firmware.entries["0007"].endswith("File(\\EFI\\debian\\shimx64.efi)")
    assert 'EFI/debian/shimx64.efi next, as boot entry "image one"' in said


def test_firmware_that_refuses_finds_the_loader_by_its_fallback_path(
    firmware: Firmware, set_entry: Callable[[], str]
) -> None:
    firmware.refuses = True
    said = set_entry()
    assert "No space left" in said
    assert (firmware.esp / "EFI/BOOT/BOOTX64.EFI").read_text() == "EFI/debian/shimx64.efi"
    assert (firmware.esp / "EFI/BOOT/grubx64.efi").read_text() == "EFI/debian/grubx64.efi"
    assert "was copied to EFI/BOOT/BOOTX64.EFI" in said


def test_a_fallback_that_the_image_has_is_left_alone(firmware: Firmware, set_entry: Callable[[], str]) -> None:
    firmware.refuses = True
    (firmware.esp / "EFI/Boot").mkdir()
    (firmware.esp / "EFI/Boot/bootx64.efi").write_text("theirs")
    assert "which the image has" in set_entry()
    assert (firmware.esp / "EFI/Boot/bootx64.efi").read_text() == "theirs"


def test_what_cannot_be_done_is_said_and_fails_nothing(
    machine: FakeMachine, firmware: Firmware, set_entry: Callable[[], str]
) -> None:
    for path in (firmware.esp / "EFI/debian").iterdir():
        path.unlink()
    assert "holds no boot loader" in set_entry()
    machine.play = machine._unknown_tool
    assert "cannot be read (mount: not found)" in set_entry()
    (machine.sys / "block/vda/vda1/partition").unlink()
    assert "the kernel shows no partition 1 on vda" in set_entry()


def test_bios_needs_no_entry(machine: FakeMachine, set_entry: Callable[[], str]) -> None:
    machine.add_disk("vda", 512)
    assert set_entry().startswith("BIOS ")
    assert machine.ran == []


@pytest.mark.parametrize(
    ("files", "loader"),
    [
        ([], None),
        (["EFI/BOOT/BOOTX64.EFI"], "EFI/BOOT/BOOTX64.EFI"),
        (["efi/boot/bootx64.efi"], "efi/boot/bootx64.efi"),
        (["EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi"], "EFI/BOOT/BOOTX64.EFI"),
        (["EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi"], "EFI/debian/grubx64.efi"),
        (["EFI/fedora/grubx64.efi", "EFI/fedora/shimx64.efi"], "EFI/fedora/shimx64.efi"),
        (["EFI/ubuntu/shimx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi"], "EFI/Microsoft/Boot/bootmgfw.efi"),
        (["EFI/systemd/systemd-bootx64.efi", "EFI/Linux/x.efi"], "EFI/systemd/systemd-bootx64.efi"),
        (["EFI/BOOT/BOOTIA32.EFI"], None),
    ],
)
def test_the_systems_own_loader_is_found(tmp_path: Path, files: list[str], loader: str | None) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"MZ")
    assert find_loader(tmp_path) == loader
