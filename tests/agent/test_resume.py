"""What an interrupted restore leaves behind, and what the next one believes of it."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed.agent import resume
from pxed.agent.board import Board, State
from pxed.agent.resume import RECORD_BEGIN, RECORD_END, SLOT, Record
from pxed.agent.session import run
from pxed.agent.target import Target
from support.agent_machine import FakeMachine
from support.image_server import Answer, Handler, ImageServer, StoredImage, store

from .conftest import disk_bytes

CHUNK = 1 << 20
IMAGE, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    path = tmp_path / "disk"
    path.write_bytes(bytes(2 * CHUNK))
    target = Target(path)
    yield target
    target.close()


def board_of(count: int, done: set[int]) -> Board:
    board = Board(count)
    for ordinal in done:
        board.finish(ordinal)
    return board


def save(record: Record, count: int, done: set[int], *, now: bool = True) -> None:
    board = board_of(count, done)
    record.save(lambda group: board.bitmap(State.DONE, group=group), now=now)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_what_is_saved_is_loaded_and_no_chunk_more(
    target: Target, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 300))
    done = data.draw(st.sets(st.integers(0, count - 1)) | st.just(set(range(count))))
    monkeypatch.setattr(resume, "MAX_BITS", data.draw(st.sampled_from([10_000, 64, 40, 16])))
    target.zero(0, CHUNK)
    save(Record(target, IMAGE, count), count, done)
    loaded = Record(target, IMAGE, count)
    claimed = set(loaded.load())
    assert claimed <= done
    assert claimed == done or loaded._group > 1
    if done == set(range(count)):
        assert claimed == done
    assert Record(target, OTHER, count).load() == []
    assert Record(target, IMAGE, count + 1).load() == []


def test_two_slots_are_written_in_turn_and_a_torn_one_leaves_the_other(target: Target) -> None:
    record = Record(target, IMAGE, 100)
    for done in ({1}, {1, 2}, {1, 2, 3}):
        save(record, 100, done)
    assert Record(target, IMAGE, 100).load() == [1, 2, 3]
    content = bytearray(target.path.read_bytes())
    assert not any(content[:RECORD_BEGIN]), "where firmware looks there is nothing"
    assert not any(content[RECORD_END:])
    newest = RECORD_BEGIN + SLOT  # number 3
    for torn in (newest + 7, newest + 39, newest + 60, newest + 88):
        damaged = bytearray(content)
        damaged[torn] ^= 1
        target.path.write_bytes(damaged)
        assert Record(target, IMAGE, 100).load() == [1, 2]
    again = Record(target, IMAGE, 100)
    again.load()
    save(again, 100, {9})
    assert Record(target, IMAGE, 100).load() == [9], "the next record overwrites the older slot"


def test_it_is_written_when_there_is_news_and_it_takes_little_of_the_disks_time(target: Target) -> None:
    class Slow:
        time = 0.0

        def __call__(self) -> float:
            self.time += 0.5
            return self.time

    clock, written = Slow(), []
    record = Record(target, IMAGE, 100, clock)
    through = target.write_through
    target.write_through = lambda offset, data: (written.append(clock.time), through(offset, data))[1]  # type: ignore[method-assign]
    for step in range(200):
        save(record, 100, set(range(step // 4)), now=False)
    assert len(written) > 2
    assert all(later - before >= 0.5 * resume.SHARE for before, later in pairwise(written))
    quiet = len(written)
    for _ in range(200):
        save(record, 100, set(range(49)), now=False)
    assert len(written) <= quiet + 1, "the same again is not written again"


def test_a_disk_of_one_chunk_has_no_room_for_it(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(CHUNK))
    target = Target(tmp_path / "small")
    assert not Record(target, IMAGE, 2).possible
    target.close()


def test_an_image_of_one_chunk_leaves_nothing_behind_it_on_a_larger_disk(machine: FakeMachine) -> None:
    disk = os.urandom(5 * 512)
    path = machine.add_disk("vda", 3 * CHUNK)
    with ImageServer(store(disk)) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk + bytes(3 * CHUNK - len(disk))


# -- the whole agent ---------------------------------------------------------------------------------------------------


def interrupted(
    machine: FakeMachine, image: StoredImage, disk: bytes, written: list[int], claimed: list[int] | None = None
) -> Path:
    """A disk on which a restore ended: the chunks `written` are there, the record says `claimed`."""
    content = bytearray(os.urandom(CHUNK) * (len(disk) // CHUNK + 1))[: len(disk)]
    content[:CHUNK] = bytes(CHUNK)
    indexes = image.manifest.indexes()
    for ordinal in written:
        at = indexes[ordinal] * CHUNK
        content[at : at + CHUNK] = disk[at : at + CHUNK]
    path = machine.add_disk("vda", len(disk), content=bytes(content))
    target = Target(path)
    save(Record(target, image.id, len(image.frames)), len(image.frames), set(written if claimed is None else claimed))
    target.close()
    return path


def fetched(server: ImageServer) -> int:
    """Bytes of the image's data that travelled."""
    posted = sum(stop - start for ranges in server.posted for start, stop in ranges)
    return posted + sum(last + 1 - first for first, last in server.ranges)


def test_what_is_on_the_disk_does_not_travel_again(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    count = len(image.frames)
    path = interrupted(machine, image, disk, list(range(1, count // 2)))
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk
    lengths = [len(frame) for frame in image.frames]
    assert fetched(server) == sum(lengths) - sum(lengths[1 : count // 2])
    assert server.finish.bytes_fetched == fetched(server)
    assert any(f"{count // 2 - 1} of {count} chunks were on the disk" in text for text in server.messages())
    assert server.reports[-1].done == len(disk)


def test_a_record_that_lies_makes_no_wrong_disk(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    count = len(image.frames)
    path = interrupted(machine, image, disk, [3, 5, 8, 13], claimed=list(range(count)))
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk
    assert fetched(server) == sum(
        len(frame) for ordinal, frame in enumerate(image.frames) if ordinal not in (3, 5, 8, 13)
    )
    assert server.posted, "scattered chunks are asked for together"


@pytest.mark.parametrize("other", ["image", "garbage"])
def test_a_record_of_something_else_counts_for_nothing(
    machine: FakeMachine, image: StoredImage, disk: bytes, other: str
) -> None:
    before = store(disk_bytes(30, 512 * 77, seed=2))
    path = interrupted(machine, before, disk, [], claimed=list(range(len(before.frames))))
    if other == "garbage":
        with path.open("r+b") as file:
            file.seek(RECORD_BEGIN)
            file.write(b"pxedres1" + os.urandom(RECORD_END - RECORD_BEGIN - 8))
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk
    assert fetched(server) == len(image.data)


def test_the_same_image_again_trusts_nothing_that_is_old(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    """A restore that was completed has left no record, so a disk that has lived since is laid down anew."""
    path = machine.add_disk("vda", len(disk))
    for _ in range(2):
        with ImageServer(image) as server:
            run(machine, machine.options(server))
        assert path.read_bytes() == disk
        assert fetched(server) == len(image.data)
        with path.open("r+b") as file:
            file.seek(7 * CHUNK)
            file.write(os.urandom(CHUNK))


def test_where_the_images_first_chunk_is_zero_no_record_stays(machine: FakeMachine) -> None:
    disk = disk_bytes(12, 512, zero=(0, 1, 5))
    image = store(disk)
    path = interrupted(machine, image, disk, [2, 3])
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk
    assert server.reports[-1].done == len(disk)


def test_a_job_that_fails_half_way_is_gone_on_with(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path = machine.add_disk("vda", len(disk), content=os.urandom(CHUNK) * (len(disk) // CHUNK + 1))
    server = ImageServer(image)

    def full(url: str, handler: Handler) -> None:
        if url.endswith("/data") and len(server.ranges) >= 4:
            raise Answer(410, "The image is gone.")

    server.before = full
    with server:
        run(machine, machine.options(server))
    assert not any(path.read_bytes()[:RECORD_BEGIN])
    before = fetched(server)
    assert before > len(image.data) // 3
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes()[: len(disk)] == disk
    assert fetched(server) <= 0.75 * len(image.data)
