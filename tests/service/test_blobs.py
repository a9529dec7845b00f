"""The cache of files: read once, kept while they are the same, thrown out oldest first."""

import asyncio
import errno
import os
import time
import weakref
from pathlib import Path

import pytest

from pxed._ext.blob import Blob
from pxed.service import blobs
from pxed.service.blobs import BlobCache


class Files:
    """Files of a directory, opened for the cache as the service opens them."""

    def __init__(self, root: Path, cache: BlobCache) -> None:
        self.root, self.cache = root, cache

    def write(self, name: str, data: bytes, *, age: float = 3600) -> None:
        (self.root / name).write_bytes(data)
        self.touch(name, age)

    def touch(self, name: str, age: float) -> None:
        os.utime(self.root / name, (time.time() - age, time.time() - age))

    async def load(self, name: str, *, netascii: bool = False) -> Blob:
        with (self.root / name).open("rb") as file:
            return await self.cache.load(file.fileno(), netascii=netascii)


async def until_gone(blob: weakref.ref[Blob]) -> None:
    """The event loop and the thread that read it let go of a blob in their own time."""
    async with asyncio.timeout(60):
        while blob() is not None:
            await asyncio.sleep(0.001)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    # Later by an hour, so that the files that a test writes are not of this very moment.
    return Files(tmp_path, BlobCache(1000, lambda: time.time_ns() + 3600 * 10**9))


def test_the_same_file_is_the_same_blob(files: Files) -> None:
    async def go() -> None:
        files.write("a", b"text\n")
        first = await files.load("a")
        assert await files.load("a") is first
        converted = await files.load("a", netascii=True)
        assert bytes(converted) == b"text\r\n"  # type: ignore[call-overload]
        assert files.cache.statistics() == {"cached": 2, "cached_bytes": 11, "loading": 0}

    asyncio.run(go())


def test_requests_at_the_same_time_share_one_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    copy = blobs._copy

    def counted(fd: int, *, netascii: bool) -> Blob:
        reads.append(fd)
        return copy(fd, netascii=netascii)

    monkeypatch.setattr(blobs, "_copy", counted)

    async def go() -> None:
        files.write("a", b"x")
        found = await asyncio.gather(*(files.load("a") for _ in range(50)))
        assert len(set(map(id, found))) == 1
        assert len(reads) == 1

    asyncio.run(go())


def test_who_goes_away_does_not_take_the_read_along(files: Files) -> None:
    async def go() -> None:
        files.write("a", b"x")
        first, second = asyncio.create_task(files.load("a")), asyncio.create_task(files.load("a"))
        await asyncio.sleep(0)
        first.cancel()
        assert bytes(await second) == b"x"  # type: ignore[call-overload]
        assert files.cache.statistics()["loading"] == 0

    asyncio.run(go())


@pytest.mark.parametrize("change", ["content", "replacement"])
def test_a_changed_file_is_read_again(files: Files, change: str) -> None:
    async def go() -> None:
        files.write("a", b"old")
        await files.load("a")
        if change == "content":
            files.write("a", b"new", age=1800)
        else:
            files.write("b", b"new")
            (files.root / "b").replace(files.root / "a")
        assert bytes(await files.load("a")) == b"new"  # type: ignore[call-overload]

    asyncio.run(go())


@pytest.mark.parametrize("inode", ["same", "new"])
def test_a_changed_file_with_the_old_time_and_size_is_read_again(files: Files, inode: str) -> None:
    """rsync and tar set times back, and a new file may get a deleted one's inode number."""

    async def go() -> None:
        path = files.root / "a"
        files.write("a", b"old")
        status = path.stat()
        assert bytes(await files.load("a")) == b"old"  # type: ignore[call-overload]
        while path.stat().st_ctime_ns == status.st_ctime_ns:  # until the file system's clock has ticked
            if inode == "new":
                path.unlink()
            path.write_bytes(b"new")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert bytes(await files.load("a")) == b"new"  # type: ignore[call-overload]

    asyncio.run(go())


def test_a_file_that_changes_while_it_is_read_is_not_kept(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if size and time of modification are as before."""
    copy = blobs._copy
    path = files.root / "a"

    def changed_meanwhile(fd: int, *, netascii: bool) -> Blob:
        blob = copy(fd, netascii=netascii)
        status = path.stat()
        while path.stat().st_ctime_ns == status.st_ctime_ns:
            path.write_bytes(b"new")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return blob

    monkeypatch.setattr(blobs, "_copy", changed_meanwhile)

    async def go() -> None:
        files.write("a", b"old")
        await files.load("a")
        assert files.cache.statistics()["cached"] == 0

    asyncio.run(go())


@pytest.mark.parametrize(("age", "later", "kept"), [(0, 0, 0), (3600, 0, 0), (0, 60, 1), (-60, 60, 0), (-3600, 60, 1)])
def test_a_file_of_this_very_moment_is_not_kept(files: Files, age: float, later: int, kept: int) -> None:
    """It may be written again within the same tick of the file system's clock. `later`: from its change to its reading,
    s."""
    files.cache = BlobCache(1000, lambda: time.time_ns() + later * 10**9)

    async def go() -> None:
        files.write("a", b"x", age=age)
        await files.load("a")
        assert files.cache.statistics()["cached"] == kept

    asyncio.run(go())


def test_least_recently_used_goes_first(files: Files) -> None:
    async def go() -> None:
        for name in "abc":
            files.write(name, b"x" * 400)
        first = await files.load("a")
        second = weakref.ref(await files.load("b"))
        assert await files.load("a") is first
        await files.load("c")  # one has to go: b
        assert files.cache.statistics()["cached_bytes"] == 800
        assert await files.load("a") is first
        await until_gone(second)

    asyncio.run(go())


def test_larger_than_the_cache_is_not_copied(files: Files) -> None:
    """Transfers read it as they go; there is nothing to look into."""

    async def go() -> None:
        files.write("a", b"x" * 1001)
        blob = await files.load("a")
        assert len(blob) == 1001
        with pytest.raises(BufferError):
            bytes(blob)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="converted"):
            blob.netascii()
        assert files.cache.statistics()["cached"] == 0

    asyncio.run(go())


def test_what_is_in_use_is_found_again_however_large(files: Files) -> None:
    """Clients of a large file at the same time share one descriptor; it goes with the last of them."""

    async def go() -> None:
        files.write("a", b"x" * 1001)
        blob = await files.load("a")
        assert await files.load("a") is blob
        gone = weakref.ref(blob)
        del blob
        await until_gone(gone)

    asyncio.run(go())


def test_thrown_out_while_in_use_comes_back_without_a_read(files: Files) -> None:
    async def go() -> None:
        for name in "ab":
            files.write(name, b"x" * 600)
        first = await files.load("a")
        await files.load("b")  # a goes
        assert await files.load("a") is first
        assert files.cache.statistics()["cached_bytes"] == 600

    asyncio.run(go())


def test_too_large_to_be_converted_is_told(files: Files) -> None:
    async def go() -> None:
        with (files.root / "a").open("wb") as file:
            file.truncate(blobs.LARGEST_TEXT + 1)
        with pytest.raises(OSError, match="octet") as caught:
            await files.load("a", netascii=True)
        assert caught.value.errno == errno.EFBIG
        assert files.cache.statistics()["loading"] == 0

    asyncio.run(go())
