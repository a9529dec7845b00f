"""Machines that fetch one image together, with real sockets, and everything that goes wrong on the way."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.agent.resume import Record
from pxed.agent.server import Connection
from pxed.types import CastJoin
from pxed.wire.cast import Data, Session, encode_data
from support.cast_site import SERVER, CastSite
from support.disks import noise
from support.netns import Net

pytestmark = pytest.mark.root

MIB = 1 << 20
CHUNKS = 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 chunks that do not compress, and 5 that are zero."""
    path = tmp_path_factory.mktemp("image") / "disk"
    path.write_bytes(noise(12 * MIB, 1) + bytes(5 * MIB) + noise(8 * MIB, 2))
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[CastSite]:
    with Net() as net:
        yield CastSite(net, tmp_path_factory.mktemp("room"), disk, machines=3)


@pytest.fixture
def site(room: CastSite, tmp_path: Path) -> Iterator[CastSite]:
    """The room, with nothing in its machines' way."""
    room.work = tmp_path
    yield room
    for machine in room.machines:
        machine.run("nft", "flush", "ruleset")


def drop(site: CastSite, machine: int, what: str) -> None:
    """Packets that match do not reach a machine."""
    chain = "add table ip t; add chain ip t c { type filter hook prerouting priority -300; }; "
    site.machines[machine].run("nft", f"{chain} add rule ip t c {what} drop")


class Looking:
    """A file that others write, as a record sees its target."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size

    def read(self, offset: int, into: memoryview) -> None:
        with self.path.open("rb") as file:
            file.seek(offset)
            file.readinto(into)


def on_disk(site: CastSite, path: Path) -> int:
    """How many chunks a disk that is not whole yet says that it holds."""
    return len(Record(Looking(path.with_name(path.name + ".part")), site.image, CHUNKS).load())  # type: ignore[arg-type]


def test_a_room_with_loss_and_one_that_is_killed_and_goes_on(site: CastSite, disk: Path) -> None:
    for machine in range(3):
        drop(site, machine, "udp dport 1759 numgen random mod 100 < 3")
    fetching = [site.fetch(machine, site.work / f"disk{machine}") for machine in range(3)]
    fetching[0].wait_until(0.5)
    while not on_disk(site, fetching[0].path):  # a busy disk is told of what it holds seldom
        kind, value = fetching[0].next()
        assert kind != "result", value
    os.kill(fetching[0].daemon.pid, signal.SIGKILL)
    fetching[0].daemon.stop()
    held = on_disk(site, fetching[0].path)
    again = site.fetch(0, site.work / "disk0")
    for one in (again, *fetching[1:]):
        result = one.result()
        assert result["ok"], result
        assert one.path.read_bytes() == disk.read_bytes()
        assert result["by_cast"] > result["by_http"], "the session brought it"
        if one is again:
            assert result["chunks_resumed"] == held > 0
            assert result["by_cast"] + result["by_http"] <= (CHUNKS - held) * (result["data_size"] // CHUNKS + 1)
        else:
            assert 0 < result["receiver"]["received"] < result["receiver"]["expected"]


def test_a_server_that_is_killed_in_the_middle_and_started_again(site: CastSite, disk: Path) -> None:
    one = site.fetch(0, site.work / "disk0")
    one.wait_until(0.3)
    os.kill(site.daemon.pid, signal.SIGKILL)
    site.daemon.stop()
    one.wait_for("group is not heard")
    site.start()
    result = one.result()
    assert result["ok"], result
    assert one.path.read_bytes() == disk.read_bytes()
    total = result["by_cast"] + result["by_http"]
    assert total == result["data_size"], "what was there before the restart stayed good"


def test_a_group_that_does_not_reach_a_machine_is_replaced_by_http(site: CastSite, disk: Path) -> None:
    drop(site, 0, "ip daddr 224.0.0.0/4 udp dport 1759")
    one = site.fetch(0, site.work / "disk0")
    only = site.fetch(1, site.work / "disk1", "--transport", "cast")
    one.wait_for("by HTTP: the multicast group is not heard")
    for fetching in (one, only):
        result = fetching.result()
        assert result["ok"], result
        assert fetching.path.read_bytes() == disk.read_bytes()
        other = "by_cast" if fetching is one else "by_http"
        assert result[other] == 0


def test_damage_on_the_way_is_found_and_mended(site: CastSite, disk: Path) -> None:
    """A machine that has joined sends wrong bytes with a right MAC, again and again."""
    ended = threading.Event()
    with site.machines[2], Connection(f"http://{SERVER}") as connection:
        told = connection.join(CastJoin(site.image, "ab" * 8))
        layout = connection.fetch(f"pxed/image/{site.image}/layout")
        vandal = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    vandal.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.79.0.4"))
    session = Session(int(told.session, 16), bytes.fromhex(told.key), told.symbol)
    forged = []
    for chunk in (3, 7, 11):
        stored = int.from_bytes(layout[4 * chunk : 4 * chunk + 4], "little")
        symbols = -(-stored // told.symbol)
        forged.append(encode_data(Data(1, chunk, stored, 0, symbols, bytes(told.symbol)), session))

    def vandalise() -> None:
        while not ended.wait(0.02):
            for datagram in forged:
                vandal.sendto(datagram, (told.group, told.port))

    thread = threading.Thread(target=vandalise)
    thread.start()
    try:
        one = site.fetch(0, site.work / "disk0")
        result = one.result()
    finally:
        ended.set()
        thread.join()
        vandal.close()
    assert result["ok"], result
    assert one.path.read_bytes() == disk.read_bytes()
    assert result["wrong"] >= 1


def test_a_target_without_room(site: CastSite) -> None:
    small = site.work / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=8m none {small} && exec "$@"'
    one = site.fetch(0, small / "disk", around=("unshare", "-m", "sh", "-c", mount, "sh"))
    result = one.result()
    assert not result["ok"]
    assert "no room" in result["reason"]
