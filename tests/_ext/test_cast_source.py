"""CastSource: frames where they lie, and what happens to packs meanwhile."""

import errno
import os
from pathlib import Path

import pytest

from pxed._ext.cast_source import CastSource

FRAMES = [os.urandom(size) for size in (1, 4096, 70_000, 1_048_576, 5)]


def packs(tmp_path: Path) -> list[int]:
    """Two packs, with something else before and between the frames: descriptors."""
    for name, frames in (("one", FRAMES[:2]), ("two", FRAMES[2:])):
        (tmp_path / name).write_bytes(b"".join(b"before" + frame for frame in frames))
    return [os.open(tmp_path / name, os.O_RDONLY) for name in ("one", "two")]


def filled(tmp_path: Path) -> CastSource:
    source, (one, two) = CastSource(), packs(tmp_path)
    at = {one: 0, two: 0}
    for frame, pack in zip(FRAMES, (one, one, two, two, two), strict=True):
        source.add(pack, at[pack] + 6, len(frame))
        at[pack] += 6 + len(frame)
    os.close(one)
    os.close(two)
    return source


def test_frames_are_what_lies_there_also_when_the_packs_are_gone(tmp_path: Path) -> None:
    source = filled(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).unlink()
    assert [source.frame(ordinal) for ordinal in range(len(source))] == FRAMES
    assert source.size == sum(map(len, FRAMES))
    with pytest.raises(IndexError):
        source.frame(5)


def test_a_pack_that_is_cut_off_costs_its_frames(tmp_path: Path) -> None:
    source = filled(tmp_path)
    os.truncate(tmp_path / "two", 100)
    assert source.frame(1) == FRAMES[1]
    with pytest.raises(OSError, match="No data") as error:
        source.frame(3)
    assert error.value.errno == errno.ENODATA


def test_frames_that_are_not_there_are_refused(tmp_path: Path) -> None:
    source, (one, two) = CastSource(), packs(tmp_path)
    for offset, length in ((0, 1 << 20), (5000, 1), (1 << 60, 1)):
        with pytest.raises(OSError, match="No data"):
            source.add(one, offset, length)
    with pytest.raises(ValueError, match="length"):
        source.add(one, 0, 0)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid"):
        source.add(directory, 0, 1)
    os.close(directory)
    assert len(source) == 0
    os.close(one)
    os.close(two)


def test_sources_leave_nothing_behind(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    mappings = Path("/proc/self/maps").read_text().count(str(tmp_path))
    for _ in range(20):
        filled(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == mappings == 0
