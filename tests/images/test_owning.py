"""Whose the store's files are, and what a removal does in a store that cannot be written."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.images import library as library_module
from pxed.images.library import Library
from pxed.images.owning import open_file
from support.disks import MIB, noise, sample_disk, write_disk

OTHER = 33  # Debian's www-data


@pytest.fixture
def narrow_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def status_of(store: Path) -> dict[str, tuple[int, int, int]]:
    """(owner, group, mode) of the store and everything in it."""
    found = {path: path.stat() for path in (store, *store.rglob("*"))}
    return {str(path.relative_to(store)): (s.st_uid, s.st_gid, s.st_mode & 0o7777) for path, s in found.items()}


@pytest.mark.usefixtures("narrow_umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    with Library(tmp_path / "a/store") as library:
        library.import_image(sample_disk(tmp_path / "disk"), "lab")
        for name, (uid, _, mode) in status_of(tmp_path / "a").items():
            assert uid == os.geteuid()
            assert mode == (0o755 if (tmp_path / "a" / name).is_dir() else 0o644), name


@pytest.mark.root
@pytest.mark.usefixtures("narrow_umask")
def test_what_root_writes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, OTHER, OTHER)
    write_disk(tmp_path / "big", 8 * MIB, [(0, noise(8 * MIB, 1))])
    write_disk(tmp_path / "small", 8 * MIB, [(4 * MIB, (tmp_path / "big").read_bytes()[4 * MIB :][: 2 * MIB])])
    with Library(state / "images") as library:
        library.import_image(tmp_path / "big", "big")
        library.import_image(tmp_path / "small", "small")
        before = status_of(state / "images")
        library.remove("big")  # rewrites the pack
        after = status_of(state / "images")
    assert {name: owner for name, owner in (before | after).items() if owner[:2] != (OTHER, OTHER)} == {}
    assert {"index.sqlite-wal", "index.sqlite-shm", "lock", "packs"} <= after.keys()
    assert len(before.keys() ^ after.keys()) >= 2
    assert {mode for _, _, mode in (before | after).values()} == {0o755, 0o644}


@pytest.mark.root
def test_give_takes_the_stores_files_and_nothing_else(tmp_path: Path) -> None:
    with Library(tmp_path / "store") as library:
        library.import_image(sample_disk(tmp_path / "disk"), "lab")
        (tmp_path / "store/notes").write_text("mine")
        library.give(OTHER, OTHER)
        owners = {name: owner[0] for name, owner in status_of(tmp_path / "store").items()}
    assert owners.pop("notes") == 0
    assert set(owners.values()) == {OTHER}


@pytest.mark.root
def test_root_follows_no_links_of_the_stores_owner(tmp_path: Path) -> None:
    store, victim = tmp_path / "store", tmp_path / "victim"
    store.mkdir()
    os.chown(store, OTHER, OTHER)
    victim.write_text("root's")
    (store / "soft").symlink_to(victim)
    (store / "hard").hardlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        open_file(store / "soft", os.O_RDWR, store)
    os.close(open_file(store / "hard", os.O_RDWR, store))
    assert victim.stat().st_uid == 0


def test_nothing_is_removed_from_a_store_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library(tmp_path / "store") as library:
        image = library.import_image(sample_disk(tmp_path / "disk"), "lab").image
        with monkeypatch.context() as patch:  # what another user than root is told
            patch.setattr(os, "access", lambda path, mode: path != tmp_path / "store/packs")
            with pytest.raises(OperatorError, match=r"The image store cannot be written: .*/store/packs"):
                library.remove("lab")
        assert library.get("lab") == image


def test_space_that_cannot_be_given_back_is_given_back_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_store: object) -> int:
        raise OperatorError("The pack cannot be removed.")

    with Library(tmp_path / "store") as library:
        library.import_image(sample_disk(tmp_path / "a"), "a")
        library.import_image(sample_disk(tmp_path / "b", seed=9), "b")
        with monkeypatch.context() as patch:
            patch.setattr(library_module, "reclaim", refuse)
            removed = library.remove("a")
        assert (removed.names, removed.freed, removed.trouble) == ((), None, "The pack cannot be removed.")
        assert [image.name for image in library.list()] == ["b"]
        library.remove("b")
        assert list((tmp_path / "store/packs").iterdir()) == []
