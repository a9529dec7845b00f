"""TFTP through real sockets when there is too much of everything: floods, forged addresses, narrow lines, windows."""

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.environment import PXED
from pxed._ext.tftp_load import Load
from pxed.config import parse
from pxed.service.rates import Rates
from support.netns import Daemon, Namespace, Net
from support.tftp_service import Running
from support.tftp_sim import ack, error, rrq

pytestmark = pytest.mark.root

FILE = random.Random(8).randbytes(400_000)
CLIENTS = 100
# Long enough for the flood to be over before the transfers are.
RATE = "160Mbit"
GARBAGE, HALF_OPEN = 15_000, 15_000
# What a server may grow by: a table of 20,000 transfers of 1 KiB each, the control plane's requests that are under way,
# log lines, and what the allocators keep.
GROWTH = 64 << 20
IP_PKTINFO = 8


def limited(rate: str) -> Rates:
    return Rates(parse(f'[server]\naddress = "127.0.0.1"\n[tftp]\nroot = "/srv"\nrate = "{rate}"\n'))


class Site:
    """`pxed serve` in a namespace of its own; in another one 65,000 addresses to speak from."""

    def __init__(self, client: Namespace, server: Daemon) -> None:
        self.client, self.server = client, server

    def resident(self) -> int:
        """Bytes of memory that the server has."""
        return int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1]) * 4096

    def storm(self) -> list[tuple[str, int]]:
        """100 clients with an address each read the file; (outcome, detail) of each."""
        with self.client:
            load = Load(CLIENTS, "10.1.0.1", 69, "file", FILE, first_address="10.2.0.1", blksize=1408, patience=60.0)
        try:
            _, transfers, _ = load.run()
        finally:
            load.close()
        return [(transfer[0], transfer[1]) for transfer in transfers]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(FILE)
    config = tmp_path / "pxed.toml"
    config.write_text(
        f'[server]\naddress = "10.1.0.1"\nstate_dir = "{tmp_path}/state"\nsocket = "{tmp_path}/socket"\n'
        f'[dhcp]\nenabled = false\n[tftp]\nroot = "{tmp_path}/root"\nrate = "{RATE}"\nthreads = 1\n'
    )
    with Net() as net:
        server, client = net.namespace("server"), net.namespace("client")
        net.link(server, "eth0", client, "eth0")
        server.address("eth0", "10.1.0.1/24")
        client.address("eth0", "10.1.0.2/24")
        client.address("lo", "10.2.0.0/16")
        server.run("ip", "route", "add", "10.2.0.0/16", "via", "10.1.0.2")
        daemon = server.daemon(str(PXED), "--config", str(config), "serve")
        daemon.wait_for("pxed is ready")
        yield Site(client, daemon)


def forged(number: int) -> bytes:
    """The control message that makes a datagram leave from the address with this number."""
    address = socket.inet_aton(f"10.2.{128 + (number >> 8) % 128}.{number % 256}")
    return struct.pack("=i4s4s", 0, address, b"\0\0\0\0")


def flood(site: Site, stop: threading.Event, done: list[int]) -> None:
    """Garbage and half-open requests in turn, from addresses that never react; a bounded number."""
    rng = random.Random(4)
    with site.client:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    garbage = [rng.randbytes(rng.randrange(1, 600)) for _ in range(200)]
    garbage += [b"", b"\0\3\0\1x", b"\0\6a\0", ack(7), error(1, "no"), b"\0\1f\0octet", b"x" * 3000]
    requests = [rrq("file"), rrq("file", blksize=1468), rrq("file", tsize=0, windowsize=64), rrq("nothing")]
    with sock:
        for i in range(max(GARBAGE, HALF_OPEN)):
            if stop.is_set():
                break
            for datagram in (garbage[i % len(garbage)], requests[i % len(requests)]):
                try:
                    sock.sendmsg([datagram], [(socket.IPPROTO_IP, IP_PKTINFO, forged(i))], 0, ("10.1.0.1", 69))
                except OSError:  # an ICMP error for an answer, or a full queue
                    continue
                done[0] += 1


def test_a_flood_during_a_hundred_transfers_costs_none_of_them(site: Site) -> None:
    """Every byte of the hundred is compared; the server's memory is bounded, and so is what it says."""
    assert site.storm() == [("good", 0)] * CLIENTS
    before = site.resident()
    stop, sent = threading.Event(), [0]
    thread = threading.Thread(target=flood, args=(site, stop, sent))
    thread.start()
    outcomes = site.storm()
    stop.set()
    thread.join()
    assert outcomes == [("good", 0)] * CLIENTS
    assert sent[0] > 1_000
    assert site.resident() - before < GROWTH
    lines = site.server.rest()
    dropped = [line for line in lines if "datagrams without an answer" in line]
    assert {"malformed", "opcode"} <= {line.split('"reason": "')[1].split('"')[0] for line in dropped}
    for reason in ("malformed", "opcode", "busy", "stranger", "too-long"):
        assert sum(f'"reason": "{reason}"' in line for line in dropped) <= 2, reason
    assert len(lines) < 2 * CLIENTS + 500  # a line for each of the transfers, and at most 60 a minute of a kind


def test_little_goes_to_an_address_that_never_reacts(site: Site) -> None:
    """Counted where it arrives: three datagrams for a request, one second and two seconds apart or more."""
    with site.client:
        victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    request = rrq("file", blksize=1468, tsize=0)
    with victim:
        victim.bind(("10.2.7.7", 0))
        victim.sendto(request, ("10.1.0.1", 69))
        times, total = [], 0
        for patience in (10, 10, 10, 3.5):  # the fourth does not come: it would be due 4 s after the third
            victim.settimeout(patience)
            try:
                total += len(victim.recv(2048))
            except TimeoutError:
                break
            times.append(time.monotonic())
    assert len(times) == 3
    assert times[1] - times[0] > 0.5
    assert times[2] - times[1] > 1.0
    assert total <= 3 * len(request)


# -- narrow lines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "file").write_bytes(FILE[:100_000])
    running = Running(tmp_path, ("127.0.0.1",), rates=limited("40Mbit"))
    yield running
    running.stop()


def play(load: Load, results: dict[str, list[float]], name: str) -> None:
    _, transfers, _ = load.run()
    assert all(transfer[0] == "good" for transfer in transfers), transfers
    results[name] = [transfer[2] for transfer in transfers]


def test_a_window_does_not_starve_lock_step(narrow: Running) -> None:
    """One client with a window of 64 and 99 without share a full line: each gets its file, every byte compared.

    How fair the shares are is seen in virtual time: here a busy machine may leave the line idle at times.
    """
    loads = {
        "window": Load(1, "127.0.0.1", narrow.port, "file", FILE[:100_000], blksize=1408, windowsize=64),
        "lock-step": Load(99, "127.0.0.1", narrow.port, "file", FILE[:100_000], blksize=1408),
    }
    results: dict[str, list[float]] = {}
    threads = [threading.Thread(target=play, args=(load, results, name)) for name, load in loads.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for load in loads.values():
        load.close()
    assert len(results["lock-step"]) == 99
    assert len(results["window"]) == 1
    assert narrow.statistics()["paced"] > 0


def test_a_rate_is_kept(narrow: Running) -> None:
    """By the server's own count: never more than the rate allows, on any machine; and everybody is served."""
    load = Load(50, "127.0.0.1", narrow.port, "file", FILE[:100_000], blksize=1408, windowsize=8)
    results: dict[str, list[float]] = {}
    thread = threading.Thread(target=play, args=(load, results, "all"))
    began = time.monotonic()
    first = narrow.statistics()["bytes"]
    thread.start()
    thread.join()
    sent = narrow.statistics()["bytes"] - first
    seconds = time.monotonic() - began
    load.close()
    assert len(results["all"]) == 50
    assert sent >= 50 * 100_000
    assert sent <= 5_000_000 * seconds + 40_000
    assert narrow.statistics()["paced"] > 0


def test_a_slow_interface_holds_up_no_other(tmp_path: Path) -> None:
    """One thread, two lines: the fast one's clients are done while the slow one's wait; and a reload frees them."""
    (tmp_path / "file").write_bytes(FILE)
    text = '[server]\naddress = "127.0.0.1"\nrates = {{ slow = "{rate}" }}\n[tftp]\nroot = "/srv"\n'
    names = {"127.0.0.1": "slow", "127.0.0.2": "fast"}
    rates = Rates(parse(text.format(rate="200kbit")), interface_of=lambda address: names[address])
    running = Running(tmp_path, tuple(names), rates=rates)
    try:
        slow, fast = (
            Load(10, address, port, "file", FILE, blksize=1408, patience=120.0)
            for address, port in running.service.bound
        )
        results: dict[str, list[float]] = {}
        thread = threading.Thread(target=play, args=(slow, results, "slow"))
        thread.start()
        running.wait_until(lambda now: now["paced"] > 0)
        play(fast, results, "fast")
        assert "slow" not in results  # 4 MB at 25 kB/s
        rates.configure(parse(text.format(rate="10Gbit")))
        thread.join()
        assert len(results["slow"]) == 10
        slow.close()
        fast.close()
    finally:
        running.stop()


def test_a_crowd_beyond_the_places(tmp_path: Path) -> None:
    """300 clients, 20 places: all are served, most after a wait, nobody twice."""
    (tmp_path / "file").write_bytes(FILE[:100_000])
    config = parse('[server]\naddress = "127.0.0.1"\n[tftp]\nroot = "/srv"\nrunning = 20\n')
    running = Running(tmp_path, ("127.0.0.1",), threads=2, rates=Rates(config))
    try:
        load = Load(300, "127.0.0.1", running.port, "file", FILE[:100_000], blksize=1432)
        results: dict[str, list[float]] = {}
        play(load, results, "all")
        load.close()
        figures = running.wait_until(lambda now: now["outcome.ok"] == 300)
        assert figures["places"] == 20
        assert figures["admitted_at_once"] + figures["admitted_later"] >= 300
        assert figures["admitted_later"] > 0
        assert figures["waiting"] == figures["served"] == 0
    finally:
        running.stop()
