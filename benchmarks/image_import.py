"""How fast an image is imported, beside `zstd -T0` plus hashing of the same data, which do less (no store, no sync).

    .venv/bin/python benchmarks/image_import.py [MIB] [DIRECTORY]

The disk is an ext4 file system filled with this host's /usr (what a system image is made of), sparse elsewhere. Every
figure is the best of three, in bytes of used disk per second, with the disk in the page cache; the store is on
DIRECTORY's disk, whose speed is part of the first figure. Read the ratio: two cores of a busy machine say little else.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from pxed.images.library import Library
from pxed.images.manifest import Manifest

MIB = 1 << 20


def make_disk(path: Path, mib: int) -> None:
    """A file system of `mib` MiB, two thirds full of files from /usr."""
    tree = path.with_suffix(".tree")
    budget = mib * MIB * 2 // 3
    for source in sorted(Path("/usr/lib").rglob("*")):
        if budget > 0 and source.is_file() and not source.is_symlink():
            target = tree / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            budget -= target.stat().st_size
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path], check=True)
    subprocess.run(["rm", "-r", tree], check=True)


def best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of three runs."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main(mib: int, where: str | None) -> None:
    """Make the disk, run both, print the table."""
    with tempfile.TemporaryDirectory(dir=where, prefix="pxed-bench-") as name:
        base = Path(name)
        disk = base / "disk"
        make_disk(disk, mib)
        count = 0

        def import_fresh() -> Manifest:
            nonlocal count
            count += 1
            with Library(base / f"store{count}") as library:
                done = library.import_image(disk, "disk", image_format="raw")
                return library.manifest(done.image.id)

        manifest = import_fresh()
        used = base / "used"  # only what is stored, so that both work on the same bytes
        with disk.open("rb") as source, used.open("wb") as target:
            for index in manifest.indexes():
                source.seek(index * MIB)
                target.write(source.read(MIB))
        size = used.stat().st_size

        def again() -> None:
            with Library(base / "store1") as library:
                library.import_image(disk, "disk", image_format="raw", replace=True)

        def verify() -> None:
            with Library(base / "store1") as library:
                assert library.verify().bad == ()

        def zstd() -> None:
            subprocess.run(["zstd", "-q", "-f", "-T0", "-3", used, "-o", base / "used.zst"], check=True)

        def hash_all() -> None:
            blake3(max_threads=blake3.AUTO).update_mmap(used).digest()

        rows = {
            "pxed import": best(import_fresh),
            "pxed import, all chunks known": best(again),
            "pxed verify": best(verify),
            "zstd -T0 -3": best(zstd),
            "blake3": best(hash_all),
        }
        rows["zstd + blake3"] = rows["zstd -T0 -3"] + rows["blake3"]
        print(f"{size / MIB:.0f} MiB used of {mib} MiB")
        for label, seconds in rows.items():
            print(f"{label:<32}{seconds:8.2f} s {size / seconds / 1e6:8.0f} MB/s")
        print(f"pxed import / (zstd + blake3): {rows['zstd + blake3'] / rows['pxed import']:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024, sys.argv[2] if len(sys.argv) > 2 else None)
