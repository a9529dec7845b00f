"""Disk files for tests: sparse, with known bytes in known places; and other formats made of them by qemu-img."""

import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

MIB = 1 << 20


def write_disk(path: Path, size: int, areas: Iterable[tuple[int, bytes]] = ()) -> Path:
    """A sparse raw file of `size` bytes with `areas` (offset, bytes) written; what sticks out is cut off."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in areas:
            file.seek(offset)
            file.write(data[: max(0, size - offset)])
    return path


def noise(length: int, seed: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(length)


def sample_disk(path: Path, mib: int = 24, seed: int = 1) -> Path:
    """A disk with noise, text, holes, a chunk that repeats and a short last chunk."""
    areas = [
        (0, noise(4096, seed)),
        (3 * MIB + 512, noise(2 * MIB, seed + 1)),
        (8 * MIB, b"the same again " * 5000),
        (10 * MIB, b"\xff" * (3 * MIB)),
        (mib * MIB, noise(1024, seed + 2)),
    ]
    return write_disk(path, mib * MIB + 1024, areas)


def convert(raw: Path, image_format: str, *options: str) -> Path:
    """The same disk as a file of another format, beside the raw one."""
    path = raw.with_suffix(f".{image_format}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, path], check=True)
    return path
