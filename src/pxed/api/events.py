"""The live stream's lines: what `Control.changes` yields, as JSON lines or server-sent events."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from pxed.api.control import Change, Control
from pxed.types import Event

__all__ = ["EVENT_STREAM", "JSON_LINES", "Closing", "stream"]

JSON_LINES = "application/jsonl"
EVENT_STREAM = "text/event-stream"

# A line at least this often tells a client that the server lives. Proxies and clients commonly give up after 30 to
# 60 s of silence.
QUIET_SECONDS = 15.0

# Changes kept for a client that reads slowly, before the subscription itself has to wait: some seconds of a busy site.
WAITING_CHANGES = 1000


class Closing(asyncio.Event):
    """Set when the server stops, so that streams end instead of holding it up."""


async def stream(
    control: Control, closing: Closing, *, as_events: bool, quiet: float = QUIET_SECONDS
) -> AsyncIterator[bytes]:
    """Lines for one client. The first is empty of news and says that nothing after it will be missed."""
    changes: asyncio.Queue[Change] = asyncio.Queue(WAITING_CHANGES)
    # The subscription lives in a task of its own: it ends in order even when this one is torn down in the middle.
    pump = asyncio.ensure_future(_pump(control, changes))
    stop = asyncio.ensure_future(closing.wait())
    change = asyncio.ensure_future(changes.get())
    try:
        while True:
            await asyncio.wait((change, pump, stop), timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
            if change.done():
                yield _line(change.result(), as_events)
                change = asyncio.ensure_future(changes.get())
            elif stop.done():
                return
            elif pump.done():
                pump.result()  # its error, if it has one, is ours
                return
            else:
                yield _line(Change(), as_events)
    finally:
        for task in (change, stop, pump):
            task.cancel()


async def _pump(control: Control, changes: "asyncio.Queue[Change]") -> None:
    async with control.changes() as items:
        await changes.put(Change())
        async for item in items:
            await changes.put(Change(event=item) if isinstance(item, Event) else Change(job=item))


def _line(change: Change, as_events: bool) -> bytes:
    body = msgspec.json.encode(change)
    return b"data: " + body + b"\n\n" if as_events else body + b"\n"
