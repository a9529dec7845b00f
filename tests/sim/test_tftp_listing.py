"""What runs, as the sender tells it: figures of each transfer, some at a time."""

from pathlib import Path

from pytest import approx

from pxed._ext.blob import Blob
from pxed._ext.tftp_events import Finished, Listing, Progress
from pxed._ext.tftp_figures import STATE_NAMES
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import ack, error, rrq

PEER = ("10.0.0.7", 2070)
FILE = bytes(10_000)


def listing(server: VirtualTftp, first: int = 0, now: float = 0.0) -> Listing:
    """The answer to one question, which must be the only event."""
    server.ask_listing(first, now)
    (answer,) = server.events()
    assert isinstance(answer, Listing)
    return answer


def begun(server: VirtualTftp, peer: tuple[str, int], now: float = 0.0, **options: int) -> None:
    """A transfer whose first packet has left."""
    server.receive(rrq("boot.efi", **options), peer, now)
    (request,) = server.events()
    server.send(request.id, Blob(FILE), now)
    server.drain(now)


def test_nothing_runs() -> None:
    assert listing(VirtualTftp()) == Listing([], 0)


def test_figures_of_a_transfer() -> None:
    server = VirtualTftp()
    begun(server, PEER, blksize=1000, windowsize=4)
    (waiting,) = listing(server, now=0.25).transfers
    assert waiting == Progress(waiting.id, PEER, "boot.efi", "options", 0, 10_000, 0.25, 0.25, 0, None, 1000, 4, 4)
    server.receive(ack(0), PEER, 0.5)
    server.drain(0.5)
    server.receive(ack(4), PEER, 0.6)
    (running,) = listing(server, now=1.0).transfers
    assert running._replace(rtt=None) == waiting._replace(state="sending", bytes=4000, seconds=1.0, quiet=approx(0.4))
    assert 0.1 < running.rtt < 0.5


def test_before_the_control_plane_has_answered() -> None:
    server = VirtualTftp()
    server.receive(rrq("boot.efi"), PEER, 0.0)
    server.events()
    (asked,) = listing(server, now=2.0).transfers
    assert (asked.state, asked.name, asked.size, asked.bytes) == ("asked", "boot.efi", 0, 0)


def test_more_than_one_answer_holds() -> None:
    server = VirtualTftp()
    peers = {(f"10.0.{number // 250}.{number % 250}", 2070) for number in range(700)}
    for peer in peers:
        begun(server, peer)
    seen, first = [], 0
    for turn in range(3):
        answer = listing(server, first)
        assert len(answer.transfers) == (256, 256, 188)[turn]
        assert bool(answer.after) == (turn < 2)
        seen += [progress.peer for progress in answer.transfers]
        first = answer.after
    assert len(seen) == len(peers)
    assert set(seen) == peers


def test_place_that_is_not_there() -> None:
    server = VirtualTftp()
    begun(server, PEER)
    assert listing(server, 1 << 60) == Listing([], 0)


def test_ended_transfers_are_not_told() -> None:
    server = VirtualTftp()
    begun(server, PEER)
    server.receive(error(0), PEER, 0.1)
    server.events()
    assert listing(server).transfers == []


def test_end_tells_size_flow_and_the_first_acknowledgement() -> None:
    server = VirtualTftp()
    begun(server, PEER, blksize=1000, windowsize=4)
    server.receive(ack(0), PEER, 0.5)
    server.drain(0.5)
    server.receive(error(0), PEER, 0.75)
    (end,) = server.events()
    assert isinstance(end, Finished)
    assert (end.size, end.blksize, end.windowsize, end.burst, end.answered) == (10_000, 1000, 4, 4, 0.5)


def test_end_without_an_answer() -> None:
    server = VirtualTftp()
    server.receive(rrq("missing"), PEER, 0.0)
    (request,) = server.events()
    server.refuse(request.id, 1, "file not found", 0.1)
    (end,) = server.events()
    assert isinstance(end, Finished)
    assert (end.outcome, end.size, end.answered) == ("refused", 0, None)


def test_every_state_has_a_name() -> None:
    text = (Path(__file__).parents[2] / "ext/pxed/_ext/tftp_table.pxd").read_text()
    enumeration = text.partition("cdef enum State:\n")[2].partition("\n\n")[0]
    states = [line.split()[0] for line in enumeration.splitlines() if line.strip().startswith("STATE_")]
    assert [f"STATE_{name.upper().replace('-', '_')}" for name in STATE_NAMES] == states
