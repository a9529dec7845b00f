"""RFC 2090 in virtual time: each rule of mtftp_groups.pyx, and real clients' manners over bad networks."""

import random

import pytest

from pxed._ext.blob import Blob
from pxed._ext.mtftp_groups import GroupSender, carries
from pxed._ext.pacer import Pacer
from pxed._ext.tftp import build_oack
from pxed._ext.tftp_events import Finished, Listing, Request
from pxed._ext.tftp_virtual import VirtualTftp
from support.mtftp_sim import Edk2, Group, Ipxe, Multicast
from support.tftp_sim import DropNth, Duplicate, Loss, Reorder, ack, error, is_data, number

FILE = random.Random(1).randbytes(200_000)
BLOCKS = 391  # of 512 bytes
GROUP = ("239.255.78.0", 1758)
ONE, TWO, THREE = (("10.0.0.7", 2070), ("10.0.0.8", 2070), ("10.0.0.9", 2070))


def crowd(net: Group, count: int, kind: type[Multicast] = Multicast, *, pause: float = 0.0) -> list[Multicast]:
    """Clients that begin half a millisecond after each other."""
    clients = []
    for i in range(count):
        peer = (f"10.0.{i // 200 + 1}.{i % 200 + 1}", 2000 + i)
        clients.append(net.add(kind("f", peer, pause=pause)))
        net.run(net.now + 0.0005)
    return clients


def whole(clients: list[Multicast], data: bytes = FILE) -> bool:
    return all(client.done and client.received == data for client in clients)


def passes(net: Group) -> float:
    """Bytes sent to groups, over the file's size."""
    return net.multicast_bytes / len(FILE)


class Talk:
    """A GroupSender whose clients' every packet the test says."""

    def __init__(self, data: bytes = FILE, *, count: int = 4, pacer: Pacer | None = None, seed: int = 0) -> None:
        self.server = VirtualTftp(pacer=pacer, sender=GroupSender(GROUP[0], count, GROUP[1], seed=seed))
        self.blob = Blob(data)
        self.ends: list[Finished] = []

    def join(self, peer: tuple[str, int], now: float = 0.0, blob: Blob | None = None, **options: int) -> list[object]:
        request = Request(0, peer, "10.0.0.1", "f", "octet", {"multicast": 0, **options})
        self.server.join(request, blob or self.blob, now)
        return self.replies(now)

    def say(self, peer: tuple[str, int], datagram: bytes, now: float = 0.0) -> list[object]:
        self.server.receive(datagram, peer, now, "10.0.0.1")
        return self.replies(now)

    def replies(self, now: float) -> list[object]:
        """What is sent: (peer, OACK) and (peer or group, number of DATA)."""
        self.server.on_timer(now)
        said = [(to, number(data) if is_data(data) else data) for to, data in self.server.drain(now)]
        self.ends += [event for event in self.server.events() if isinstance(event, Finished)]
        return said

    def outcomes(self) -> list[tuple[str, str]]:
        return [(end.peer[0], end.outcome) for end in self.ends]


def oack(master: bool, address: str = GROUP[0], **options: int) -> bytes:
    return build_oack(**options, multicast=(address, GROUP[1], master))


# -- the protocol ------------------------------------------------------------------------------------------------------


def test_first_client_is_master_and_data_goes_to_the_group() -> None:
    talk = Talk()
    assert talk.join(ONE, blksize=1432, tsize=0, timeout=3, windowsize=8) == [
        (ONE, oack(True, blksize=1432, tsize=len(FILE), timeout=3))
    ]
    assert talk.say(ONE, ack(0)) == [(GROUP, 1)]
    assert talk.say(ONE, ack(1)) == [(GROUP, 2)]


def test_slaves_are_told_and_their_acks_change_nothing() -> None:
    """A newcomer answers as a master does, and is told that it is none once it has heard the group."""
    talk = Talk()
    talk.join(ONE)
    assert talk.say(ONE, ack(0)) == [(GROUP, 1)]
    assert talk.join(TWO) == [(TWO, oack(True))]
    assert talk.say(TWO, ack(0)) == []
    assert talk.say(ONE, ack(1)) == [(GROUP, 2)]
    assert talk.say(TWO, ack(0)) == [(TWO, oack(False))]
    assert talk.replies(0.03) == [(TWO, oack(False))]
    assert talk.say(TWO, ack(7), 0.04) == []


def test_a_slave_that_says_that_it_heard_is_told_once() -> None:
    talk = Talk()
    for peer in (ONE, TWO):
        talk.join(peer)
        talk.say(peer, ack(0))
    assert talk.say(TWO, ack(0)) == [(TWO, oack(False))]
    assert talk.say(TWO, ack(7)) == []
    assert talk.replies(0.03) == []


def test_a_slave_that_did_not_hear_what_it_is_is_told_again() -> None:
    """It acknowledges all blocks, as masters do; EDK2, which acknowledges its OACKs, is not answered for ever."""
    talk = Talk()
    talk.join(ONE)
    talk.say(ONE, ack(0))
    talk.join(TWO)
    talk.say(TWO, ack(0))
    assert talk.say(TWO, ack(0)) == [(TWO, oack(False))]
    assert [talk.say(TWO, ack(0)) for _ in range(8)] == [[]] * 7 + [[(TWO, oack(False))]]
    assert talk.say(TWO, ack(0)) == []


def test_next_master_asks_for_its_gaps() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.say(ONE, ack(0))
    talk.join(TWO)
    talk.say(TWO, ack(0))
    talk.say(TWO, ack(1))
    talk.say(ONE, ack(BLOCKS - 1))
    assert talk.say(ONE, ack(BLOCKS)) == [(TWO, oack(True))]
    assert talk.outcomes() == [("10.0.0.7", "ok")]
    assert talk.say(TWO, ack(4)) == [(GROUP, 5)]
    assert talk.say(TWO, ack(99)) == [(GROUP, 100)]
    assert talk.say(TWO, ack(BLOCKS)) == []
    assert talk.outcomes() == [("10.0.0.7", "ok"), ("10.0.0.8", "ok")]
    assert talk.server.statistics()["groups"] == talk.server.statistics()["running"] == 0
    assert talk.server.next_timer() is None


def test_a_slave_that_acknowledges_the_last_block_is_done() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.join(TWO)
    talk.say(TWO, ack(BLOCKS))
    assert talk.outcomes() == [("10.0.0.8", "ok")]
    assert talk.ends[0].bytes == len(FILE)


def test_a_slave_may_end_with_an_error() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.join(TWO)
    assert talk.say(TWO, error(3, "disk full")) == []
    assert [(end.outcome, end.error) for end in talk.ends] == [("client-error", "3 disk full")]
    assert talk.say(ONE, error(0)) == []
    assert talk.outcomes()[1] == ("10.0.0.7", "closed")


def test_equal_acks_are_not_answered_and_old_ones_only_when_they_are_no_duplicates() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.say(ONE, ack(0), 0.01)  # the round trip is 10 ms
    assert talk.say(ONE, ack(0), 0.011) == []
    talk.say(ONE, ack(1), 0.02)
    talk.say(ONE, ack(2), 0.03)
    assert talk.say(ONE, ack(1), 0.031) == []
    assert talk.say(ONE, ack(0), 0.06) == [(GROUP, 1)]
    assert talk.say(ONE, ack(BLOCKS + 1), 0.07) == []
    assert talk.server.statistics()["drop.stale-ack"] == 3


def test_block_in_flight_is_repeated_by_time() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.say(ONE, ack(0), 0.01)
    assert talk.replies(0.05) == []
    assert talk.replies(0.07) == [(GROUP, 1)]
    assert talk.replies(0.18) == [(GROUP, 1)]


def test_files_and_block_sizes_have_groups_of_their_own() -> None:
    talk = Talk()
    other = Blob(FILE[::-1])
    assert talk.join(ONE) == [(ONE, oack(True))]
    assert talk.join(TWO, blksize=1024) == [(TWO, oack(True, "239.255.78.1", blksize=1024))]
    assert talk.join(THREE, blob=other) == [(THREE, oack(True, "239.255.78.2"))]
    assert talk.say(TWO, ack(0)) == [(("239.255.78.1", 1758), 1)]


def test_an_address_rests_before_it_is_used_again() -> None:
    """Who still listens to the former group would take the other file's blocks for its own."""
    talk = Talk(count=1)
    talk.join(ONE)
    talk.say(ONE, ack(0))
    assert talk.join(TWO, blksize=1024) == [(TWO, build_oack(blksize=1024))]  # all addresses are in use: alone
    assert talk.say(TWO, ack(0)) == [(TWO, 1)]
    talk.say(ONE, ack(BLOCKS), 10)
    talk.say(TWO, ack(196), 10)
    assert talk.join(THREE, 129) == [(THREE, 1)]
    assert (ONE, oack(True)) in talk.join(ONE, 131)


def test_servers_do_not_all_begin_with_the_same_address() -> None:
    """Members of a group of before a restart, or of another server, would take this file's blocks for theirs."""
    assert Talk(count=240, seed=7 * 240 + 5).join(ONE) == [(ONE, oack(True, "239.255.78.5"))]


def test_each_of_our_addresses_has_groups_of_its_own() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.server.join(Request(0, TWO, "10.1.0.1", "f", "octet", {"multicast": 0}), talk.blob, 0.0)
    assert talk.replies(0.0) == [(TWO, oack(True, "239.255.78.1"))]


def test_blocks_fit_an_ethernet_frame() -> None:
    assert Talk().join(ONE, blksize=65464) == [(ONE, oack(True, blksize=1468))]


@pytest.mark.parametrize(
    ("size", "options", "peer", "wanted"),
    [
        (65535 * 512 - 1, {}, "10.0.0.7", True),
        (65535 * 512, {}, "10.0.0.7", False),
        (65535 * 512, {"blksize": 1024}, "10.0.0.7", True),
        (65535 * 1468, {"blksize": 9000}, "10.0.0.7", False),
        (1, {}, "2001:db8::7", False),
    ],
)
def test_what_a_group_carries(size: int, options: dict[str, int], peer: str, wanted: bool) -> None:
    request = Request(1, (peer, 2070), "10.0.0.1", "f", "octet", {"multicast": 0, **options})
    blob = Blob(bytes(size))
    assert carries(request, blob) == wanted
    assert not carries(request._replace(options=options), blob)


@pytest.mark.parametrize(("first", "count"), [("ff02::1", 1), ("no address", 1), ("239.0.0.0", 0), ("239.0.0.0", 1025)])
def test_bad_ranges_are_refused(first: str, count: int) -> None:
    with pytest.raises(ValueError, match="no range of IPv4 addresses"):
        GroupSender(first, count, 1758)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [(b"", "malformed"), (b"\0\4\0", "malformed"), (b"\0\1f\0octet\0", "opcode"), (b"\0\4\0\0", "unknown-peer")],
)
def test_bad_datagrams_are_counted_and_get_no_answer(datagram: bytes, reason: str) -> None:
    talk = Talk()
    talk.join(ONE)
    assert talk.say(TWO, datagram) == []
    assert talk.server.statistics()[f"drop.{reason}"] == 1


def test_groups_are_no_faster_than_the_pacer_allows() -> None:
    """A master that answers at once, for ten virtual seconds."""
    talk = Talk(pacer=Pacer(10_000))
    talk.join(ONE, 1.0)
    said, now, blocks = talk.say(ONE, ack(0), 1.0), 1.0, 0
    while now < 11:
        for _, block in said:
            blocks += 1
            assert isinstance(block, int)
            talk.server.receive(ack(block), ONE, now, "10.0.0.1")
        at = talk.server.next_timer()
        assert at is not None
        now = max(now, at)
        said = talk.replies(now)
    assert 0.8 * 100_000 < blocks * 512 < 1.3 * 100_000


def test_what_runs_can_be_asked() -> None:
    talk = Talk()
    talk.join(ONE)
    talk.join(TWO)
    talk.say(ONE, ack(0), 0.01)
    talk.say(ONE, ack(1), 0.02)
    talk.server.ask_listing(0, 1.0)
    [listing] = talk.server.events()
    assert isinstance(listing, Listing)
    found = {one.peer: (one.name, one.state, one.bytes, one.size, one.quiet) for one in listing.transfers}
    assert found == {ONE: ("f", "sending", 512, len(FILE), 0.98), TWO: ("f", "options", 0, len(FILE), 1.0)}
    assert listing.after == 0


# -- masters that fail -------------------------------------------------------------------------------------------------


def test_repeated_request_is_answered_again_under_its_new_id() -> None:
    talk = Talk()
    for peer in (ONE, TWO):
        talk.join(peer)
        talk.say(peer, ack(0))
    assert talk.join(TWO, 0.01) == [(TWO, oack(True))]
    assert talk.join(ONE, 0.01) == [(ONE, oack(True))]
    assert talk.outcomes() == [("10.0.0.8", "superseded"), ("10.0.0.7", "superseded")]
    assert talk.say(ONE, ack(0), 0.01) == [(GROUP, 1)]


def test_same_port_asks_for_another_block_size() -> None:
    talk = Talk()
    talk.join(ONE)
    assert talk.join(ONE, blksize=1024) == [(ONE, oack(True, "239.255.78.1", blksize=1024))]
    assert talk.outcomes() == [("10.0.0.7", "superseded")]


def test_a_silent_candidate_is_passed_over_and_asked_again_later() -> None:
    talk = Talk()
    for peer in (ONE, TWO, THREE):
        talk.join(peer)
        talk.say(peer, ack(0))
    talk.say(TWO, ack(1))
    talk.say(THREE, ack(1))
    talk.replies(0.05)
    assert talk.say(ONE, ack(BLOCKS), 0.1) == [(TWO, oack(True))]
    assert talk.replies(0.36) == [(TWO, oack(False)), (THREE, oack(True))]
    assert talk.say(THREE, ack(0), 0.37) == [(GROUP, 1)]
    assert talk.say(THREE, ack(BLOCKS), 0.4) == [(TWO, oack(True))]
    assert talk.say(TWO, ack(3), 0.41) == [(GROUP, 4)]


def test_a_newcomer_takes_over_from_a_silent_candidate() -> None:
    talk = Talk()
    for peer in (ONE, TWO):
        talk.join(peer)
        talk.say(peer, ack(0))
    talk.say(TWO, ack(1))
    talk.say(ONE, ack(BLOCKS), 0.1)
    talk.replies(0.36)
    talk.join(THREE, 0.4)
    assert talk.say(THREE, ack(0), 0.41) == [(TWO, oack(False)), (GROUP, 1)]


def test_a_master_that_dies_delays_the_rest_by_less_than_two_seconds() -> None:
    net = Group({"f": FILE})
    clients = crowd(net, 6)
    net.run(0.08)
    net.fail(clients[0])
    net.run()
    assert whole(clients[1:])
    assert max(client.finished_at for client in clients[1:]) < 0.2 + 1.1
    assert passes(net) < 1.1
    assert {end.peer[0]: end.outcome for end in net.finished}["10.0.1.1"] == "timeout"


def test_a_dead_rack_costs_the_living_little() -> None:
    """20 of 30 clients die in the middle; each is asked in its turn, and nobody alive gives up meanwhile."""
    net = Group({"f": FILE})
    clients = crowd(net, 30)
    net.run(0.08)
    for client in clients[:20]:
        net.fail(client)
    net.run()
    assert whole(clients[20:])
    assert max(client.finished_at for client in clients[20:]) < 10


def test_who_comes_after_a_rack_died_does_not_wait_behind_it() -> None:
    """Nobody of the rack ever answers; whoever comes later is asked at once, and a second one right after the first."""
    net = Group({"f": FILE})
    for client in crowd(net, 20):
        net.fail(client)
    net.run(12.0)
    later = crowd(net, 2)
    began = net.now
    net.run()
    assert whole(later)
    assert max(client.finished_at for client in later) < began + 2


def test_waiting_slaves_are_told_that_the_group_lives() -> None:
    """iPXE gives up after 16 s of silence."""
    net = Group({"f": FILE})
    clients = crowd(net, 80)
    net.run(0.1)
    for client in clients[:79]:
        net.fail(client)
    heard = len([line for line in net.log if "10.0.1.80" in line and "<-" in line])
    net.run(18)
    told = [line for line in net.log if "10.0.1.80" in line and "<-" in line]
    assert len(told) - heard >= 3
    net.run()
    assert whole(clients[79:])


def test_a_master_without_a_last_ack_has_the_file() -> None:
    """ROMs jump into what they loaded: nobody waits half a minute for them."""
    talk = Talk()
    talk.join(ONE)
    talk.say(ONE, ack(0))
    assert talk.say(ONE, ack(BLOCKS - 1), 0.1) == [(GROUP, BLOCKS)]
    for tenths in range(100):
        talk.replies(0.2 + tenths / 10)
    assert talk.outcomes() == [("10.0.0.7", "ok")]


def test_who_was_silent_for_half_an_hour_is_forgotten() -> None:
    """First answers may be forged: to be asked one after the other, each for seconds, takes so many for ever."""
    talk = Talk()
    for i in range(400):
        peer = (f"10.1.{i // 200}.{i % 200 + 1}", 2070)
        talk.join(peer)
        talk.say(peer, ack(0))
    for seconds in range(1, 1820):
        talk.replies(float(seconds))
    assert len(talk.outcomes()) == 400


def test_a_slow_master_has_its_next_turn_after_the_others() -> None:
    talk = Talk()
    for peer in (ONE, TWO, THREE):
        talk.join(peer)
        talk.say(peer, ack(0))
    for block in range(1, 60):  # 20 ms for each
        talk.say(ONE, ack(block), block / 50)
    assert talk.say(TWO, ack(BLOCKS - 1), 1.3) == [(GROUP, BLOCKS)]
    assert talk.say(TWO, ack(BLOCKS), 1.3) == [(THREE, oack(True))]


def test_a_slow_master_hands_over_to_a_faster_client() -> None:
    net = Group({"f": FILE})
    slow = net.add(Multicast("f", ONE, pause=0.1))
    net.run(0.4)
    clients = crowd(net, 3)
    net.run(30)
    assert whole(clients)
    assert max(client.finished_at for client in clients) < 3
    net.run()
    assert whole([slow])
    assert net.groups.statistics()["slow_masters"] == 1


def test_clients_that_are_all_slow_do_not_hand_over_for_ever() -> None:
    net = Group({"f": FILE})
    clients = crowd(net, 4, pause=0.03)
    net.run()
    assert whole(clients)
    assert net.groups.statistics()["slow_masters"] <= 3
    assert passes(net) < 1.2


def test_a_machine_that_starts_over_with_the_same_port() -> None:
    net = Group({"f": FILE})
    first, second = crowd(net, 2)
    net.run(0.1)
    again = net.add(Multicast("f", first.peer))
    net.run()
    assert whole([again, second])


# -- clients that take no multicast ------------------------------------------------------------------------------------


def test_a_master_that_takes_no_multicast_is_served_alone_within_a_second() -> None:
    net = Group({"f": FILE})
    client = net.add(Ipxe("f", ONE))
    net.run()
    assert whole([client])
    assert client.finished_at < 1 + 0.2
    assert passes(net) < 0.05
    assert net.groups.statistics()["deaf"] == 1


def test_the_next_time_it_is_served_alone_at_once() -> None:
    net = Group({"f": FILE})
    net.add(Ipxe("f", ONE))
    net.run()
    began = net.now
    again = net.add(Ipxe("f", (ONE[0], 3000)))
    net.run()
    assert whole([again])
    assert again.group is None
    assert again.finished_at - began < 0.3


def test_the_group_goes_on_without_it() -> None:
    net = Group({"f": FILE})
    deaf = net.add(Ipxe("f", ONE))
    clients = crowd(net, 3)
    net.run()
    assert whole([deaf, *clients])
    assert max(client.finished_at for client in clients) < 1.2
    assert passes(net) < 1.1


# -- crowds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Multicast, Edk2])
def test_six_clients_take_one_stream(kind: type[Multicast]) -> None:
    net = Group({"f": FILE})
    clients = crowd(net, 6, kind)
    net.run()
    assert whole(clients)
    assert passes(net) < 1.05


@pytest.mark.parametrize("kind", [Multicast, Edk2])
def test_six_clients_with_loss(kind: type[Multicast]) -> None:
    net = Group({"f": FILE}, down=[Loss(0.01, 1)], up=[Loss(0.01, 2)])
    clients = crowd(net, 6, kind)
    net.run()
    assert whole(clients)
    assert passes(net) < 1.5


def test_late_joiner_gets_the_head_in_its_own_mastership() -> None:
    net = Group({"f": FILE})
    early = net.add(Multicast("f", ONE))
    net.run(0.08)  # about the middle
    late = net.add(Multicast("f", TWO))
    net.run()
    assert whole([early, late])
    assert 1.4 < passes(net) < 1.6


def test_200_listeners_with_loss_finish_within_three_passes() -> None:
    net = Group({"f": FILE}, down=[Loss(0.001, 1)], up=[Loss(0.001, 2)])
    clients = crowd(net, 200)
    net.run()
    assert whole(clients)
    assert passes(net) < 3
    assert len(net.finished) == 200


def test_duplicates_do_not_multiply_the_traffic() -> None:
    net = Group({"f": FILE}, down=[Duplicate(0.3, 1)], up=[Duplicate(0.3, 2), Reorder(0.2, 3)])
    clients = crowd(net, 6)
    net.run()
    assert whole(clients)
    assert passes(net) < 1.3


def test_a_lost_oack_does_not_cost_a_pass() -> None:
    net = Group({"f": FILE}, down=[DropNth([1], lambda datagram: datagram[1] == 6)])
    clients = crowd(net, 2)
    net.run()
    assert whole(clients)
    assert passes(net) < 1.2


def test_mixed_clients() -> None:
    net = Group({"f": FILE}, down=[Loss(0.01, 4)], up=[Loss(0.01, 5)])
    clients = [
        net.add(kind("f", (f"10.0.1.{i}", 2000), blksize=blksize))
        for i, (kind, blksize) in enumerate([(Multicast, 512), (Edk2, 1468), (Ipxe, 1432), (Multicast, 1468)] * 3)
    ]
    net.run()
    assert whole(clients)
