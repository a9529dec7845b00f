"""The UEFI boot entry of the new system.

What boots next: `BootNext` names the new system, once, so that the next start is its own whatever the order says.
What boots later: a machine whose firmware tried the network first goes on doing so (a site that rolls out again and
again relies on it; without work pxed lets the machine go on to its disk), with the new system right behind the entry
that it was booted from. Otherwise the network was chosen by hand or as the last resort, and the new system comes first.
Entries for the same partition, of an earlier installation, are removed; all others stay as they are.

Firmware that refuses to store entries finds `\\EFI\\BOOT\\BOOTX64.EFI` by itself: where the image has none, its own
boot loader is copied there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from pxed.agent.host import Host, ToolError
from pxed.agent.target import Target
from pxed.images.manifest import Manifest, Partition

__all__ = ["BootOrder", "find_loader", "new_order", "parse_entries", "set_boot_entry"]

ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
FALLBACK = "EFI/BOOT/BOOTX64.EFI"
PARTITION_TRIES = 40  # times 0.25 s until the kernel shows the partition

# Loaders by preference, below EFI/; a directory's own name for any system is "*". shim comes before what it loads.
LOADERS = ("Microsoft/Boot/bootmgfw.efi", "*/shimx64.efi", "*/grubx64.efi", "systemd/systemd-bootx64.efi")


class BootOrder(Struct, frozen=True):
    """What `efibootmgr` prints: the boot order, the entry of this boot, and all entries by number."""

    current: str
    order: tuple[str, ...]
    entries: dict[str, str]


def set_boot_entry(host: Host, target: Target, manifest: Manifest, label: str) -> str:
    """Make firmware start the new system; returns a sentence about what was done. Never fails the job by itself."""
    if not host.uefi:
        return "BIOS starts the disk by its boot sector; no boot entry is needed."
    esp = next((part for part in manifest.table.partitions if part.type.lower() in ESP_TYPES), None)
    if esp is None:
        return "The image has no EFI system partition: firmware decides by itself what it starts."
    try:
        with _mounted(host, target, esp, "ro") as root:
            loader = find_loader(root)
    except (ToolError, OSError) as error:
        return f"The EFI system partition cannot be read ({error}); no boot entry was made."
    if loader is None:
        return "The EFI system partition holds no boot loader for x86-64; no boot entry was made."
    try:
        _write_entry(host, target, esp, label, loader)
        return f'UEFI starts {loader} next, as boot entry "{label}".'
    except ToolError as refusal:
        return f"Firmware refuses a boot entry ({refusal}). {_use_fallback(host, target, esp, loader)}"


def find_loader(root: Path) -> str | None:
    """The boot loader on a mounted EFI system partition, as a path with '/', the system's own before the fallback."""
    files = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
    by_lower = {name.lower(): name for name in files}
    for pattern in (*(f"efi/{loader.lower()}" for loader in LOADERS), FALLBACK.lower()):
        wanted = re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
        for name in sorted(by_lower):
            if wanted.fullmatch(name) and not (name.startswith("efi/boot/") and name != FALLBACK.lower()):
                return by_lower[name]
    return None


def parse_entries(text: str) -> BootOrder:
    """Read `efibootmgr -v`."""
    current = re.search(r"^BootCurrent: ([0-9A-Fa-f]{4})", text, re.M)
    order = re.search(r"^BootOrder: ([0-9A-Fa-f,]+)", text, re.M)
    entries = dict(re.findall(r"^Boot([0-9A-Fa-f]{4})\*? (.*)$", text, re.M))
    return BootOrder(
        current=current[1] if current else "",
        order=tuple(order[1].split(",")) if order else (),
        entries=entries,
    )


def new_order(before: BootOrder, entry: str) -> tuple[str, ...]:
    """The boot order with `entry` in its place (see above): behind a network entry that came first, else first."""
    rest = tuple(number for number in before.order if number != entry and number in before.entries)
    if rest and rest[0] == before.current:
        return rest[0], entry, *rest[1:]
    return entry, *rest


def _write_entry(host: Host, target: Target, esp: Partition, label: str, loader: str) -> None:
    before = parse_entries(host.run("efibootmgr", "-v"))
    for number, text in before.entries.items():
        if esp.uuid and esp.uuid.lower() in text.lower():
            host.run("efibootmgr", "-q", "-b", number, "-B")
    before = parse_entries(host.run("efibootmgr", "-v"))
    place = ["-d", str(target.path), "-p", str(esp.number)]
    after = parse_entries(
        host.run("efibootmgr", "-v", "-C", *place, "-L", label, "-l", "\\" + loader.replace("/", "\\"))
    )
    made = sorted(set(after.entries) - set(before.entries))
    if not made:
        raise ToolError("efibootmgr made no entry")
    host.run("efibootmgr", "-q", "-o", ",".join(new_order(before, made[0])))
    host.run("efibootmgr", "-q", "-n", made[0])


def _use_fallback(host: Host, target: Target, esp: Partition, loader: str) -> str:
    if loader.lower() == FALLBACK.lower():
        return f"It starts {FALLBACK} by itself."
    try:
        with _mounted(host, target, esp, "rw") as root:
            place = _existing(root, FALLBACK)
            if place.exists():
                return f"It starts {FALLBACK}, which the image has, by itself."
            place.parent.mkdir(parents=True, exist_ok=True)
            source = root / loader
            # shim loads GRUB, and its key manager, from its own directory.
            for companion in ("grubx64.efi", "mmx64.efi"):
                beside = _existing(source.parent, companion)
                if beside.exists() and source.name.lower().startswith("shim"):
                    (place.parent / companion).write_bytes(beside.read_bytes())
            place.write_bytes(source.read_bytes())
    except (ToolError, OSError) as error:
        return f"Its fallback path {FALLBACK} could not be written either ({error}): start the disk by hand once."
    return f"{loader} was copied to {FALLBACK}, which it starts by itself."


def _existing(root: Path, name: str) -> Path:
    """A path on FAT in whatever case its parts have there."""
    path = root
    for part in name.split("/"):
        found = [child for child in path.iterdir() if child.name.lower() == part.lower()] if path.is_dir() else []
        path = found[0] if found else path / part
    return path


@contextmanager
def _mounted(host: Host, target: Target, esp: Partition, mode: str) -> Iterator[Path]:
    device = _partition_device(host, target, esp)
    host.mount_point.mkdir(exist_ok=True)
    host.run("mount", "-t", "vfat", "-o", mode, str(device), str(host.mount_point))
    try:
        yield host.mount_point
    finally:
        host.run("umount", str(host.mount_point))


def _partition_device(host: Host, target: Target, esp: Partition) -> Path:
    name = target.path.name
    for _ in range(PARTITION_TRIES):
        for entry in (host.sys / "block" / name).glob(f"{name}*/partition"):
            if entry.read_text().strip() == str(esp.number):
                return host.dev / entry.parent.name
        host.sleep(0.25)
    raise ToolError(f"the kernel shows no partition {esp.number} on {name}")
