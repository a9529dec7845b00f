"""The API on a real unix socket, under the event loop that the server uses."""

import asyncio
import gc
import os
import signal
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvloop

from pxed.api.control import Change, NewMachine
from pxed.api.events import Closing, stream
from pxed.api.server import ApiServer, serve
from pxed.errors import OperatorError
from pxed.types import Event
from support.control import FakeControl

LIMIT = 30.0  # seconds that no step here comes near, even on a busy machine
EVENT = Event(1.0, "52:54:00:12:34:56", "seen", "A machine was seen.", 1)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run it under uvloop; what asyncio would only log (a task lost, an error nobody took) is a failure."""
    complaints: list[str] = []

    async def limited() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda loop, said: complaints.append(str(said)))
        async with asyncio.timeout(LIMIT):
            return await work()

    result = uvloop.run(limited())
    gc.collect()
    assert complaints == []
    return result


def connect(path: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://pxed", timeout=LIMIT)


def test_requests_over_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "pxed.sock"  # a folder that the server makes

    async def work() -> None:
        async with serve(FakeControl(), str(path)), connect(path) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert [p.name for p in path.parent.iterdir()] == ["pxed.sock"]
            machine = (await client.post("/machines", json={"mac": "52:54:00:12:34:56"})).json()
            assert (await client.get("/machines")).json() == [machine]

    run(work)
    assert not path.exists()


def test_live_stream_misses_nothing_after_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "pxed.sock"
    control = FakeControl()

    async def work() -> None:
        async with serve(control, str(path)), connect(path) as client, client.stream("GET", "/events") as answer:
            assert answer.headers["content-type"] == "application/jsonl"
            lines = answer.aiter_lines()
            assert await anext(lines) == "{}"
            machine = await control.add_machine(NewMachine(mac="52:54:00:12:34:56"))
            change = msgspec.json.decode(await anext(lines), type=Change)
            assert change.event is not None
            assert change.event.machine_id == machine.id

    run(work)
    assert control.listeners == []


def test_live_stream_as_server_sent_events(tmp_path: Path) -> None:
    path = tmp_path / "pxed.sock"
    control = FakeControl()

    async def work() -> None:
        headers = {"accept": "text/event-stream"}
        async with (
            serve(control, str(path)),
            connect(path) as client,
            client.stream("GET", "/events", headers=headers) as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert [await anext(lines), await anext(lines)] == ["data: {}", ""]
            control.publish(EVENT)
            assert msgspec.json.decode((await anext(lines)).removeprefix("data: "), type=Change).event == EVENT

    run(work)


def test_stop_ends_live_streams_in_order(tmp_path: Path) -> None:
    path = tmp_path / "pxed.sock"
    control = FakeControl()

    async def work() -> None:
        server = ApiServer(control, str(path))
        await server.start()
        async with connect(path) as client, client.stream("GET", "/events") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            stopping = asyncio.ensure_future(server.stop())
            assert [line async for line in lines] == []  # a whole answer, not a broken one
            await stopping
        await server.stop()  # again: nothing to do

    run(work)


def test_client_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "pxed.sock"
    control = FakeControl()

    async def work() -> None:
        async with serve(control, str(path)):
            before = asyncio.all_tasks()
            async with connect(path) as client, client.stream("GET", "/events") as answer:
                await anext(answer.aiter_lines())
                assert len(control.listeners) == 1
            while control.listeners or asyncio.all_tasks() - before:
                gc.collect()
                await asyncio.sleep(0)

    run(work)


def test_quiet_stream_says_that_it_lives() -> None:
    async def work() -> None:
        lines = stream(FakeControl(), Closing(), as_events=False, quiet=0.001)
        assert [await anext(lines) for _ in range(3)] == [b"{}\n"] * 3
        await lines.aclose()  # type: ignore[attr-defined]

    run(work)


def test_stream_ends_with_its_source_and_with_its_error() -> None:
    class Broken(FakeControl):
        def changes(self) -> Any:
            raise ZeroDivisionError

    async def work() -> None:
        with pytest.raises(ZeroDivisionError):
            async for _ in stream(Broken(), Closing(), as_events=False):
                pass

    run(work)


def test_signals_stay_with_the_application(tmp_path: Path) -> None:
    async def work() -> None:
        got = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
        before = signal.getsignal(signal.SIGINT)
        async with serve(FakeControl(), str(tmp_path / "s")):
            assert signal.getsignal(signal.SIGINT) is before
            os.kill(os.getpid(), signal.SIGUSR1)
            await got.wait()

    run(work)


def test_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "pxed.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def work() -> None:
        async with serve(FakeControl(), str(path)), connect(path) as client:
            with pytest.raises(OperatorError, match=r"Another server answers on .*; is pxed running already\?"):
                await ApiServer(FakeControl(), str(path)).start()
            assert (await client.get("/status")).is_success

    run(work)


def test_socket_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def work() -> None:
        with pytest.raises(OperatorError, match=r"The admin socket .*/file/s cannot be made: (Not a dir|File exists)"):
            await ApiServer(FakeControl(), str(tmp_path / "file" / "s")).start()

    run(work)


def test_stopping_leaves_a_successors_socket(tmp_path: Path) -> None:
    path = tmp_path / "pxed.sock"

    async def work() -> None:
        server = ApiServer(FakeControl(), str(path))
        await server.start()
        path.unlink()
        async with serve(FakeControl(), str(path)), connect(path) as client:
            await server.stop()
            assert (await client.get("/machines")).json() == []

    run(work)


def test_folder_in_the_sockets_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()

    async def work() -> None:
        with pytest.raises(OperatorError, match=r"The admin socket .*/s cannot be made: Is a directory\.$"):
            await ApiServer(FakeControl(), str(tmp_path / "s")).start()

    run(work)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
