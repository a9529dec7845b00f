"""Parts of the composition root that no test of the whole server can bring about."""

import asyncio

from pytest import MonkeyPatch
from structlog.testing import capture_logs

from pxed import app
from support.work import run


def test_tick_goes_on_after_a_failure(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TICK", 0.0)

    async def main() -> None:
        ticks: list[float] = []
        enough = asyncio.Event()

        def tick(now: float) -> None:
            ticks.append(now)
            if len(ticks) <= 3:
                raise KeyError("a bug")
            enough.set()

        task = asyncio.create_task(app._tick(tick))
        await enough.wait()
        task.cancel()

    with capture_logs() as logs:
        run(main())
    assert [entry["event"] for entry in logs] == ["the jobs' deadlines could not be looked at"]  # once, not thrice
