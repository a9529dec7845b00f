"""The writer answers whoever waits and goes on, also when what it calls has a bug."""

import asyncio
from types import SimpleNamespace

import pytest

from pxed.errors import InternalError, OperatorError
from pxed.store import Batch, Writer, writer
from support.work import run


class Disk:
    """A store that fails as told."""

    def __init__(self):
        self.errors = []
        self.saved = []

    async def save(self, batch):
        if self.errors:
            raise self.errors.pop(0)
        self.saved.append(batch)


class Memory:
    """Where the background changes are."""

    def __init__(self):
        self.error = None
        self.batch = Batch()

    def collect(self):
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        batch, self.batch = self.batch, Batch()
        return batch

    def put_back(self, batch):
        self.batch = batch


def one(number=1):
    return Batch(removed={number})


def scene():
    disk, memory = Disk(), Memory()
    made = Writer(disk, memory.collect, memory.put_back)
    made.start()
    return disk, memory, made


def raising(*_arguments, **_fields):
    raise OSError(28, "No space left on device")


@pytest.fixture
def no_log(monkeypatch):
    names = ("debug", "info", "warning", "error", "critical", "exception")
    monkeypatch.setattr(writer, "log", SimpleNamespace(**dict.fromkeys(names, raising)))


@pytest.mark.usefixtures("no_log")
def test_log_that_raises_stops_no_commit():
    async def main():
        disk, memory, made = scene()
        memory.batch = one(7)
        disk.errors = [OperatorError("full")] * 2
        with pytest.raises(OperatorError, match="full"):
            await made.commit(one(), lambda: None)
        assert made.error == "full"
        assert memory.batch == one(7)
        await made.commit(one(), lambda: None)
        assert made.error == ""
        assert disk.saved == [Batch(removed={1, 7})]
        with pytest.raises(OSError, match="No space"):
            await made.commit(one(), raising)
        disk.errors = [OperatorError("full")]
        memory.batch = one(8)
        await made.close()

    run(main())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(5, "a bug")])
def test_unexpected_error_of_the_store(error):
    async def main():
        disk, memory, made = scene()
        memory.batch = one(7)
        disk.errors = [error] * 2
        with pytest.raises(InternalError, match="a bug"):
            await made.commit(one(), lambda: None)
        assert memory.batch == one(7)  # not lost
        await made.commit(one(), lambda: None)
        assert disk.saved == [Batch(removed={1, 7})]
        await made.close()

    run(main())


def test_unexpected_error_of_what_collects(monkeypatch):
    monkeypatch.setattr(writer, "RETRY_FIRST", 0.0)

    async def main():
        disk, memory, made = scene()
        memory.error, memory.batch = KeyError("a bug"), one(7)
        with pytest.raises(InternalError, match="a bug"):
            await made.commit(one(), lambda: None)
        await made.commit(one(2), lambda: None)
        assert disk.saved == [Batch(removed={2, 7})]
        await made.close()

    run(main())


def test_writer_that_is_cancelled_leaves_nobody_waiting():
    async def main():
        _, _, made = scene()
        waiting = asyncio.create_task(made.commit(one(), lambda: None))
        await asyncio.sleep(0)
        made._task.cancel()
        with pytest.raises(OperatorError, match="stopped"):
            await waiting
        with pytest.raises(OperatorError, match="stopping"):
            await made.commit(one(), lambda: None)

    run(main())
