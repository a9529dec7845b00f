"""What may be imported and what is refused, with the reason."""

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.images.source import open_source
from support.disks import MIB, convert, noise, sample_disk, write_disk


def test_holes_are_not_read(tmp_path: Path) -> None:
    source = open_source(write_disk(tmp_path / "d", 100 * MIB, [(50 * MIB, b"x" * 4096)]), None, 1)
    assert source.chunk_indexes() == [50]
    source.close()


@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vhdx", "vdi"])
def test_format_is_found_and_read(tmp_path: Path, image_format: str) -> None:
    raw = write_disk(tmp_path / "d", 64 * MIB, [(5 * MIB - 10, noise(4096, 1)), (63 * MIB, noise(MIB, 2))])
    source = open_source(convert(raw, image_format), None, 2)
    try:
        assert (source.format, source.size) == (image_format, 64 * MIB)
        assert {4, 5, 63} <= set(source.chunk_indexes()) <= set(range(64))
        buffer = bytearray(MIB)
        source.read_into(4 * MIB + 512, memoryview(buffer))
        assert buffer == raw.read_bytes()[4 * MIB + 512 : 5 * MIB + 512]
    finally:
        source.close()


@pytest.mark.parametrize("options", [("-c",), ("-o", "cluster_size=512")])
def test_compressed_and_odd_qcow2(tmp_path: Path, options: tuple[str, ...]) -> None:
    raw = sample_disk(tmp_path / "d")
    source = open_source(convert(raw, "qcow2", *options), None, 1)
    try:
        disk = bytearray(source.size)
        for index in source.chunk_indexes():
            view = memoryview(disk)[index * MIB : (index + 1) * MIB]
            source.read_into(index * MIB, view)
        assert disk == raw.read_bytes()
    finally:
        source.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "d is empty."),
        (b"x" * 1000, "The 1000 bytes of .*d are not a whole number of sectors"),
        (gzip.compress(bytes(4096)), "is a gzip file: decompress it first"),
        (b"\xfd7zXZ\0" + bytes(506), "is a xz file"),
    ],
)
def test_files_that_are_no_disks(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "d"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=reason):
        open_source(path, None, 1)


def test_no_file_no_disk(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="No such file"):
        open_source(tmp_path / "none", None, 1)
    with pytest.raises(OperatorError, match="is not a file or a block device"):
        open_source(tmp_path, None, 1)
    with pytest.raises(OperatorError, match="format dmg cannot be imported"):
        open_source(write_disk(tmp_path / "d", MIB), "dmg", 1)


def test_a_raw_disk_that_looks_like_something_else(tmp_path: Path) -> None:
    """A guest can write a qcow2 header with a backing file of its choice to its raw disk's first sector."""
    secret = write_disk(tmp_path / "secret", MIB, [(0, b"secret" * 100)])
    trap = tmp_path / "trap"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", trap], check=True)
    with pytest.raises(OperatorError, match=r"refers to another file.*--format raw"):
        open_source(trap, None, 1)
    os.truncate(trap, MIB)
    plain = open_source(trap, "raw", 1)
    assert plain.format == "raw" and plain.size == trap.stat().st_size
    plain.close()
    meant = open_source(trap, "qcow2", 1)
    buffer = bytearray(600)
    meant.read_into(0, memoryview(buffer))
    assert buffer == b"secret" * 100
    meant.close()


def test_vmdk_extents_elsewhere_must_be_meant(tmp_path: Path) -> None:
    raw = write_disk(tmp_path / "d", 4 * MIB, [(MIB, b"x" * 512)])
    here = convert(raw, "vmdk", "-o", "subformat=monolithicFlat")
    source = open_source(here, None, 1)  # its extent lies beside it, as it should
    source.close()
    (tmp_path / "away").mkdir()
    moved = (tmp_path / "d-flat.vmdk").rename(tmp_path / "away/d-flat.vmdk")
    here.write_text(here.read_text().replace("d-flat.vmdk", str(moved)))
    with pytest.raises(OperatorError, match="refers to another file"):
        open_source(here, None, 1)


@pytest.mark.parametrize("left", [300, 3 * MIB])
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vhdx", "vdi", "vpc"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, image_format: str, left: int) -> None:
    """qemu reads the missing end of most of them as zeros, without a word."""
    path = convert(write_disk(tmp_path / "d", 64 * MIB, [(0, noise(8 * MIB, 1))]), image_format)
    os.truncate(path, left)
    with pytest.raises(OperatorError, match=str(path)) as caught:
        open_source(path, image_format, 1)
    text = str(caught.value)
    assert text.count(str(path)) == 1 and "qemu-" not in text and "Could not open" not in text, text
    assert text.endswith(".") and not text.endswith(".."), text


def test_a_write_during_the_import_is_noticed(tmp_path: Path) -> None:
    path = write_disk(tmp_path / "d", 4 * MIB, [(0, b"x" * 512)])
    source = open_source(path, "raw", 1)
    source.check_unchanged()
    os.utime(path, ns=(1, 1))
    with pytest.raises(OperatorError, match="was changed while it was being imported"):
        source.check_unchanged()
    os.truncate(path, MIB)
    with pytest.raises(OperatorError, match="became shorter"):
        source.read_into(2 * MIB, memoryview(bytearray(512)))
    source.close()


def test_qemu_nbd_ends_with_the_source(tmp_path: Path) -> None:
    source = open_source(convert(write_disk(tmp_path / "d", 4 * MIB), "qcow2"), None, 2)
    process = source._disk._process  # type: ignore[attr-defined]
    assert process.poll() is None
    source.close()
    assert process.poll() == 0
