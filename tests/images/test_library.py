"""The library: a disk that goes in comes out again, names and ids, damage, and several at once."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed.errors import NotFoundError, OperatorError, RefusedError
from pxed.images import store as store_module
from pxed.images.chunk import Decompressor
from pxed.images.library import Library
from pxed.images.manifest import parse_layout
from support.disks import MIB, convert, noise, sample_disk, write_disk


def restore(library: Library, image_id: str) -> bytes:
    """What an agent does: manifest, layout and data become the disk."""
    manifest = library.manifest(image_id)
    layout = parse_layout(library.layout(image_id), manifest)
    data = library.open_data(image_id)
    decompressor, disk, start = Decompressor(), bytearray(manifest.size), 0
    for ordinal, index in enumerate(manifest.indexes()):
        stop = start + layout[ordinal]
        frame = b"".join(os.pread(fd, length, offset) for fd, offset, length in data.segments(start, stop))
        raw = decompressor.decompress(frame, manifest.chunk_length(index), manifest.digest(ordinal))
        disk[index * MIB : index * MIB + len(raw)] = raw
        start = stop
    assert start == data.size == library.data_size(image_id)
    data.close()
    return bytes(disk)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "store") as library:
        yield library


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vmdk", "vhdx", "vdi"])
def test_round_trip_and_one_id_in_every_format(tmp_path: Path, library: Library, image_format: str) -> None:
    raw = sample_disk(tmp_path / "disk")
    wanted = library.import_image(raw, "raw")
    other = raw if image_format == "raw" else convert(raw, image_format)
    got = library.import_image(other, "other", image_format=image_format)
    assert got.image.id == wanted.image.id
    assert (got.new_chunks, got.written) == (0, 0)
    assert restore(library, got.image.id) == raw.read_bytes()
    library.export("other", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == raw.read_bytes()
    assert (tmp_path / "out").stat().st_blocks * 512 < 16 * MIB  # sparse


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sparse_disk_comes_out_as_it_went_in(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    base = tmp_path_factory.mktemp("disk")
    with Library(base / "store") as library:  # hypothesis may leave in the middle
        for number in range(data.draw(st.integers(1, 2))):  # the second disk shares chunks with the first
            size = data.draw(st.integers(1, 6 * 2048)) * 512
            filler = st.sampled_from(
                [b"\xff" * 100_000, b"text " * 50_000, noise(5000, 1), noise(2 * MIB, 2), bytes(MIB)]
            )
            areas = data.draw(st.lists(st.tuples(st.integers(0, size), filler), max_size=5))
            raw = write_disk(base / f"disk{number}", size, areas)
            done = library.import_image(raw, f"disk{number}", image_format="raw")
            assert done.image.size == size
            assert restore(library, done.image.id) == raw.read_bytes()
            library.export(done.image.id, base / f"out{number}")
            assert (base / f"out{number}").read_bytes() == raw.read_bytes()
        assert library.verify().bad == ()


@pytest.mark.parametrize("size", [512, MIB - 512, MIB, MIB + 512])
@pytest.mark.parametrize("full", [False, True])
def test_small_disks(tmp_path: Path, library: Library, size: int, full: bool) -> None:
    raw = write_disk(tmp_path / "disk", size, [(0, noise(size, 1))] if full else [])
    done = library.import_image(raw, "small")
    assert restore(library, done.image.id) == raw.read_bytes()
    assert done.image.data_size == (done.written if full else 0)


def test_progress_reaches_the_end_once(tmp_path: Path, library: Library) -> None:
    calls: list[tuple[int, int, int]] = []
    for areas in ([(0, b"x"), (20 * MIB - 1, b"x")], [(0, b"x")], []):
        calls.clear()
        raw = write_disk(tmp_path / "disk", 20 * MIB, areas)
        library.import_image(raw, "p", lambda *figures: calls.append(figures), replace=True)
        assert [done for done, _, _ in calls] == sorted({done for done, _, _ in calls})
        assert calls[-1][:2] == (20 * MIB, 20 * MIB)
        library.export("p", tmp_path / "out", lambda *figures: calls.append(figures), replace=True)
        assert calls[-1][:2] == (20 * MIB, 20 * MIB)


def test_chunks_are_shared_within_and_between_images(tmp_path: Path, library: Library) -> None:
    first = library.import_image(sample_disk(tmp_path / "a"), "a")
    assert (first.image.stored_chunks, first.new_chunks) == (9, 7)  # three chunks of 0xff are one
    raw = sample_disk(tmp_path / "b")
    with raw.open("r+b") as file:
        file.write(b"changed")
    second = library.import_image(raw, "b")
    assert second.new_chunks == 1
    assert restore(library, second.image.id) == raw.read_bytes()


def test_names_and_ids(tmp_path: Path, library: Library) -> None:
    one = library.import_image(sample_disk(tmp_path / "a", seed=1), "win-lab").image
    two = library.import_image(sample_disk(tmp_path / "b", seed=9), "debian").image
    assert [image.name for image in library.list()] == ["debian", "win-lab"]
    assert library.get("debian") == library.get(two.id) == library.get(two.id[:8]) == two
    with pytest.raises(NotFoundError, match="There is no image win-lob; did you mean win-lab"):
        library.get("win-lob")
    with pytest.raises(NotFoundError, match=r"^There is no image zzz\.$"):
        library.get("zzz")
    assert library.has(one.id) and not library.has(one.id[:8])
    for key in ("", "zzz", one.id[:3], "%", "f" * 64):
        with pytest.raises(NotFoundError):
            library.get(key)
    with pytest.raises(NotFoundError):
        library.manifest_bytes("f" * 64)


def test_a_layout_is_read_once_for_all_machines_and_anew_for_an_image_that_was_imported_again(
    tmp_path: Path, library: Library
) -> None:
    disk = write_disk(tmp_path / "disk", 2 * MIB, [(0, bytes(range(256)) * 4096), (MIB, b"text" * (MIB // 4))])
    image = library.import_image(disk, "a", level=1).image
    first = library.layout(image.id)
    assert library.layout(image.id) is first
    library.remove("a")
    with pytest.raises(NotFoundError):
        library.layout(image.id)
    assert library.import_image(disk, "a", level=19).image.id == image.id
    assert library.layout(image.id) is not first
    assert restore(library, image.id) == disk.read_bytes()


def test_an_ambiguous_beginning_is_refused(tmp_path: Path, library: Library) -> None:
    library.import_image(sample_disk(tmp_path / "a"), "a")
    library.import_image(sample_disk(tmp_path / "b", seed=9), "b")
    with library.store.transaction() as db:
        db.execute("UPDATE image SET id = 'abcdef' || substr(id, 7)")
    with pytest.raises(RefusedError, match="2 images begin with abcdef"):
        library.get("abcdef")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "ü", "x" * 129, "a" * 64, ".hidden"])
def test_names_that_are_none(tmp_path: Path, library: Library, name: str) -> None:
    with pytest.raises(RefusedError, match="not a name for an image"):
        library.import_image(sample_disk(tmp_path / "a"), name)


def test_a_name_in_use_is_refused_unless_it_is_replaced(tmp_path: Path, library: Library) -> None:
    old = library.import_image(sample_disk(tmp_path / "a"), "lab").image
    with pytest.raises(RefusedError, match="There is an image lab already"):
        library.import_image(sample_disk(tmp_path / "b", seed=9), "lab")
    new = library.import_image(sample_disk(tmp_path / "b", seed=9), "lab", replace=True)
    assert new.replaced == old.id and library.get("lab").id == new.image.id
    assert [(image.id, image.name) for image in library.list()] == [(new.image.id, "lab"), (old.id, "")]
    assert restore(library, old.id) == (tmp_path / "a").read_bytes()  # a job may still want it
    again = library.import_image(tmp_path / "b", "lab", replace=True)
    assert again.replaced == "" and again.image.id == new.image.id


def test_remove(tmp_path: Path, library: Library) -> None:
    raw = sample_disk(tmp_path / "a")
    image = library.import_image(raw, "a").image
    library.import_image(raw, "also-a")
    other = library.import_image(write_disk(tmp_path / "b", 4 * MIB, [(MIB, noise(4096, 9))]), "b").image
    first = library.remove("a")
    assert (first.names, first.freed) == (("also-a",), 0)
    assert restore(library, image.id) == raw.read_bytes()
    second = library.remove("also-a")
    assert second.names == () and second.freed is not None and second.freed > 2 * MIB
    assert [found.id for found in library.list()] == [other.id]
    assert restore(library, other.id) == (tmp_path / "b").read_bytes()
    third = library.remove(other.id)
    assert third.names == () and list((library.store.directory / "packs").iterdir()) == []
    assert list((library.store.directory / "manifests").iterdir()) == []
    with pytest.raises(NotFoundError):
        library.remove("b")


def test_removal_rewrites_packs_that_are_mostly_dead(tmp_path: Path, library: Library) -> None:
    write_disk(tmp_path / "big", 8 * MIB, [(0, noise(8 * MIB, 1))])
    write_disk(tmp_path / "small", 8 * MIB, [(4 * MIB, (tmp_path / "big").read_bytes()[4 * MIB :][: 2 * MIB])])
    library.import_image(tmp_path / "big", "big")
    small = library.import_image(tmp_path / "small", "small").image
    reading = library.open_data(small.id)
    (segment,) = reading.segments(0, reading.size)
    before = os.pread(segment[0], segment[2], segment[1])
    freed = library.remove("big").freed
    assert freed is not None and freed > 5 * MIB
    (pack,) = (library.store.directory / "packs").iterdir()
    assert pack.stat().st_size == small.data_size
    assert os.pread(segment[0], segment[2], segment[1]) == before  # whoever reads the old pack can go on
    reading.close()
    assert restore(library, small.id) == (tmp_path / "small").read_bytes()
    assert library.verify().bad == ()


def test_nothing_is_reclaimed_while_an_import_runs(tmp_path: Path, library: Library) -> None:
    raw = sample_disk(tmp_path / "a")
    library.import_image(raw, "a")
    with library.store.importing():
        assert library.remove("a").freed is None
        done = library.import_image(raw, "again")
    assert done.new_chunks == 0
    assert restore(library, done.image.id) == raw.read_bytes()


def test_several_packs(tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PACK_LIMIT", 3 * MIB)
    monkeypatch.setattr(store_module, "BATCH", MIB)
    raw = write_disk(tmp_path / "disk", 16 * MIB, [(0, noise(16 * MIB, 1))])
    image = library.import_image(raw, "disk").image
    assert len(list((library.store.directory / "packs").iterdir())) == 6
    assert restore(library, image.id) == raw.read_bytes()
    data = library.open_data(image.id)
    assert len(data.segments(0, data.size)) == 6
    data.close()


def test_a_fresh_import_is_one_run(tmp_path: Path, library: Library) -> None:
    raw = write_disk(tmp_path / "disk", 64 * MIB, [(k * MIB, noise(50_000, k)) for k in range(0, 64, 3)])
    image = library.import_image(raw, "disk").image
    data = library.open_data(image.id)
    assert len(data.segments(0, data.size)) == 1
    data.close()


def test_two_imports_at_once(tmp_path: Path, library: Library) -> None:
    """Each from its own process's view of the store; they share most chunks and both come out whole."""
    disks = [sample_disk(tmp_path / f"d{k}", mib=40) for k in range(4)]
    for k, disk in enumerate(disks):
        with disk.open("r+b") as file:
            file.seek(20 * MIB)
            file.write(noise(3 * MIB, 100 + k))
    failures: list[BaseException] = []

    def run(k: int) -> None:
        own = Library(tmp_path / "store")
        try:
            own.import_image(disks[k], f"d{k}")
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for k, disk in enumerate(disks):
        assert restore(library, library.get(f"d{k}").id) == disk.read_bytes()
    assert library.verify().bad == ()


def test_a_disk_that_is_cut_off_is_refused(tmp_path: Path, library: Library) -> None:
    disk = write_disk(tmp_path / "disk", 32 * MIB)
    subprocess.run(["sfdisk", "-q", disk], input="label: gpt\nsize=10M\n", text=True, check=True)
    os.truncate(disk, 20 * MIB)
    with pytest.raises(OperatorError, match="written for a disk of 33554432 bytes, the file has 20971520"):
        library.import_image(disk, "disk")
    os.truncate(disk, 32 * MIB)
    assert library.import_image(disk, "disk").image.partitions == 1


def test_a_sector_size_that_cannot_be(tmp_path: Path, library: Library) -> None:
    with pytest.raises(OperatorError, match="not a disk with sectors of 4096"):
        library.import_image(sample_disk(tmp_path / "a"), "a", sector=4096)
    image = library.import_image(write_disk(tmp_path / "b", MIB), "b", sector=4096).image
    assert image.sector == 4096


def test_a_store_of_another_version_is_refused(tmp_path: Path, library: Library) -> None:
    library.store._db.execute("PRAGMA user_version = 99")
    with pytest.raises(OperatorError, match="of version 99, this pxed knows 1"):
        Library(tmp_path / "store")


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be opened"):
        Library(tmp_path / "file")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/index.sqlite").write_text("no database " * 100)
    with pytest.raises(OperatorError, match="cannot be opened"):
        Library(tmp_path / "dir")


def test_export_does_not_write_over_a_file(tmp_path: Path, library: Library) -> None:
    library.import_image(sample_disk(tmp_path / "a"), "a")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RefusedError, match="exists already"):
        library.export("a", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(RefusedError, match="not a regular file"):
        library.export("a", tmp_path, replace=True)
    with pytest.raises(OperatorError, match="cannot be written"):
        library.export("a", tmp_path / "none/out")
