"""MTFTP as PXE 2.1 has it, with a client that is not ours: atftp's, several at once on one bridge.

It follows the state machine of the specification (listen, open, receive), but

- it asks from any port: the client port is that of its groups only;
- its repeated requests go to port 0, so the first one must be answered in time;
- who hears the group before the answer to itself takes itself for a listener, and does not acknowledge.
"""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.config import Mtftp, MtftpGroup
from support.netns import Namespace, Net
from support.tftp_service import Running

pytestmark = pytest.mark.root

US = "10.78.0.1"
SERVER_PORT = 1799
GROUP = MtftpGroup("239.255.78.255", 2056, 1, 1)
DATA = random.Random(8).randbytes(100_001)
PATIENCE = 120


class Site:
    """A server and clients on one bridge; each client has a folder for what it gets."""

    def __init__(self, net: Net, folder: Path, clients: int) -> None:
        root = folder / "root"
        root.mkdir()
        (root / "file").write_bytes(DATA)
        switch, server = net.namespace("switch"), net.namespace("server")
        self.clients = [net.namespace(f"client {i}") for i in range(clients)]
        hosts = [server, *self.clients]
        for i, host in enumerate(hosts):
            net.link(host, "eth0", switch, f"port{i}")
            host.address("eth0", f"10.78.0.{i + 1}/24")
            host.run("ip", "route", "add", "239.0.0.0/8", "dev", "eth0")
        net.bridge(switch, "bridge", *(f"port{i}" for i in range(len(hosts))))
        self._folder = folder
        with server:
            self.running = Running(root, (US,), port=69, mtftp=Mtftp(enabled=True))
        self.running.service.assign_groups({"/file": GROUP})

    def miss(self, client: Namespace, first: int, count: int) -> None:
        """Drop the first `count` datagrams to the group that carry a block from `first` to `first + count - 1`."""
        blocks = f"@th,64,32 {0x30000 + first}-{0x30000 + first + count - 1}"
        rule = f"ip daddr {GROUP.address} {blocks} numgen inc mod 100000 < {count} drop"
        client.run(
            "nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c " + rule
        )

    def start(self, client: Namespace, listen: int = GROUP.listen) -> "subprocess.Popen[bytes]":
        """It listens, and asks when it has heard nothing for so many seconds."""
        variables = {
            "client-port": GROUP.client_port,
            "mcast-ip": GROUP.address,
            "listen-delay": listen,
            "timeout-delay": GROUP.delay + 1,  # of silence, and for the answer to its request
        }
        words = [word for name, value in variables.items() for word in ("--mtftp", f"{name} {value}")]
        folder = self._folder / client.name
        folder.mkdir()
        process = subprocess.Popen(
            [*client.prefix, "atftp", "--trace", *words, "--mget", "-r", "file", "-l", "out", US, str(SERVER_PORT)],
            cwd=folder,
            env={key: value for key, value in os.environ.items() if key != "LD_PRELOAD"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        while b"listening for ongoing transfer" not in (line := process.stdout.readline()):
            assert line
        return process

    def finish(self, client: Namespace, process: "subprocess.Popen[bytes]") -> None:
        """It ends well, with the right bytes."""
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert (self._folder / client.name / "out").read_bytes() == DATA, said


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # A file of this very moment is read anew for each pass, and is perhaps another one.
    monkeypatch.setattr("pxed.service.blobs.RACY_SECONDS", 0)
    with Net() as net:
        site = Site(net, tmp_path, clients=4)
        yield site
        site.running.stop()


def test_four_clients_share_what_is_sent(site: Site) -> None:
    """All of them listen first. Who asks first acknowledges; who asks a moment later hears that pass, and no second."""
    processes = [site.start(client) for client in site.clients]
    for client, process in zip(site.clients, processes, strict=True):
        site.finish(client, process)
    figures = site.running.wait_until(lambda now: now["mtftp.running"] == 0)
    assert figures["mtftp.bytes"] < 3 * len(DATA)
    assert figures["mtftp_outcome.ok"] == figures["mtftp.passes"] > 0
    assert len(site.running.names.delivered_names) == figures["mtftp.passes"]


def test_who_missed_some_listens_and_asks_again(site: Site) -> None:
    one, two, *_ = site.clients
    site.miss(two, 100, 64)
    listener = site.start(two, listen=4)
    site.finish(one, site.start(one, listen=0))
    site.finish(two, listener)
    figures = site.running.wait_until(lambda now: now["mtftp.running"] == 0)
    assert (figures["mtftp_outcome.ok"], figures["mtftp.passes"]) == (2, 2)
