"""Writing to the database behind the server's back, and at once where an answer waits for it.

Two ways in:

- `commit(batch, apply)`: an answer waits. It returns when the batch is on the disk and `apply` was called; it raises
  when the batch could not be saved, and then nothing happened. Commits that come while one is being written go
  together into the next transaction, so hundreds of machines that claim at once share a few disk flushes.
- `wake()`: memory has moved and can be saved when convenient; `collect` gives what. While the database cannot be
  written, that stays in memory and is tried again with growing pauses.

A commit's records may not be older than what `collect` gives for the same ids; `apply` is called in the moment of
success, before anything else is collected, so that a later collection never holds the state before the commit.

Whoever waits gets an answer in any case: a bug in what the writer calls fails the commits at hand, not the writer.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from msgspec import Struct

from pxed.errors import InternalError, OperatorError, PxedError
from pxed.store.records import Batch
from pxed.store.store import Store

__all__ = ["Writer"]

log = structlog.get_logger("pxed.store")

# Seconds that background changes may wait for company; a person does not notice, the disk does.
DELAY = 0.2
RETRY_FIRST = 1.0  # pause after the first failure; doubles up to RETRY_MOST
RETRY_MOST = 15.0


class _Commit(Struct):
    batch: Batch
    apply: Callable[[], None]
    done: asyncio.Future[None]


class Writer:
    """The only writer of a Store; a task of its own."""

    def __init__(self, store: Store, collect: Callable[[], Batch], put_back: Callable[[Batch], None]) -> None:
        """`put_back` gets what `collect` gave when it could not be saved."""
        self._store = store
        self._collect = collect
        self._put_back = put_back
        self._commits: list[_Commit] = []
        self._wanted = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = 0.0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.error = ""  # why the last write failed, a sentence; empty when it did not

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pxed-writer")

    async def commit(self, batch: Batch, apply: Callable[[], None]) -> None:
        """Save a batch, then `apply`. Raises OperatorError when it cannot be saved; then nothing was changed."""
        if self._stopping:
            raise OperatorError("The server is stopping; ask again when it runs.")
        done = asyncio.get_running_loop().create_future()
        self._commits.append(_Commit(batch, apply, done))
        self._wanted.set()
        await done

    def wake(self, *, soon: bool = False) -> None:
        """There is something to collect: within DELAY, or at once if `soon`."""
        if soon and not self._pause:
            self._wanted.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause or DELAY, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wanted.set()

    async def close(self) -> None:
        """Save what there is and stop. What cannot be saved now is lost, and logged."""
        self._stopping = True
        self._wanted.set()
        if self._task is not None:
            await self._task
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _run(self) -> None:
        last = False
        commits: list[_Commit] = []
        try:
            while not last:
                await self._wanted.wait()
                self._wanted.clear()
                last = self._stopping
                commits, self._commits = self._commits, []
                try:
                    await self._write(commits)
                except Exception as error:  # a bug of ours
                    told = _internal(error)
                    _refuse(commits, told)
                    self._trouble(told, Batch())
        finally:  # also when the task is cancelled
            self._stopping = True
            _refuse([*commits, *self._commits], OperatorError("The server has stopped; ask again when it runs."))

    async def _write(self, commits: list[_Commit]) -> None:
        background = self._collect()
        together = Batch()
        together.update(background)
        for one in commits:
            together.update(one.batch)
        if not together:
            for one in commits:
                self._succeed(one)
            return
        try:
            await self._save(together)
        except PxedError as error:
            self._put_back(background)
            self._trouble(error, background)
            for one in commits:
                await self._alone(one)
            return
        for one in commits:
            self._succeed(one)
        self._worked()

    async def _alone(self, one: _Commit) -> None:
        """A commit whose company failed gets a try of its own: it may need less room, or not be to blame."""
        try:
            await self._save(one.batch)
        except PxedError as error:
            _refuse([one], error)
        else:
            self._succeed(one)

    async def _save(self, batch: Batch) -> None:
        """Raises nothing but PxedError: after anything that goes wrong here, what was collected is put back."""
        try:
            await self._store.save(batch)
        except PxedError:
            raise
        except Exception as error:
            raise _internal(error) from error

    @staticmethod
    def _succeed(one: _Commit) -> None:
        try:
            one.apply()
        except Exception as error:  # a bug of ours; whoever waits shall hear of it, and the next commits go on
            _refuse([one], error)
            _tell(log.exception, "a change that is saved could not be taken over")
        else:
            if not one.done.done():
                one.done.set_result(None)

    def _trouble(self, error: PxedError, unsaved: Batch) -> None:
        """Tell it once, and try again later unless this is the end."""
        new, self.error = str(error) != self.error, str(error)
        self._pause = min(RETRY_MOST, self._pause * 2 or RETRY_FIRST)
        if new:
            tell = log.error if isinstance(error, OperatorError) else log.critical
            _tell(tell, "nothing can be saved; booting and running jobs go on from memory", error=str(error))
        if self._stopping:
            lost = {"machines": len(unsaved.machines), "jobs": len(unsaved.jobs), "lines": len(unsaved.lines)}
            _tell(log.error, "not saved at the end", **lost)
        else:
            self.wake()

    def _worked(self) -> None:
        recovered = bool(self.error)
        self.error, self._pause = "", 0.0
        if recovered:
            _tell(log.warning, "the database can be written again")


def _internal(error: Exception) -> InternalError:
    return InternalError(f"Saving failed by a fault in pxed: {error!r}.")


def _refuse(commits: list[_Commit], error: Exception) -> None:
    """Tell those who still wait."""
    for one in commits:
        if not one.done.done():
            one.done.set_exception(error)


def _tell(tell: Callable[..., Any], event: str, **fields: Any) -> None:
    """Log. A log that raises is no reason to stop saving, and there is nowhere to tell of it."""
    with suppress(Exception):
        tell(event, **fields)
