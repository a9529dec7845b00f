"""TFTP by multicast (RFC 2090) on a real network: atftp, several at once on one bridge, beside clients of unicast."""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pxed.config import Mtftp
from support.netns import Namespace, Net
from support.tftp_service import Running

pytestmark = pytest.mark.root

PATIENCE = 120
DATA = random.Random(6).randbytes(4_000_001)
CLIENTS = 6
GET = ["--option", "multicast", "--option", "blksize 1428", "-g", "-r", "file", "-l", "out", "10.78.0.1"]


class Site:
    """A server and clients on one bridge; all files in one folder per client."""

    def __init__(self, net: Net, tmp_path: Path, clients: int = CLIENTS) -> None:
        root = tmp_path / "root"
        root.mkdir()
        (root / "file").write_bytes(DATA)
        switch = net.namespace("switch")
        self.server = net.namespace("server")
        self.clients = [net.namespace(f"client {i}") for i in range(clients)]
        ports = []
        for i, host in enumerate([self.server, *self.clients]):
            net.link(host, "eth0", switch, f"port{i}")
            host.address("eth0", f"10.78.0.{i + 1}/24")
            host.run("ip", "route", "add", "239.0.0.0/8", "dev", "eth0")
            ports.append(f"port{i}")
        net.bridge(switch, "bridge", *ports)
        self._folder = tmp_path
        with self.server:
            self.running = Running(root, ("10.78.0.1",), threads=2, port=69, mtftp=Mtftp(enabled=True))

    def lose(self, client: Namespace, per_mille: int) -> None:
        """Drop so many of the datagrams that reach a client."""
        rule = f"udp sport != 53 numgen random mod 1000 < {per_mille} drop"
        client.run(
            "nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c " + rule
        )

    def folder(self, client: Namespace) -> Path:
        path = self._folder / client.name
        path.mkdir(exist_ok=True)
        return path

    def start(self, client: Namespace, *command: str) -> "subprocess.Popen[bytes]":
        """A client that writes to `out` in its folder."""
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        return subprocess.Popen(
            [*client.prefix, *command],
            cwd=self.folder(client),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def atftp(self, client: Namespace) -> "subprocess.Popen[bytes]":
        return self.start(client, "atftp", *GET)

    def finish(self, client: Namespace, process: "subprocess.Popen[bytes]") -> None:
        """It ends well, with the right bytes."""
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert (self.folder(client) / "out").read_bytes() == DATA, said

    def sent(self) -> int:
        """Bytes that left the server."""
        (link,) = json.loads(self.server.run("ip", "-json", "-statistics", "link", "show", "dev", "eth0"))
        return int(link["stats64"]["tx"]["bytes"])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # A file of this very moment is read anew for each client, and such groups are of one client each.
    monkeypatch.setattr("pxed.service.blobs.RACY_SECONDS", 0)
    with Net() as net:
        site = Site(net, tmp_path)
        yield site
        site.running.stop()


def test_six_clients_take_one_stream(site: Site) -> None:
    before = site.sent()
    processes = [site.atftp(client) for client in site.clients]
    for client, process in zip(site.clients, processes, strict=True):
        site.finish(client, process)
    figures = site.running.wait_until(lambda now: now["multicast.outcome.ok"] == CLIENTS)
    assert (figures["outcome.moved"], figures["multicast.deaf"], figures["multicast.running"]) == (CLIENTS, 0, 0)
    assert site.sent() - before < 3 * len(DATA)
    assert len(site.running.names.delivered_names) == CLIENTS


def test_losses_are_repaired(site: Site) -> None:
    for client in site.clients:
        site.lose(client, 10)
    processes = [site.atftp(client) for client in site.clients]
    for client, process in zip(site.clients, processes, strict=True):
        site.finish(client, process)


def test_a_killed_master_does_not_stop_the_others(site: Site) -> None:
    first, *others = site.clients
    site.lose(first, 20)  # each loss costs 50 ms: it is still there when the others have come
    master = site.atftp(first)
    site.running.wait_until(lambda now: now["multicast.bytes"] > 0)
    processes = [site.atftp(client) for client in others]
    site.running.wait_until(lambda now: now["multicast.running"] == CLIENTS or now["multicast.outcome.ok"] > 0)
    master.kill()
    master.communicate()
    for client, process in zip(others, processes, strict=True):
        site.finish(client, process)


def test_a_client_that_no_multicast_reaches_has_its_file(site: Site) -> None:
    """A switch that drops the group, or iPXE: unicast after a second, and the others go on."""
    deaf, *others = site.clients[:3]
    deaf.run("nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; "
             "add rule ip t c ip daddr 224.0.0.0/4 drop")  # fmt: skip
    processes = [site.start(deaf, "atftp", "--tftp-timeout", "1", *GET)]
    site.running.wait_until(lambda now: now["multicast.bytes"] > 0)
    processes += [site.atftp(client) for client in others]
    for client, process in zip([deaf, *others], processes, strict=True):
        site.finish(client, process)
    assert site.running.statistics()["multicast.deaf"] == 1


def test_clients_of_unicast_are_untouched(site: Site) -> None:
    one, two, three, four, five, *_ = site.clients
    processes = [
        site.start(one, "curl", "-sS", "-o", "out", "tftp://10.78.0.1/file"),
        site.start(two, "atftp", "--option", "blksize 1428", "-g", "-r", "file", "-l", "out", "10.78.0.1"),
        site.atftp(three),
        site.start(four, "tftp", "-m", "octet", "10.78.0.1", "-c", "get", "file", "out"),
        site.start(five, "busybox", "tftp", "-g", "-b", "1432", "-r", "file", "-l", "out", "10.78.0.1"),
    ]
    for client, process in zip(site.clients, processes, strict=False):
        site.finish(client, process)
    figures = site.running.wait_until(lambda now: now["multicast.outcome.ok"] == 1 and now["outcome.ok"] == 4)
    assert figures["multicast.joined"] == 1


def test_a_file_of_too_many_blocks_goes_by_unicast(site: Site) -> None:
    client = site.clients[0]
    (site.running.root / "long").write_bytes(bytes(65536 * 8))
    options = ["--option", "multicast", "--option", "blksize 8"]
    process = site.start(client, "atftp", *options, "-g", "-r", "long", "-l", "out", "10.78.0.1")
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert site.running.wait_until(lambda now: now["outcome.ok"] == 1)["multicast.joined"] == 0


def test_where_multicast_serves_as_many_as_it_can_the_others_get_unicast(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forges requests and answers can keep multicast from others, and not their files."""
    monkeypatch.setattr("pxed.service.tftp.MEMBERS", 1)
    one, two = site.clients[:2]
    site.lose(one, 20)
    first = site.atftp(one)
    site.running.wait_until(lambda now: now["multicast.running"] == 1)
    site.finish(two, site.atftp(two))
    site.finish(one, first)
    figures = site.running.wait_until(lambda now: now["multicast.outcome.ok"] + now["outcome.ok"] == 2)
    assert figures["multicast.joined"] == 1
    site.finish(two, site.atftp(two))  # there is room again
    assert site.running.statistics()["multicast.joined"] == 2


def test_what_runs_is_listed_whoever_sends_it(site: Site) -> None:
    client = site.clients[0]
    site.lose(client, 100)
    process = site.atftp(client)
    site.running.wait_until(lambda now: now["multicast.bytes"] > 0)
    [(by, one)] = site.running.call(site.running.service.transfers(10))
    assert (by, one.peer[0], one.name, one.state) == ("multicast", "10.78.0.2", "file", "sending")
    client.run("nft", "flush", "ruleset")
    with capture_logs() as logs:
        site.finish(client, process)
        site.running.wait_until(lambda _: bool(site.running.names.delivered_names))
    [line] = [entry for entry in logs if entry["event"] == "tftp transfer"]
    assert (line["by"], line["outcome"]) == ("multicast", "ok")
