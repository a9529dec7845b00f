"""What a packet costs in the TFTP sender, without sockets: `pytest benchmarks/bench_sender.py --benchmark-only`.

Through `tftp_virtual`, which makes Python objects of every datagram: an upper bound, of use for comparing versions and
for seeing that the cost does not grow with the number of transfers. Per packet: divide by `packets` in the extra info.
How fast the whole is, sockets included, is what `pxed bench tftp --lab` measures.
"""

import pytest

from pxed._ext.blob import Blob
from pxed._ext.tftp_events import Request
from pxed._ext.tftp_virtual import VirtualTftp
from pxed._ext.timers import TimerWheel
from support.tftp_sim import ack, number, rrq

BLOCKS = 1000
BLKSIZE = 1408
FILE = bytes(BLOCKS * BLKSIZE)
TIMERS = 10_000
JOINING = 1000  # clients at a time: a sender bears only so many that have not answered yet


def peer_of(index: int) -> tuple[str, int]:
    """An address of its own for each client, spread over many networks."""
    return f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}", 2070


class Storm:
    """A sender with many transfers under way; nobody's time runs."""

    def __init__(self, clients: int, windowsize: int) -> None:
        options = {"blksize": BLKSIZE} | ({"windowsize": windowsize} if windowsize > 1 else {})
        self.server = VirtualTftp(seed=1, limit=clients + 10, places=clients + 10)
        self.peers = [peer_of(index + 1) for index in range(clients)]
        self.acknowledged = dict.fromkeys(self.peers, 0)
        self._blob, self._request = Blob(FILE), rrq("f", **options)
        for first in range(0, clients, JOINING):
            self._join(self.peers[first : first + JOINING])

    def _join(self, peers: list[tuple[str, int]]) -> None:
        """From the request to the first window."""
        for peer in peers:
            self.server.receive(self._request, peer, 1.0)
        for event in self.server.events():
            assert isinstance(event, Request)
            self.server.send(event.id, self._blob, 1.0)
        assert len(self.server.drain(1.0)) == len(peers)
        self.turn(peers)

    def turn(self, peers: list[tuple[str, int]]) -> int:
        """Each of these acknowledges what it has, and gets the next window; the datagrams both ways."""
        for peer in peers:
            self.server.receive(ack(self.acknowledged[peer]), peer, 1.0)
        sent = self.server.drain(1.0)
        for peer, datagram in sent:
            self.acknowledged[peer] = number(datagram)
        return len(peers) + len(sent)


@pytest.mark.parametrize("windowsize", [1, 16])
def test_one_transfer(benchmark, windowsize):
    def whole():
        storm = Storm(1, windowsize)
        total = 0
        while storm.acknowledged[storm.peers[0]] < BLOCKS:
            total += storm.turn(storm.peers)
        return total

    benchmark.extra_info["packets"] = benchmark(whole)


@pytest.mark.parametrize("clients", [100, 10_000])
def test_a_turn_of_a_hundred_among(benchmark, clients):
    """Lock-step: an ACK comes in, a block goes out, whoever else is being served."""
    storm = Storm(clients, 1)
    hundred = storm.peers[:: clients // 100]
    # One more round would be past the end of the file.
    benchmark.extra_info["packets"] = benchmark.pedantic(storm.turn, (hundred,), rounds=400, warmup_rounds=20)


def test_timer_wheel(benchmark):
    """10,000 timers that are set, moved and, half of them, cancelled."""

    def life():
        wheel = TimerWheel()
        for key in range(TIMERS):
            wheel.arm(key, 1.0 + key / TIMERS)
        for key in range(TIMERS):
            wheel.arm(key, 2.0 + key / TIMERS)
        for key in range(0, TIMERS, 2):
            wheel.cancel(key)
        return len(wheel.expired(10.0))

    assert benchmark(life) == TIMERS // 2
