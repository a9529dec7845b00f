"""What runs, asked of a service that serves real sockets: clients that hold their transfers open by waiting."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed._ext.tftp_events import Progress
from support.tftp_service import Running, Socket
from support.tftp_sim import ack, error, rrq

DATA = bytes(300_000)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    (tmp_path / "boot.efi").write_bytes(DATA)
    running = Running(tmp_path, ("127.0.0.1",), threads=request.param)
    yield running
    running.stop()


@pytest.fixture
def clients(server: Running) -> Iterator[list[Socket]]:
    sockets = [Socket("127.0.0.1", server.port) for _ in range(5)]
    yield sockets
    for sock in sockets:
        sock.close()


def listed(server: Running, limit: int = 100) -> list[Progress]:
    found: list[tuple[str, Progress]] = server.call(server.service.transfers(limit))
    assert {by for by, _ in found} <= {"tftp"}
    return [progress for _, progress in found]


def test_transfers_that_run(server: Running, clients: list[Socket]) -> None:
    assert listed(server) == []
    for client in clients:
        client.send(rrq("boot.efi", blksize=1000, windowsize=2))
        client.receive()
        client.send(ack(0))
        client.receive()
        client.receive()
        client.send(ack(2))
        client.receive()  # so that was heard
    server.wait_until(lambda now: now["running"] == 5)
    found = listed(server)
    assert {progress.peer[1] for progress in found} == {client.sock.getsockname()[1] for client in clients}
    for progress in found:
        assert (progress.name, progress.size, progress.bytes) == ("boot.efi", len(DATA), 2000)
        assert (progress.state, progress.blksize, progress.windowsize) == ("sending", 1000, 2)
        assert 0 < progress.quiet <= progress.seconds
    assert len(listed(server, 2)) == 2
    for client in clients:
        client.send(error(0, "enough"))
    server.wait_until(lambda now: now["running"] == 0)
    assert listed(server) == []


def test_whoever_asks_may_go_away(server: Running) -> None:
    async def ask() -> None:
        impatient = asyncio.create_task(server.service.transfers(10))
        await asyncio.sleep(0)  # it has asked
        impatient.cancel()
        assert await asyncio.gather(*(server.service.transfers(10) for _ in range(3))) == [[], [], []]

    server.call(ask())
