"""Damage in the store is found, named, never handed out as a disk, and mended by the next import."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.images.library import Library
from support.disks import MIB, sample_disk


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return sample_disk(tmp_path / "disk")


@pytest.fixture
def library(tmp_path: Path, disk: Path) -> Iterator[Library]:
    with Library(tmp_path / "store") as library:
        library.import_image(disk, "image")
        yield library


def spoil(library: Library, position: int) -> None:
    (pack,) = (library.store.directory / "packs").iterdir()
    with pack.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0xFF]))


def test_a_spoiled_byte_names_its_chunk_and_the_next_import_mends_it(
    tmp_path: Path, library: Library, disk: Path
) -> None:
    image = library.get("image")
    places = library.store.places(1)
    before = library.open_data(image.id)  # also the cached places must be given up after the repair
    before.close()
    spoil(library, places[2].offset + places[2].stored // 2)
    found = library.verify("image")
    (bad,) = found.bad
    (chunk,) = bad.chunks
    assert (bad.id, bad.name, chunk.index, chunk.offset) == (image.id, "image", 4, 4 * MIB)
    assert chunk.digest == places[2].digest.hex() and chunk.digest in chunk.reason
    with pytest.raises(OperatorError, match="Chunk 4 of the disk is damaged in the store, nothing was exported"):
        library.export("image", tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out*"))) == 0
    mended = library.import_image(disk, "image", replace=True)
    assert (mended.new_chunks, mended.image.id) == (1, image.id)
    assert library.verify().bad == ()
    library.export("image", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == disk.read_bytes()
    assert library.data_size(image.id) == library.get("image").data_size


def test_a_chunk_that_repeats_is_named_everywhere(library: Library) -> None:
    repeated = library.store.places(1)[-2]
    spoil(library, repeated.offset + 4)
    (bad,) = library.verify().bad
    assert [chunk.index for chunk in bad.chunks] == [10, 11, 12]


def test_damage_that_goes_away_is_forgotten(library: Library) -> None:
    """A disk that reads badly once: the mark must not stay."""
    offset = library.store.places(1)[0].offset
    spoil(library, offset)
    assert library.verify().bad
    spoil(library, offset)
    assert library.verify().bad == ()
    assert all(not place.bad for place in library.store.places(1))


def test_a_pack_that_was_cut_off(library: Library, disk: Path, tmp_path: Path) -> None:
    (pack,) = (library.store.directory / "packs").iterdir()
    os.truncate(pack, library.store.places(1)[4].offset + 3)
    (bad,) = library.verify().bad
    assert {chunk.index for chunk in bad.chunks} >= {10, 11, 12}
    # The next import must not append to a pack that is shorter than the index says.
    library.import_image(disk, "image", replace=True)
    assert library.verify().bad == ()


def test_a_pack_that_is_gone(library: Library, disk: Path) -> None:
    (pack,) = (library.store.directory / "packs").iterdir()
    pack.unlink()
    (bad,) = library.verify().bad
    assert len(bad.chunks) == 9
    data = library.open_data(library.get("image").id)
    with pytest.raises(OperatorError, match="the image store is damaged"):
        data.segments(0, 10)
    library.import_image(disk, "image", replace=True)
    assert library.verify().bad == ()


def test_a_manifest_that_is_damaged_or_gone(library: Library, disk: Path) -> None:
    image = library.get("image")
    path = library.store.manifest_path(image.id)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (bad,) = library.verify().bad
    assert "not that of image" in bad.reason and bad.chunks == ()
    path.unlink()
    (bad,) = library.verify().bad
    assert "the image store is damaged" in bad.reason
    library.import_image(disk, "image", replace=True)
    assert library.verify().bad == ()
