"""MTFTP as PXE 2.1 has it on a real network: one bridge, and clients that say each packet by hand."""

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.config import Mtftp, MtftpGroup
from support.netns import Namespace, Net
from support.tftp_service import Running, Socket, fetch, go_on
from support.tftp_sim import ack, is_data, number, rrq

pytestmark = pytest.mark.root

DATA = random.Random(7).randbytes(74_001)
BLOCKS = 145
US = "10.78.0.1"
GROUP = MtftpGroup("239.255.78.255", 2056, 2, 2)
IPXE = ("239.255.1.1", 3001)
KERNEL = "pxed/environment/vmlinuz"


class Client:
    """A machine: what comes to itself, and what comes to a group."""

    def __init__(self, host: Namespace, address: str, server_port: int, group: tuple[str, int], port: int) -> None:
        self._stack = contextlib.ExitStack()
        self._server = (US, server_port)
        with host:
            self.own = self._open(address, port)
            self.group = self._open(*group)
        member = socket.inet_aton(group[0]) + socket.inet_aton(address)
        self.group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)

    def _open(self, address: str, port: int) -> socket.socket:
        sock = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.settimeout(30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((address, port))
        return sock

    def say(self, datagram: bytes) -> None:
        self.own.sendto(datagram, self._server)

    def hear(self, sock: socket.socket) -> bytes:
        """The next DATA, which must come from the address and port that are asked."""
        datagram, peer = sock.recvfrom(2048)
        assert peer == self._server
        assert is_data(datagram)
        return datagram

    def close(self) -> None:
        self._stack.close()


class Site:
    def __init__(self, net: Net, root: Path) -> None:
        root.mkdir()
        (root / "file").write_bytes(DATA)
        switch = net.namespace("switch")
        self.hosts = [net.namespace(name) for name in ("server", "one", "two")]
        for i, host in enumerate(self.hosts):
            net.link(host, "eth0", switch, f"port{i}")
            host.address("eth0", f"10.78.0.{i + 1}/24")
        net.bridge(switch, "bridge", *(f"port{i}" for i in range(len(self.hosts))))
        with self.hosts[0]:
            self.running = Running(root, (US,), port=69, mtftp=Mtftp(enabled=True))
        self.running.service.assign_groups({"/file": GROUP})
        self.running.names.made[KERNEL] = DATA


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Net() as net:
        site = Site(net, tmp_path / "root")
        yield site
        site.running.stop()


@pytest.mark.parametrize(
    ("name", "server_port", "group", "port"),
    [("file", 1799, (GROUP.address, GROUP.client_port), GROUP.client_port), (KERNEL, 1760, IPXE, 0)],
    ids=["PXE", "iPXE"],
)
def test_who_asks_acknowledges_and_who_listens_has_the_file_too(
    site: Site, name: str, server_port: int, group: tuple[str, int], port: int
) -> None:
    with contextlib.ExitStack() as stack:
        one, two = [Client(host, f"10.78.0.{i + 2}", server_port, group, port) for i, host in enumerate(site.hosts[1:])]
        stack.callback(one.close)
        stack.callback(two.close)
        one.say(rrq(name))
        assert one.hear(one.own) == b"\0\3\0\1" + DATA[:512]
        two.say(rrq(name))
        received = [b"", b""]
        for block in range(1, BLOCKS + 1):
            for i, client in enumerate((one, two)):
                datagram = client.hear(client.group)
                assert number(datagram) == block
                received[i] += datagram[4:]
            one.say(ack(block))
        assert received == [DATA, DATA]
        figures = site.running.wait_until(lambda now: now["mtftp_outcome.ok"] == 1)
        assert (figures["mtftp.bytes"], figures["mtftp_drop.merged"], figures["mtftp.passes"]) == (len(DATA), 1, 1)
        two.own.setblocking(False)
        with pytest.raises(BlockingIOError):
            two.own.recv(2048)
    assert site.running.names.delivered_names == [(name, "10.78.0.2", len(DATA))]


@pytest.mark.parametrize(("name", "server_port"), [("other", 1799), ("missing", 1799), ("file", 1760)])
def test_what_is_not_sent_so_gets_no_answer_and_comes_by_tftp(site: Site, name: str, server_port: int) -> None:
    (site.running.root / "other").write_bytes(DATA)
    site.running.service.assign_groups({"file": GROUP, "missing": GROUP})
    with site.hosts[1]:
        silent, plain = Socket(US, server_port), Socket(US, 69)
    silent.send(rrq(name))
    figures = site.running.wait_until(lambda now: now["mtftp_outcome.refused"] == 1)
    silent.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent.receive()
    assert figures["mtftp.datagrams"] == 0
    if name != "missing":
        assert fetch(plain, name, 2) + go_on(plain, 2) == DATA
    silent.close()
    plain.close()
