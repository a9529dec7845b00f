"""The machine's disks, and which of them is the target.

A target is never: removable, on USB, read-only, empty of size, an SD card, optical, a RAM or loop disk, or something
that the kernel put together (device mapper, md). Of the rest the first in this order is taken:

1. kind: NVMe, then other solid state, then rotating disks, then eMMC: systems are installed on the faster one;
2. size: the smaller first, as data disks are the larger ones;
3. the kernel's name.

The order does not look at the image. A machine whose first disk is too small fails, instead of losing what is on its
second one.
"""

import re
from pathlib import Path

from pxed.agent.failure import AgentFailure
from pxed.agent.host import Host
from pxed.types import DiskFact, Step

__all__ = ["choose", "find_disks", "wait_for_disks"]

# Kernel names of what is no disk of the machine: optical, floppy, memory, loop, network, assembled, boot partitions.
NO_DISK = re.compile(r"(loop|ram|zram|dm-|md|sr|fd|nbd|rbd|mtdblock|drbd|mmcblk\d+(boot|rpmb))")

# Controllers find their disks in the background; the slowest (SAS expanders) take half a minute.
DISK_WAIT = 60.0
# The list is complete when it stayed the same for this long: the first disk to turn up need not be the best target.
SETTLE = 2.0


def find_disks(host: Host) -> list[DiskFact]:
    """All disks, best target first; unsuitable ones come last, marked removable."""
    found = [_rank_and_fact(path) for path in (host.sys / "block").glob("*") if not NO_DISK.match(path.name)]
    return [fact for _, fact in sorted((item for item in found if item[1].size), key=lambda item: item[0])]


def wait_for_disks(host: Host) -> list[DiskFact]:
    """The disks, once there is a target among them and no more are turning up; after `DISK_WAIT`, what there is."""
    deadline = host.now() + DISK_WAIT
    before: list[DiskFact] = []
    while True:
        disks = find_disks(host)
        if (disks == before and any(not disk.removable for disk in disks)) or host.now() > deadline:
            return disks
        before = disks
        host.sleep(SETTLE)


def choose(disks: list[DiskFact], size: int, sector: int) -> DiskFact:
    """The target for an image of `size` bytes with logical sectors of `sector` bytes.

    Raises AgentFailure, before anything is written, when there is none.
    """
    targets = [disk for disk in disks if not disk.removable]
    if not targets:
        passed = f"; not taken: {', '.join(disk.path for disk in disks)} (removable)" if disks else ""
        raise AgentFailure(Step.TARGET, f"The machine has no disk that Linux can see and that is its own{passed}.")
    target = targets[0]
    if target.size < size:
        raise AgentFailure(
            Step.TARGET,
            f"The disk {target.path} ({_describe(target)}) is too small: it has {target.size} bytes, the image needs "
            f"{size}. Nothing was written.",
        )
    if target.sector_size != sector:
        raise AgentFailure(
            Step.TARGET,
            f"The disk {target.path} has sectors of {target.sector_size} bytes, the image was made for {sector}: its "
            "partition table would mean other places. Nothing was written.",
        )
    return target


def _describe(disk: DiskFact) -> str:
    return " ".join(word for word in (disk.model, disk.serial) if word) or disk.transport


def _rank_and_fact(path: Path) -> tuple[tuple[bool, int, int, int, str], DiskFact]:
    name, real = path.name, str(path.resolve())
    transport = _transport(name, real)
    removable = (
        _read(path / "removable") == "1"
        or _read(path / "ro") == "1"
        or _read(path / "hidden") == "1"
        or transport == "usb"
        or (transport == "mmc" and _read(path / "device/type") != "MMC")
        or not (path / "device").exists()
    )
    fact = DiskFact(
        path=f"/dev/{name}",
        size=int(_read(path / "size") or 0) * 512,  # always counted in 512 bytes, whatever the sector is
        model=" ".join(_read(path / "device/model").split()),
        serial=_read(path / "serial") or _read(path / "device/serial"),
        transport=transport,
        removable=removable,
        sector_size=int(_read(path / "queue/logical_block_size") or 512),
    )
    kind = {"nvme": 0, "mmc": 3}.get(transport, 2 if _read(path / "queue/rotational") == "1" else 1)
    return (removable, kind, fact.size, len(name), name), fact


def _transport(name: str, real: str) -> str:
    if name.startswith("nvme"):
        return "nvme"
    for mark, transport in (("/usb", "usb"), ("/mmc", "mmc"), ("/virtio", "virtio"), ("/ata", "sata")):
        if mark in real:
            return transport
    if name.startswith("vd"):
        return "virtio"
    return "xen" if name.startswith("xvd") else "scsi"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
