"""TFTP transfers in virtual time: each rule of tftp_sender.pyx, and firmware's manners over bad networks."""

import itertools
import random

import pytest

from pxed._ext.blob import Blob
from pxed._ext.tftp import build_oack
from pxed._ext.tftp_events import Finished, Request
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import (
    Client,
    Grub,
    Simulation,
    ack,
    error,
    is_data,
    number,
    options_of,
    rrq,
)

PEER = ("10.0.0.7", 2070)
FILE = random.Random(7).randbytes(200_000)


class Scripted:
    """A server and one client whose every packet the test says. Times are whatever the test says, too."""

    def __init__(self, data: bytes = FILE, peer: tuple[str, int] = PEER) -> None:
        self.server = VirtualTftp()
        self.data, self.peer = data, peer

    def say(self, datagram: bytes, now: float = 0.0) -> list[bytes]:
        """What the server answers at once."""
        self.server.receive(datagram, self.peer, now)
        return self.replies(now)

    def replies(self, now: float) -> list[bytes]:
        self.server.on_timer(now)
        for event in self.server.events():
            if hasattr(event, "mode"):
                self.server.send(event.id, Blob(self.data), now)
            else:
                self.finished = event
        datagrams = self.server.drain(now)
        assert all(peer == self.peer for peer, _ in datagrams)
        return [datagram for _, datagram in datagrams]

    def drops(self) -> dict[str, int]:
        """The drop counters that are not zero."""
        found = self.server.statistics()
        return {key.removeprefix("drop."): found[key] for key in found if key.startswith("drop.") and found[key]}


def data_block(data: bytes, block: int, size: int) -> bytes:
    return b"\0\3" + (block % 65536).to_bytes(2, "big") + data[(block - 1) * size : block * size]


# -- requests and options ------------------------------------------------------------------------------------------


def test_no_options_data_at_once() -> None:
    client = Scripted()
    assert client.say(rrq("f")) == [data_block(FILE, 1, 512)]
    assert client.say(ack(1)) == [data_block(FILE, 2, 512)]


def test_unknown_options_alone_mean_data_at_once() -> None:
    assert Scripted().say(rrq("f", multicast="", rollover=0)) == [data_block(FILE, 1, 512)]


def test_multicast_is_left_out_of_the_oack() -> None:
    """RFC 2090 by RFC 2347's rule: who is not granted the option is served alone."""
    assert Scripted().say(rrq("f", multicast="")) == [data_block(FILE, 1, 512)]
    assert Scripted().say(rrq("f", multicast="", tsize=0)) == [build_oack(tsize=len(FILE))]


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({"blksize": 1432}, {"blksize": 1432}),
        ({"blksize": 8}, {"blksize": 8}),
        ({"blksize": 65464}, {"blksize": 1468}),
        ({"blksize": 1469}, {"blksize": 1468}),
        ({"BlkSize": 1000}, {"blksize": 1000}),
        ({"tsize": 0}, {"tsize": len(FILE)}),
        ({"timeout": 5}, {"timeout": 5}),
        ({"windowsize": 4}, {"windowsize": 4}),
        ({"windowsize": 65535}, {"windowsize": 64}),
        ({"blksize": 1468, "unknown": 1, "tsize": 0}, {"blksize": 1468, "tsize": len(FILE)}),
        ({"timeout": 0, "windowsize": 0, "blksize": 7, "tsize": 0}, {"tsize": len(FILE)}),
        ({"timeout": 256, "windowsize": 65536, "blksize": "x", "tsize": 0}, {"tsize": len(FILE)}),
    ],
)
def test_oack_holds_the_accepted_options_only(asked: dict[str, int | str], granted: dict[str, int]) -> None:
    replies = Scripted().say(rrq("f", **asked))
    assert len(replies) == 1
    assert replies[0][:2] == b"\0\6"
    assert options_of(replies[0]) == granted


def test_ipv6_block_is_smaller() -> None:
    replies = Scripted(peer=("2001:db8::7", 2070)).say(rrq("f", blksize=1468))
    assert options_of(replies[0]) == {"blksize": 1428}


def test_write_request_is_refused_in_words() -> None:
    client = Scripted()
    assert client.say(b"\0\2f\0octet\0") == [error(2, "pxed does not accept files")]
    assert client.server.statistics()["running"] == 0


@pytest.mark.parametrize("mode", ["mail", "binary"])
def test_other_modes_are_refused(mode: str) -> None:
    replies = Scripted().say(rrq("f", mode))
    assert replies == [error(4, "only the modes octet and netascii are supported")]


@pytest.mark.parametrize("mode", ["octet", "OCTET", "NetASCII"])
def test_modes_regardless_of_case(mode: str) -> None:
    assert is_data(Scripted().say(rrq("f", mode))[0])


def test_refusal_is_one_error_and_the_end() -> None:
    server = VirtualTftp()
    server.receive(rrq("f"), PEER, 0)
    (request,) = server.events()
    server.refuse(request.id, 1, "file not found", 0)
    assert server.drain(0) == [(PEER, error(1, "file not found"))]
    (finished,) = server.events()
    assert (finished.outcome, finished.name, finished.error) == ("refused", "f", "1 file not found")
    assert server.next_timer() is None


def test_request_event_says_what_was_asked() -> None:
    server = VirtualTftp()
    server.receive(rrq("dir\\file", "netascii", blksize=1000, tsize=0), PEER, 0, "10.0.0.1")
    (request,) = server.events()
    assert (request.peer, request.local_address, request.name) == (PEER, "10.0.0.1", "dir\\file")
    assert (request.mode, request.options) == ("netascii", {"blksize": 1000, "tsize": 0})


# -- lock-step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 5000])
def test_last_block_is_short_or_empty(size: int) -> None:
    client = Scripted(FILE[:size])
    replies = client.say(rrq("f"))
    received = b""
    for block in range(1, size // 512 + 2):
        assert replies == [data_block(client.data, block, 512)]
        received += replies[0][4:]
        replies = client.say(ack(block))
    assert replies == []
    assert received == client.data
    assert (client.finished.outcome, client.finished.bytes) == ("ok", size)
    assert client.finished.blocks == size // 512 + 1


def test_duplicate_ack_is_never_answered() -> None:
    """The Sorcerer's Apprentice (RFC 1123 section 4.2.3.1)."""
    client = Scripted()
    client.say(rrq("f"))
    assert client.say(ack(1)) == [data_block(FILE, 2, 512)]
    for _ in range(5):
        assert client.say(ack(1), 0.01) == []
    assert client.say(ack(0), 0.01) == []
    assert client.say(ack(3), 0.01) == []  # never sent
    assert client.drops() == {"stale-ack": 7}
    assert client.say(ack(2), 0.01) == [data_block(FILE, 3, 512)]


def test_repeated_request_is_merged() -> None:
    client = Scripted()
    assert len(client.say(rrq("f"))) == 1
    for now in (0.25, 0.75):
        assert client.say(rrq("f"), now) == []
    assert client.drops() == {"merged": 2}


def test_request_repeated_before_the_control_plane_answers() -> None:
    server = VirtualTftp()
    for now in (0.0, 0.25, 0.75):
        server.receive(rrq("f"), PEER, now)
    (request,) = server.events()
    server.send(request.id, Blob(b"x"), 1)
    assert len(server.drain(1)) == 1


def test_same_port_asks_for_something_else() -> None:
    client = Scripted()
    client.say(rrq("f"))
    client.say(ack(1))
    assert client.say(rrq("g", tsize=0), 0.001)[0][:2] == b"\0\6"
    assert client.finished.outcome == "superseded"


def test_machine_that_restarts_with_the_same_port_starts_over() -> None:
    """ROMs use a fixed port: after a power cycle in mid-transfer the same request means a new one."""
    client = Scripted()
    client.say(rrq("f"))
    client.say(ack(1), 0.001)
    assert client.say(rrq("f"), 0.002) == []  # a late duplicate
    assert data_block(FILE, 1, 512) in client.say(rrq("f"), 20)
    assert client.finished.outcome == "superseded"


def test_block_numbers_wrap_to_zero() -> None:
    data = random.Random(1).randbytes(8 * 65540 + 3)
    simulation = Simulation({"f": data})

    class Small(Client):
        options = {"blksize": 8}  # noqa: RUF012

    client = simulation.add(Small("f", PEER))
    simulation.run()
    assert bytes(client.received) == data
    assert client.blocks == 65541
    assert simulation.finished[0].blocks == 65541


# -- time --------------------------------------------------------------------------------------------------------------


def times_of_replies(client: Scripted, until: float) -> list[float]:
    """When the server sends something by itself."""
    times = []
    while (at := client.server.next_timer()) is not None and at <= until:
        if client.replies(at):
            times.append(round(at, 2))
    return times


def test_unanswered_request_gets_three_datagrams_with_back_off() -> None:
    client = Scripted()
    assert len(client.say(rrq("f", tsize=0))) == 1
    assert times_of_replies(client, 100) == pytest.approx([1, 3], abs=0.05)
    assert client.finished.outcome == "no-answer"
    assert client.finished.seconds == pytest.approx(20, abs=0.05)
    assert client.server.statistics()["datagrams"] == 3


def test_unanswered_request_without_options_gets_three_datagrams() -> None:
    client = Scripted()
    client.say(rrq("f"))
    assert times_of_replies(client, 100) == pytest.approx([1, 3], abs=0.05)
    assert client.finished.outcome == "no-answer"


def test_answer_to_the_last_of_the_three_may_come_late() -> None:
    """EDK2 repeats its ACK every 4 s; the first three were lost."""
    client = Scripted()
    client.say(rrq("f", tsize=0))
    times_of_replies(client, 10)
    assert client.say(ack(0), 11) == [data_block(FILE, 1, 512)]


def test_request_repeated_after_the_three_begins_again() -> None:
    client = Scripted()
    client.say(rrq("f", tsize=0))
    times_of_replies(client, 10)
    assert len(client.say(rrq("f", tsize=0), 11)) == 1
    assert client.finished.outcome == "no-answer"


def test_client_names_the_first_timeout() -> None:
    client = Scripted()
    client.say(rrq("f", timeout=3))
    assert times_of_replies(client, 100) == pytest.approx([3, 6], abs=0.05)


def test_timeout_follows_the_round_trip() -> None:
    """After a round trip of 200 ms the first retransmission comes after 200 + 4 * 100 ms, then twice that."""
    client = Scripted()
    client.say(rrq("f", tsize=0))
    client.say(ack(0), 0.2)
    assert times_of_replies(client, 2.5) == pytest.approx([0.8, 2.0], abs=0.02)


def test_timeout_has_a_floor() -> None:
    """A fast LAN does not make us resend to a client that is printing a dot."""
    client = Scripted()
    client.say(rrq("f"))
    now = 0.0
    for block in range(1, 50):
        now += 0.0001
        client.say(ack(block), now)
    assert times_of_replies(client, 0.3) == pytest.approx([0.055, 0.155], abs=0.011)


def test_no_round_trip_is_measured_on_a_repeated_block() -> None:
    """Karn: the ACK 10 s after the third sending may answer the first."""
    client = Scripted()
    client.say(rrq("f"))
    times_of_replies(client, 3.5)
    client.say(ack(1), 3.6)
    assert times_of_replies(client, 5.5) == []  # still backed off to 2 s


def test_silent_client_is_given_up() -> None:
    client = Scripted()
    client.say(rrq("f"))
    client.say(ack(1), 0.001)
    times = times_of_replies(client, 1000)
    assert client.finished.outcome == "timeout"
    assert 30 <= client.finished.seconds < 33
    assert len(times) < 25
    assert all(later - earlier < 2.1 for earlier, later in itertools.pairwise(times))


def test_missing_last_ack_is_success_after_a_linger() -> None:
    client = Scripted(FILE[:517])
    client.say(rrq("f", tsize=0))
    client.say(ack(0), 0.001)
    assert client.say(ack(1), 0.002) == [data_block(FILE[:517], 2, 512)]
    assert 4 <= len(times_of_replies(client, 100)) <= 9
    assert (client.finished.outcome, client.finished.bytes) == ("ok", 517)
    assert 6 <= client.finished.seconds < 13


@pytest.mark.parametrize(("size", "options"), [(300, {"tsize": 0}), (60_000, {"blksize": 1468, "windowsize": 64})])
def test_a_file_of_which_nothing_was_acknowledged_was_not_delivered(size: int, options: dict[str, int | str]) -> None:
    """All of it was sent in the first window, to a client that took the options and then fell silent."""
    client = Scripted(FILE[:size])
    client.say(rrq("f", **options))
    assert len(client.say(ack(0), 0.001)) == size // 1468 + 1
    assert len(times_of_replies(client, 1000)) < 25
    assert (client.finished.outcome, client.finished.bytes) == ("timeout", 0)
    assert 30 <= client.finished.seconds < 33


def test_only_the_last_window_is_taken_for_granted() -> None:
    client = Scripted(FILE[: 512 * 5 + 1])
    client.say(rrq("f", windowsize=4))
    client.say(ack(0), 0.001)
    client.say(ack(4), 0.002)
    times_of_replies(client, 1000)
    assert (client.finished.outcome, client.finished.bytes) == ("ok", 512 * 5 + 1)


def test_request_that_nobody_answers_is_dropped() -> None:
    server = VirtualTftp()
    server.receive(rrq("f"), PEER, 0)
    (request,) = server.events()
    server.on_timer(31)
    (finished,) = server.events()
    assert finished.outcome == "abandoned"
    server.send(request.id, Blob(b"late"), 32)
    assert server.drain(32) == []


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [8, 0])
def test_size_probe_is_not_an_error(code: int) -> None:
    client = Scripted()
    client.say(rrq("f", tsize=0, blksize=1468))
    assert client.say(error(code, "User aborted the transfer"), 0.001) == []
    assert client.finished.outcome == "probe"


def test_client_error_ends_it_without_an_answer() -> None:
    client = Scripted()
    client.say(rrq("f"))
    assert client.say(error(3, "disk full"), 0.001) == []
    assert (client.finished.outcome, client.finished.error) == ("client-error", "3 disk full")
    assert client.say(error(3, "disk full"), 0.001) == []
    assert client.drops() == {"unknown-peer": 1}


def test_grub_closes_in_the_middle() -> None:
    client = Scripted()
    client.say(rrq("f", tsize=0))
    client.say(ack(0), 0.001)
    client.say(ack(1), 0.002)
    assert client.say(error(0, "closed"), 0.003) == []
    assert (client.finished.outcome, client.finished.bytes) == ("closed", 512)


@pytest.mark.parametrize(("size", "options"), [(300, {"tsize": 0}), (60_000, {"blksize": 1468, "windowsize": 64})])
def test_closing_before_any_data_was_acknowledged_is_no_delivery(size: int, options: dict[str, int | str]) -> None:
    client = Scripted(FILE[:size])
    client.say(rrq("f", **options))
    client.say(ack(0), 0.001)
    client.say(error(0), 0.002)
    assert (client.finished.outcome, client.finished.bytes) == ("closed", 0)


def test_grub_closes_instead_of_the_last_ack() -> None:
    simulation = Simulation({"f": FILE})
    client = simulation.add(Grub("f", PEER))
    simulation.run()
    assert bytes(client.received) == FILE
    assert (simulation.finished[0].outcome, simulation.finished[0].bytes) == ("ok", len(FILE))


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "malformed"),
        (b"\0", "malformed"),
        (b"\0\4\0", "malformed"),
        (b"\0\5\0", "malformed"),
        (b"\0\1", "malformed"),
        (b"\0\1f", "malformed"),
        (b"\0\1f\0octet", "malformed"),
        (b"\0\2f\0", "malformed"),
        (b"\0\3\0\1data", "opcode"),
        (b"\0\6blksize\0512\0", "opcode"),
        (b"\xff\xff\xff\xff", "opcode"),
        (b"\0\4\0\1", "unknown-peer"),
        (b"\0\5\0\1no\0", "unknown-peer"),
    ],
)
def test_bad_datagrams_are_counted_and_get_no_answer(datagram: bytes, reason: str) -> None:
    client = Scripted()
    assert client.say(datagram) == []
    assert client.drops() == {reason: 1}


# -- windows -----------------------------------------------------------------------------------------------------------


def windowed(window: int = 4) -> Scripted:
    client = Scripted()
    client.say(rrq("f", windowsize=window))
    return client


def numbers(datagrams: list[bytes]) -> list[int]:
    assert all(is_data(datagram) for datagram in datagrams)
    return [number(datagram) for datagram in datagrams]


def test_window_goes_out_whole() -> None:
    client = windowed()
    assert numbers(client.say(ack(0), 0.001)) == [1, 2, 3, 4]
    assert numbers(client.say(ack(4), 0.002)) == [5, 6, 7, 8]


def test_window_goes_back_once_per_loss() -> None:
    """Block 2 of 1..4 is lost; EDK2 says ACK 1 for each of 3 and 4."""
    client = windowed()
    client.say(ack(0), 0.010)
    assert numbers(client.say(ack(1), 0.020)) == [2, 3, 4, 5]
    assert client.say(ack(1), 0.021) == []
    assert client.say(ack(1), 0.040) == []
    assert numbers(client.say(ack(5), 0.041)) == [6, 7, 8, 9]
    assert client.server.statistics()["go_backs"] == 1


def test_window_whose_first_block_is_lost() -> None:
    """ACK 4 again, while 5..8 are in flight, says that 5 is missing."""
    client = windowed()
    client.say(ack(0), 0.010)
    client.say(ack(4), 0.020)
    assert numbers(client.say(ack(4), 0.030)) == [5, 6, 7, 8]
    assert client.say(ack(4), 0.0301) == []
    assert client.say(ack(4), 0.0302) == []


def test_echoes_of_our_own_duplicates_are_ignored() -> None:
    """After a needless go-back the client answers each duplicate with an equal ACK."""
    client = windowed()
    client.say(ack(0), 0.010)
    client.say(ack(4), 0.020)
    client.say(ack(4), 0.030)  # a copy made by the network: 5..8 leave again
    assert numbers(client.say(ack(8), 0.031)) == [9, 10, 11, 12]
    for _ in range(4):
        assert client.say(ack(8), 0.05) == []


def test_client_that_acknowledges_every_block_does_not_multiply_traffic() -> None:
    client = windowed(16)
    sent = len(client.say(ack(0), 0.010))
    now = 0.010
    for block in range(1, 300):
        now += 0.0001
        sent += len(client.say(ack(block), now))
    assert sent < 2 * 320


def test_second_loss_in_the_resent_window() -> None:
    client = windowed()
    client.say(ack(0), 0.010)
    assert numbers(client.say(ack(1), 0.020)) == [2, 3, 4, 5]
    assert numbers(client.say(ack(3), 0.040)) == [4, 5, 6, 7]


def test_window_by_time() -> None:
    client = windowed()
    client.say(ack(0), 0.010)
    at = client.server.next_timer()
    assert at is not None
    assert numbers(client.replies(at + 0.1)) == [1, 2, 3, 4]


def test_last_window_is_short() -> None:
    client = Scripted(FILE[: 512 * 5 + 1])
    client.say(rrq("f", windowsize=4))
    client.say(ack(0), 0.001)
    assert numbers(client.say(ack(4), 0.002)) == [5, 6]
    assert client.say(ack(6), 0.003) == []
    assert client.finished.outcome == "ok"


# -- many --------------------------------------------------------------------------------------------------------------


def test_window_does_not_starve_lock_step() -> None:
    """One client with a window of 64 and 20 lock-step clients: everybody is in every round."""
    server = VirtualTftp()
    peers = [("10.0.0.1", 1000 + i) for i in range(21)]
    for i, peer in enumerate(peers):
        server.receive(rrq("f", windowsize=64) if i == 0 else rrq("f"), peer, 0)
    for request in server.events():
        server.send(request.id, Blob(FILE), 0)
    server.receive(ack(0), peers[0], 0)
    order = [peer for peer, _ in server.drain(0)]
    assert set(order[:40]) == set(peers)  # a turn of 16 blocks, then all the others


def test_transfers_beyond_the_limit_wait() -> None:
    server = VirtualTftp(limit=2)
    for port in (1, 2, 3):
        server.receive(rrq("f"), ("10.0.0.1", port), 0)
    assert len(server.events()) == 2
    assert server.statistics()["drop.busy"] == 1


def answer_all(server: VirtualTftp, now: float) -> list[str]:
    """The control plane answers; the outcomes of what ended."""
    events = server.events()
    for event in events:
        if isinstance(event, Request):
            server.send(event.id, Blob(FILE), now)
    server.drain(now)
    return [event.outcome for event in [*events, *server.events()] if isinstance(event, Finished)]


def test_a_flood_of_requests_does_not_shut_out_who_answers() -> None:
    """One host that never acknowledges keeps the table full; the others' transfers begin, run and end."""
    server = VirtualTftp(limit=100)
    ports = itertools.count(1000)
    outcomes = []

    def flood(now: float) -> None:
        for _ in range(50):
            server.receive(rrq("f"), ("10.6.6.6", next(ports)), now)
        outcomes.extend(answer_all(server, now))

    flood(0)
    flood(0.01)
    server.receive(rrq("f", blksize=1468), PEER, 0.02)
    outcomes += answer_all(server, 0.02)
    for block in range(len(FILE) // 1468 + 2):
        now = 0.02 + 0.01 * (block + 1)
        flood(now)
        server.receive(ack(block), PEER, now)
        outcomes += answer_all(server, now)
    figures = server.statistics()
    assert (figures["running"], figures["drop.busy"], figures["outcome.ok"]) == (99, 0, 1)
    assert set(outcomes) == {"evicted", "ok"}
    assert outcomes.count("evicted") == figures["requests"] - 100


def test_the_oldest_unheard_transfer_makes_room_first() -> None:
    """Whoever acknowledged anything stays, and so does who waits for the control plane."""
    server = VirtualTftp(limit=3)
    peers = [("10.0.0.1", port) for port in range(1, 8)]
    for peer in peers[:3]:
        server.receive(rrq("f"), peer, 0)
        answer_all(server, 0)
    server.receive(ack(1), peers[0], 0.1)
    server.drain(0.1)
    server.receive(rrq("f"), peers[3], 0.2)
    assert [event.peer for event in server.events()] == [peers[1], peers[3]]  # the end of one, the request of the other
    server.receive(rrq("f"), peers[4], 0.3)
    assert [event.peer for event in server.events()] == [peers[2], peers[4]]
    server.receive(rrq("f"), peers[5], 0.4)  # one was heard, two wait
    assert server.events() == []
    assert server.statistics()["drop.busy"] == 1


def test_limit_is_checked() -> None:
    with pytest.raises(ValueError, match="limit"):
        VirtualTftp(limit=0)


@pytest.mark.parametrize("peer", [("localhost", 1), ("10.0.0.256", 1), ("", 1)])
def test_peers_are_addresses(peer: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="address"):
        VirtualTftp().receive(b"", peer, 0)
