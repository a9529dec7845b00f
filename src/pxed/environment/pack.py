"""The finished root filesystem as `initramfs.cpio.zst`: equal inputs give equal bytes.

The root is one squashfs file inside a small initramfs. Measured under emulation: the kernel unpacks a few megabytes
instead of a hundred before it starts, and of the rest only what is used is ever decompressed.
"""

import os
from importlib.resources import files
from pathlib import Path

import zstandard

from pxed.environment.host import run
from pxed.environment.tree import Tree

__all__ = ["pack"]

# Measured: 37.3 MB with blocks of 256 KiB, 38.3 MB with 128 KiB, 39.8 MB with 64 KiB; what is read first (Python, its
# library) is there a tenth sooner with 128 than with 256 KiB, and no sooner with 64.
BLOCK_SIZE = "128K"
LEVEL = "15"  # 19 saves another hundredth of the size and takes two and a half times as long
OUTER_LEVEL = 9  # the squashfs inside does not shrink further; this is for busybox and two modules


def pack(tree: Tree, early_modules: list[str], work: Path, target: Path, epoch: int) -> None:
    """Write the initramfs for `tree` to `target`; `work` is scratch, `epoch` every file's time."""
    stage = work / "stage"
    for directory in ("bin", "dev", "modules", "proc", "root", "sys"):
        (stage / directory).mkdir(parents=True)
    _script(stage / "init")
    busybox = stage / "bin/busybox"
    busybox.write_bytes((tree.root / "usr/bin/busybox").read_bytes())
    busybox.chmod(0o755)
    for applet in ("cat", "insmod", "mount", "reboot", "sh", "sleep", "switch_root"):
        (stage / "bin" / applet).symlink_to("busybox")
    names = []
    for module in early_modules:
        path = tree.modules / module
        (stage / "modules" / path.name).write_bytes(path.read_bytes())
        names.append(f"/modules/{path.name}\n")
    (stage / "modules/order").write_text("".join(names))
    _set_times(tree.root, epoch)
    squash(tree.root, stage / "root.squashfs", epoch)
    _set_times(stage, epoch)
    archive = run(
        [
            "cpio",
            "--quiet",
            "--null",
            "--create",
            "--format=newc",
            "--reproducible",
            "--owner=+0:+0",
            "--directory",
            str(stage),
        ],
        input=b"\0".join(sorted(os.fsencode(path.relative_to(stage)) for path in stage.rglob("*"))),
    )
    target.write_bytes(zstandard.ZstdCompressor(level=OUTER_LEVEL, write_checksum=True).compress(archive))


def squash(root: Path, target: Path, epoch: int) -> None:
    """A directory as squashfs, owned by root, every time being `epoch`."""
    options = ["-quiet", "-no-progress", "-all-root", "-no-xattrs", "-noappend", "-no-exports", "-b", BLOCK_SIZE]
    compress = ["-comp", "zstd", "-Xcompression-level", LEVEL]
    run(["mksquashfs", str(root), str(target), *options, *compress], env={"SOURCE_DATE_EPOCH": str(epoch)})


def _script(target: Path) -> None:
    target.write_bytes(files("pxed.environment").joinpath("data", "init").read_bytes())
    target.chmod(0o755)


def _set_times(root: Path, epoch: int) -> None:
    for path in [*root.rglob("*"), root]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
