"""Partition tables, held against what util-linux's own tools read and write."""

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxed.images.manifest import PartitionTable
from pxed.images.partitions import detect_sector, read_table, stated_size
from support.disks import MIB, write_disk

SIZE = 96 * MIB


def reader(path: Path) -> Callable[[int, int], bytes]:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


def partitioned(path: Path, script: str) -> Path:
    write_disk(path, SIZE)
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True)
    return path


SCRIPTS = {
    "gpt": 'label: gpt\nsize=10M, type=U, name="EFI System"\nsize=20M, type=L, name="wurzel äöü"\n',
    "gpt-gaps": "label: gpt\n2: start=4096, size=2048\n7: start=10000, size=99\n128: start=90000, size=1\n",
    "dos": "label: dos\nsize=10M, type=c, bootable\nsize=20M, type=83\n",
    "dos-logical": "label: dos\nsize=10M, type=7\nsize=60M, type=5\nsize=10M, type=83\nsize=10M, type=82\nsize=9M\n",
    "dos-empty": "label: dos\n",
    "gpt-empty": "label: gpt\n",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_same_as_sfdisk(tmp_path: Path, script: str) -> None:
    disk = partitioned(tmp_path / "disk", script)
    said = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True)
    wanted = json.loads(said.stdout)["partitiontable"]
    found = read_table(reader(disk), SIZE, 512)
    assert (found.label, found.id) == (wanted["label"], wanted["id"].lower().removeprefix("0x"))
    assert [
        (
            f"{disk}{p.number}",
            p.start // 512,
            p.size // 512,
            p.type.lstrip("0") if found.label == "dos" else p.type,
            p.name,
        )
        for p in found.partitions
    ] == [
        (p["node"], p["start"], p["size"], p["type"].lower(), p.get("name", "")) for p in wanted.get("partitions", ())
    ]
    uuids = [p["uuid"].lower() for p in wanted.get("partitions", ()) if "uuid" in p]
    if uuids:
        assert [p.uuid for p in found.partitions] == uuids


def test_size_that_the_table_was_written_for(tmp_path: Path) -> None:
    disk = partitioned(tmp_path / "disk", SCRIPTS["gpt"])
    assert stated_size(reader(disk), 512) == SIZE
    assert stated_size(reader(partitioned(tmp_path / "dos", SCRIPTS["dos"])), 512) == 0


def test_gpt_of_4096_byte_sectors(tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", SIZE)
    commands = "g\nn\n1\n\n+40M\nn\n2\n\n\nw\n"
    subprocess.run(["fdisk", "-b", "4096", disk], input=commands, text=True, check=True, capture_output=True)
    assert detect_sector(reader(disk), SIZE) == 4096
    table = read_table(reader(disk), SIZE, 4096)
    assert table.label == "gpt"
    assert [(p.number, p.start) for p in table.partitions] == [(1, MIB), (2, 41 * MIB)]
    assert table.partitions[0].size == 40 * MIB


def test_sector_size_is_512_unless_the_gpt_says_otherwise(tmp_path: Path) -> None:
    assert detect_sector(reader(partitioned(tmp_path / "a", SCRIPTS["gpt"])), SIZE) == 512
    assert detect_sector(reader(write_disk(tmp_path / "b", SIZE)), SIZE) == 512
    odd = write_disk(tmp_path / "c", SIZE + 512, [(4096, b"EFI PART")])
    assert detect_sector(reader(odd), SIZE + 512) == 512


def test_backup_gpt_stands_in_for_a_damaged_primary(tmp_path: Path) -> None:
    disk = partitioned(tmp_path / "disk", SCRIPTS["gpt"])
    whole = read_table(reader(disk), SIZE, 512)
    with disk.open("r+b") as file:
        file.seek(512 + 60)
        file.write(b"\xee")
    assert read_table(reader(disk), SIZE, 512) == whole
    with disk.open("r+b") as file:
        file.seek(SIZE - 512 + 60)
        file.write(b"\xee")
    # Both gone: what is left is the protective MBR.
    assert read_table(reader(disk), SIZE, 512).label == "dos"


@pytest.mark.parametrize("command", [["mkfs.vfat"], ["mkfs.vfat", "-F32"], ["mke2fs", "-q"]])
def test_a_bare_filesystem_has_no_table(tmp_path: Path, command: list[str]) -> None:
    disk = write_disk(tmp_path / "disk", SIZE)
    subprocess.run([*command, disk], check=True, capture_output=True)
    assert read_table(reader(disk), SIZE, 512) == PartitionTable()


def test_extended_partitions_in_a_circle_end() -> None:
    def boot_record(*entries: tuple[int, int, int]) -> bytes:
        packed = b"".join(struct.pack("<4xB3xII", kind, first, count) for kind, first, count in entries)
        return bytes(446) + packed.ljust(64, b"\0") + b"\x55\xaa"

    sectors = {0: boot_record((5, 100, 1000)), 100: boot_record((0x83, 1, 9), (5, 50, 9)), 150: boot_record((5, 0, 1))}
    sectors[150] = boot_record((0x83, 1, 9), (5, 0, 9))  # back to the first
    disk = bytearray(2000 * 512)
    for sector, data in sectors.items():
        disk[sector * 512 :][:512] = data
        disk[sector * 512 : sector * 512 + 512] = data
    table = read_table(lambda offset, length: bytes(disk[offset : offset + length]), len(disk), 512)
    assert [p.number for p in table.partitions] == [1, 5, 6]


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_are_a_table_or_none(data: st.DataObject) -> None:
    """Random bytes with the signatures in place: an answer, no exception, nothing outside of the disk."""
    disk = bytearray(data.draw(st.binary(min_size=512, max_size=8192)))
    disk[510:512] = b"\x55\xaa"
    if data.draw(st.booleans()):
        disk[450] = 0xEE
        disk[512:520] = b"EFI PART"
    size = data.draw(st.integers(1, 1 << 34)) * 512
    table = read_table(lambda offset, length: bytes(disk[offset : offset + length]), size, 512)
    for partition in table.partitions:
        assert 0 <= partition.start < partition.start + partition.size <= size
