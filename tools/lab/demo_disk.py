"""A small bootable disk of our own, made without root and without loop devices.

GPT; BIOS boot partition, EFI system partition, ext4 root. GRUB boots it on BIOS and on UEFI; its init prints
`MARKER` with the disk's serial number on the serial console. Kernel: Debian's cloud kernel.
"""

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from lab.proc import run

MARKER = "own system booted"
SECTOR = 512
MIB = 1 << 20

_BIOS_BOOT = (2048, 4095)  # first, last sector
_ESP = (4096, 4096 + 33 * MIB // SECTOR - 1)
_ROOT_FIRST = _ESP[1] + 1
_GRUB_PREFIX = "/boot/grub"

_GRUB_CONFIG = """\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
linux /boot/vmlinuz console=ttyS0,115200 quiet panic=10
initrd /boot/initrd
boot
"""
# Embedded in both GRUBs: find the root file system by label, whatever the firmware calls the disk.
_GRUB_EARLY = """\
search --no-floppy --label --set=root pxed-root
configfile (${root})/boot/grub/grub.cfg
"""
_INITRAMFS_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for module in /modules/*.ko; do /bin/busybox insmod $module; done
tries=0
until /bin/busybox mount -t ext4 -o ro,noload $(/bin/busybox findfs LABEL=pxed-root) /root 2>/dev/null; do
  tries=$((tries + 1)); [ $tries -gt 50 ] && echo "no root file system" && /bin/busybox poweroff -f
  /bin/busybox sleep 0.1
done
exec /bin/busybox switch_root /root /sbin/init
"""
_ROOT_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
echo "MARKER: $(/bin/busybox cat /etc/pxed-demo)"
/bin/busybox sync
while true; do /bin/busybox sleep 3600; done
"""
# In the order in which they depend on one another.
_MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
)  # fmt: skip


def make(image: Path, *, size_mib: int = 512, payload_mib: int = 96, label: str = "first", cache: Path) -> None:
    """Write the disk image. `payload_mib` of incompressible data make the restore worth watching."""
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        work = Path(scratch)
        kernel = _kernel_package(cache)
        _fill_root(work / "root", kernel, payload_mib, label)
        sectors = size_mib * MIB // SECTOR
        root_last = sectors - 34 - 2048
        image.unlink(missing_ok=True)
        with image.open("wb") as disk:
            disk.truncate(size_mib * MIB)
        run([
            "sgdisk", "--clear", "--set-alignment=1",
            f"--new=1:{_BIOS_BOOT[0]}:{_BIOS_BOOT[1]}", "--typecode=1:ef02",
            f"--new=2:{_ESP[0]}:{_ESP[1]}", "--typecode=2:ef00", "--change-name=2:ESP",
            f"--new=3:{_ROOT_FIRST}:{root_last}", "--typecode=3:8300", "--change-name=3:root", image,
        ])  # fmt: skip
        _write_bios_grub(image, work)
        _write_esp(image, work)
        _write_root(image, work, root_last)


def _kernel_package(cache: Path) -> Path:
    """Debian's cloud kernel, unpacked; downloaded once."""
    unpacked = cache / "cloud-kernel"
    if not (unpacked / "boot").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        depends = run(["apt-cache", "depends", "linux-image-cloud-amd64"])
        name = next(line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line)
        subprocess.run(["apt-get", "download", "-q", name], cwd=cache, check=True, capture_output=True)
        package = next(cache.glob(f"{name}_*.deb"))
        shutil.rmtree(cache / "cloud-kernel.new", ignore_errors=True)
        run(["dpkg-deb", "-x", package, cache / "cloud-kernel.new"])
        (cache / "cloud-kernel.new").rename(unpacked)
        package.unlink()
    return unpacked


def _fill_root(root: Path, kernel: Path, payload_mib: int, label: str) -> None:
    for name in ("boot/grub", "bin", "sbin", "dev", "proc", "sys", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copyfile(next((kernel / "boot").glob("vmlinuz-*")), root / "boot/vmlinuz")
    (root / "boot/initrd").write_bytes(_initramfs(root.parent / "initramfs", kernel))
    (root / "boot/grub/grub.cfg").write_text(_GRUB_CONFIG)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "sbin/init").write_text(_ROOT_INIT.replace("MARKER", MARKER))
    (root / "sbin/init").chmod(0o755)
    (root / "etc/pxed-demo").write_text(label + "\n")
    with Path("/dev/urandom").open("rb") as random, (root / "payload").open("wb") as payload:
        for _ in range(payload_mib):
            payload.write(random.read(MIB))


def _initramfs(tree: Path, kernel: Path) -> bytes:
    for name in ("bin", "dev", "proc", "root", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    (tree / "init").write_text(_INITRAMFS_INIT)
    (tree / "init").chmod(0o755)
    for number, module in enumerate(_MODULES):
        source = next(kernel.rglob(f"{module}.ko"))
        shutil.copy(source, tree / f"modules/{number}-{module}.ko")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    return subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=names.encode(), capture_output=True, check=True
    ).stdout


def _write_bios_grub(image: Path, work: Path) -> None:
    """What grub-bios-setup does, on a file: boot.img into sector 0, core.img into the BIOS boot partition."""
    early, core = work / "early.cfg", work / "core.img"
    early.write_text(_GRUB_EARLY)
    run([
        "grub-mkimage", "-O", "i386-pc", "-o", core, "-p", _GRUB_PREFIX, "-c", early,
        "biosdisk", "part_gpt", "ext2", "search", "search_label", "normal", "configfile", "linux", "serial", "boot",
    ])  # fmt: skip
    boot_code = bytearray(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
    struct.pack_into("<Q", boot_code, 0x5C, _BIOS_BOOT[0])  # where boot.img finds core.img
    core_code = bytearray(core.read_bytes())
    struct.pack_into("<Q", core_code, SECTOR - 12, _BIOS_BOOT[0] + 1)  # where its first sector finds the rest
    assert len(core_code) <= (_BIOS_BOOT[1] - _BIOS_BOOT[0] + 1) * SECTOR
    with image.open("r+b") as disk:
        disk.write(boot_code)
        disk.seek(_BIOS_BOOT[0] * SECTOR)
        disk.write(core_code)


def _write_esp(image: Path, work: Path) -> None:
    esp, loader, early = work / "esp.fat", work / "BOOTX64.EFI", work / "early.cfg"
    run([
        "grub-mkimage", "-O", "x86_64-efi", "-o", loader, "-p", _GRUB_PREFIX, "-c", early,
        "part_gpt", "ext2", "search", "search_label", "normal", "configfile", "linux", "serial", "boot", "fat",
    ])  # fmt: skip
    with esp.open("wb") as file:
        file.truncate((_ESP[1] - _ESP[0] + 1) * SECTOR)
    run(["mkfs.vfat", "-n", "ESP", "-F", "32", "-s", "1", esp])
    run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT"])
    run(["mcopy", "-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI"])
    _place(image, esp, _ESP[0])


def _write_root(image: Path, work: Path, last: int) -> None:
    root = work / "root.ext4"
    with root.open("wb") as file:
        file.truncate((last - _ROOT_FIRST + 1) * SECTOR)
    # mke2fs takes owner and mode from the tree; we are root or we do not care
    run(["mke2fs", "-q", "-t", "ext4", "-L", "pxed-root", "-d", work / "root", root])
    _place(image, root, _ROOT_FIRST)


def _place(image: Path, part: Path, first: int) -> None:
    run(
        [
            "dd",
            f"if={part}",
            f"of={image}",
            "bs=1M",
            f"seek={first * SECTOR}",
            "oflag=seek_bytes",
            "conv=notrunc,sparse",
        ]
    )
