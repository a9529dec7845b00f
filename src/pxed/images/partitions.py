"""Reading a partition table (GPT, MBR with logical partitions) into the manifest's summary.

Done here and not by sfdisk, because the summary is part of what an image's id is computed from: the id of one disk
must not depend on which tools a host has, nor on their versions. Tests hold it against sfdisk's reading.

The bytes are a stranger's: every count and every offset is bounded, and a table that makes no sense is no table.
UEFI 2.10 section 5 (GPT, protective MBR).
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pxed.images.manifest import Partition, PartitionTable

__all__ = ["detect_sector", "read_table", "stated_size"]

Read = Callable[[int, int], bytes]  # (offset, length) -> bytes of the disk, short at its end

GPT_SIGNATURE = b"EFI PART"
GPT_HEADER = struct.Struct("<8s4sII4xQQQQ16sQIII")
MAX_GPT_ENTRIES = 1024  # 128 is the rule; Linux reads at most 256
MAX_LOGICAL = 128  # an EBR chain longer than Linux follows is a loop or an attack
EXTENDED = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE


def detect_sector(read: Read, size: int) -> int:
    """The logical sector size that a disk was written with: 4096 where its GPT says so, else 512."""
    if read(512, 8) != GPT_SIGNATURE and size % 4096 == 0 and read(4096, 8) == GPT_SIGNATURE:
        return 4096
    return 512


def read_table(read: Read, size: int, sector: int) -> PartitionTable:
    """The disk's partition table; one with an empty label when there is none."""
    mbr = read(0, 512)
    if len(mbr) < 512 or mbr[510:] != b"\x55\xaa":
        return PartitionTable()
    entries = [_MbrEntry(mbr, number) for number in range(4)]
    if any(entry.kind == PROTECTIVE for entry in entries):
        for lba in (1, size // sector - 1):  # the backup stands in for a damaged primary header
            table = _read_gpt(read, size, sector, lba)
            if table is not None:
                return table
    if not _is_mbr(mbr, entries):
        return PartitionTable()
    return _read_mbr(read, size, sector, mbr, entries)


def stated_size(read: Read, sector: int) -> int:
    """The bytes of the disk that its GPT was written for; 0 when it has none."""
    header = _gpt_header(read, sector, 1)
    return (int(header[5]) + 1) * sector if header else 0


def _gpt_header(read: Read, sector: int, lba: int) -> tuple[Any, ...] | None:
    """The fields of the GPT header at `lba`, if it is one and whole."""
    header = read(lba * sector, sector)
    if len(header) < GPT_HEADER.size or header[:8] != GPT_SIGNATURE:
        return None
    fields = GPT_HEADER.unpack_from(header)
    header_size, header_crc, my_lba = fields[2], fields[3], fields[4]
    if not GPT_HEADER.size <= header_size <= sector or my_lba != lba:
        return None
    whole = zlib.crc32(header[:16] + bytes(4) + header[20:header_size]) == header_crc
    return fields if whole else None


def _read_gpt(read: Read, size: int, sector: int, lba: int) -> PartitionTable | None:
    header = _gpt_header(read, sector, lba)
    if header is None:
        return None
    disk, entries_lba, count, entry_size, entries_crc = header[8:]
    if not 0 < count <= MAX_GPT_ENTRIES or not 128 <= entry_size <= 4096:
        return None
    entries = read(entries_lba * sector, count * entry_size) if entries_lba * sector < size else b""
    if zlib.crc32(entries) != entries_crc or len(entries) < count * entry_size:
        return None
    partitions = []
    for number in range(count):
        entry = entries[number * entry_size :][:128]
        kind, unique, first, last = struct.unpack_from("<16s16sQQ", entry)
        if kind == bytes(16) or not first <= last < size // sector:
            continue
        # Names are UTF-16 that nothing checks; what is no text becomes the replacement character.
        name = entry[56:128].decode("utf-16-le", "replace").split("\0")[0]
        start, length = first * sector, (last - first + 1) * sector
        partitions.append(Partition(number + 1, start, length, _guid(kind), _guid(unique), name))
    return PartitionTable("gpt", _guid(disk), tuple(partitions))


class _MbrEntry:
    """One of the four entries of an MBR or an EBR; `first` and `count` are sectors."""

    def __init__(self, block: bytes, number: int) -> None:
        entry = block[446 + 16 * number :][:16]
        self.flag, self.kind = entry[0], entry[4]
        self.first, self.count = struct.unpack_from("<II", entry, 8)

    @property
    def used(self) -> bool:
        return self.kind != 0 and self.count != 0


def _is_mbr(mbr: bytes, entries: list[_MbrEntry]) -> bool:
    """A boot sector of a bare FAT or NTFS ends in the same two bytes; there, the entries are code and text."""
    if any(entry.flag not in (0x00, 0x80) for entry in entries):
        return False
    bare_filesystem = mbr[54:57] == b"FAT" or mbr[82:85] == b"FAT" or mbr[3:7] in (b"NTFS", b"EXFA")
    return not (bare_filesystem and not any(entry.used for entry in entries))


def _read_mbr(read: Read, size: int, sector: int, mbr: bytes, entries: list[_MbrEntry]) -> PartitionTable:
    signature = f"{struct.unpack_from('<I', mbr, 440)[0]:08x}"
    found: list[tuple[int, _MbrEntry, int]] = []  # number, entry, first sector of the disk
    extended = None
    for number, entry in enumerate(entries, 1):
        if entry.used:
            found.append((number, entry, entry.first))
            if entry.kind in EXTENDED and extended is None:
                extended = entry.first
    if extended is not None:
        found += [(5 + k, entry, first) for k, (entry, first) in enumerate(_logical(read, sector, extended))]
    partitions = tuple(
        Partition(number, first * sector, entry.count * sector, f"{entry.kind:02x}", f"{signature}-{number:02x}")
        for number, entry, first in found
        if (first + entry.count) * sector <= size
    )
    return PartitionTable("dos", signature, partitions)


def _logical(read: Read, sector: int, extended: int) -> list[tuple[_MbrEntry, int]]:
    """The logical partitions of an extended one, with their first sectors, along the chain of EBRs."""
    found: list[tuple[_MbrEntry, int]] = []
    here, seen = extended, set[int]()
    while here not in seen and len(found) < MAX_LOGICAL:
        seen.add(here)
        ebr = read(here * sector, 512)
        if len(ebr) < 512 or ebr[510:] != b"\x55\xaa":
            break
        data, link = _MbrEntry(ebr, 0), _MbrEntry(ebr, 1)
        if data.used:
            found.append((data, here + data.first))
        if link.kind not in EXTENDED or not link.used:
            break
        here = extended + link.first
    return found


def _guid(raw: bytes) -> str:
    return str(UUID(bytes_le=raw))
