"""Subscriptions: everybody gets everything from the moment of subscribing, and an end."""

import asyncio

from pxed.service.live import Hub
from pxed.types import Event
from support.work import run

ONE, TWO = Event(1.0, "", "job", "one"), Event(2.0, "", "job", "two")


def test_everybody_gets_everything_from_then_on():
    async def main():
        hub = Hub()
        early = hub.subscribe()
        hub.publish(ONE)
        late = hub.subscribe()
        hub.publish(TWO)
        hub.close()
        assert [one async for one in early] == [ONE, TWO] and [one async for one in late] == [TWO]
        hub.publish(ONE)

    run(main())


def test_waiting_watcher_is_woken_by_a_change_and_by_the_end():
    async def main():
        hub = Hub()
        async with hub.subscribe() as changes:
            task = asyncio.create_task(anext(changes))
            await asyncio.sleep(0)
            hub.publish(ONE)
            assert await task == ONE
            last = asyncio.create_task(anext(changes, None))
            await asyncio.sleep(0)
        assert await last is None

    run(main())
