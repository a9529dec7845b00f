"""Snapshots of what moves, taken while clients on real sockets hold their transfers open by waiting."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pxed.net.message import BytesBody, Response
from pxed.service.metrics import Metrics
from pxed.service.peers import Peers
from pxed.service.traffic import Snapshots
from pxed.types import Event, Identity, Job, JobState, Machine
from support.httpd import Httpd
from support.tftp_service import Running, Socket
from support.tftp_sim import ack, rrq

MAC = "52:54:00:12:34:56"
DATA = bytes(100_000)
DOWNLOAD = bytes(64 << 20)  # more than the kernels of both sides hold


class Known:
    """Transactions that know one machine and one running job."""

    def identify(self, identity: Identity) -> Machine | None:
        return Machine(1, (MAC,), name="pc-1") if identity.mac == MAC else None

    def jobs(self) -> list[Job]:
        jobs = [Job(1, 1, "restore", "ab", "demo", JobState.RUNNING, 0.0, 0.0, step="restore")]
        return [*jobs, Job(2, 1, "restore", "ab", "demo", JobState.PENDING, 0.0, 0.0)]


class Scene:
    def __init__(self, root: Path) -> None:
        self.metrics = Metrics()
        self.peers = Peers()
        self.server = Running(root, ("127.0.0.1",), metrics=self.metrics, mac_of=self.peers.told)
        self.http = Httpd(lambda request: Response(200, BytesBody(DOWNLOAD)))
        self.snapshots = Snapshots(
            self.server.service,
            cast(Any, self.http.server),
            self.metrics,
            cast(Any, Known()),
            self.peers,
            lambda: 100.0,
            lambda: {"bytes": 7, "receivers": 2, "reports": 9},
        )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "vmlinuz").write_bytes(DATA)
    made = Scene(tmp_path)
    with made.http:
        yield made
    made.server.stop()


def test_nothing_moves(scene: Scene) -> None:
    now = scene.server.call(scene.snapshots.take(10))
    assert (now.transfers, now.tftp_running, now.tftp_waiting, now.tftp_bytes, now.http_bytes) == ((), 0, 0, 0, 0)
    assert (now.steps, now.http_connections) == ({"restore": 1}, 0)
    assert (now.cast_bytes, now.cast_receivers) == (7, 2)


def test_transfers_that_run(scene: Scene) -> None:
    scene.peers.learn("127.0.0.1", MAC)
    scene.metrics.changed(Event(99.0, MAC, "boot-program", "…"))
    clients = [Socket("127.0.0.1", scene.server.port) for _ in range(3)]
    for client in clients:
        client.send(rrq("vmlinuz", blksize=1000))
        client.receive()
        client.send(ack(0))
        client.receive()
        client.send(ack(1))
        client.receive()  # so that was heard
    now = scene.server.call(scene.snapshots.take(2))
    assert (now.tftp_running, now.tftp_waiting, len(now.transfers)) == (3, 0, 2)
    assert now.tftp_bytes >= 6000
    assert now.places == {"boot program": 1}
    ids = {transfer.id for transfer in now.transfers}
    assert len(ids) == 2
    for transfer in now.transfers:
        assert (transfer.protocol, transfer.peer, transfer.machine) == ("tftp", "127.0.0.1", "pc-1")
        assert (transfer.name, transfer.state, transfer.bytes, transfer.size) == ("vmlinuz", "sending", 1000, len(DATA))
    later = scene.server.call(scene.snapshots.take(2))
    assert {transfer.id for transfer in later.transfers} == ids
    assert later.time > now.time
    for client in clients:
        client.close()


def test_downloads_over_http(scene: Scene) -> None:
    scene.peers.learn("127.0.0.1", MAC)
    with scene.http.connect() as client:  # it reads the beginning, and then waits
        client.sock.sendall(b"GET /pxed/environment/initramfs HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(5) == b"HTTP/"
        while not (transfer := (now := scene.server.call(scene.snapshots.take(10))).transfers[0]).bytes:
            pass  # the head has left, the body is about to
        assert len(now.transfers) == 1
        assert (transfer.protocol, transfer.machine, transfer.size) == ("http", "pc-1", len(DOWNLOAD))
        assert (transfer.name, transfer.state) == ("/pxed/environment/initramfs", "sending")
        assert 0 < transfer.bytes <= now.http_bytes < len(DOWNLOAD)
        assert now.http_connections == 1
        assert scene.server.call(scene.snapshots.take(0)).transfers == ()


def test_failures_are_kept(scene: Scene) -> None:
    client = Socket("127.0.0.1", scene.server.port)
    client.send(rrq("vmlinuz"))
    client.receive()
    client.send(b"\0\5\0\3disk full\0")
    scene.server.wait_until(lambda now: now["outcome.client-error"] == 1)
    while not (failures := scene.server.call(scene.snapshots.take(0)).failures):
        pass  # the event is on its way from the engine
    assert [(failure.who, failure.text) for failure in failures] == [
        ("127.0.0.1", "vmlinuz over TFTP: client-error 3 disk full")
    ]
    client.close()
