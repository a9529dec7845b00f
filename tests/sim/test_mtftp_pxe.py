"""MTFTP of PXE 2.1 in virtual time: each rule of mtftp_pxe.pyx, and the two real clients' manners over bad networks."""

import random

import pytest

from pxed._ext.blob import Blob
from pxed._ext.mtftp_pxe import LARGEST_FILE, PassSender
from pxed._ext.pacer import Pacer
from pxed._ext.tftp_events import Finished, Listing, Request
from pxed._ext.tftp_virtual import VirtualTftp
from support.mtftp_pxe_sim import GROUP, Client, Intel, Ipxe, Network
from support.tftp_sim import Duplicate, Loss, Reorder, ack, error, number, rrq

FILE = random.Random(2).randbytes(74_000)  # about undionly.kpxe
BLOCKS = 145
ONE, TWO, THREE = (("10.0.0.7", 2056), ("10.0.0.8", 2056), ("10.0.0.9", 2056))


class Talk:
    """A PassSender whose clients' every packet the test says, and the control plane."""

    def __init__(self, *, any_order: bool = False, quiet: int = 2, pacer: Pacer | None = None) -> None:
        self.server = VirtualTftp(pacer=pacer, sender=PassSender(any_order=any_order))
        self.files = {"f": Blob(FILE), "g": Blob(FILE[::-1])}
        self.groups = {"f": GROUP, "g": ("239.255.78.254", GROUP[1])}
        self.quiet = quiet
        self.ends: list[Finished] = []
        self.asked: list[Request] = []

    def ask(self, peer: tuple[str, int], now: float = 0.0, name: str = "f") -> list[tuple[tuple[str, int], int]]:
        return self.say(peer, rrq(name), now)

    def say(self, peer: tuple[str, int], datagram: bytes, now: float = 0.0) -> list[tuple[tuple[str, int], int]]:
        self.server.receive(datagram, peer, now, "10.0.0.1")
        return self.replies(now)

    def replies(self, now: float) -> list[tuple[tuple[str, int], int]]:
        """The DATA that is sent: (where, number)."""
        self.server.on_timer(now)
        self._control(now)
        said = [(to, number(data)) for to, data in self.server.drain(now)]
        self._control(now)
        return said

    def _control(self, now: float) -> None:
        for event in self.server.events():
            if isinstance(event, Request):
                self.asked.append(event)
                if event.name in self.files:
                    group = self.groups[event.name]
                    self.server.send(event.id, self.files[event.name], now, group, quiet=self.quiet)
                else:
                    self.server.refuse(event.id, 1, "not found", now)
            else:
                assert isinstance(event, Finished)
                self.ends.append(event)

    def outcomes(self) -> list[tuple[str, str]]:
        return [(end.peer[0], end.outcome) for end in self.ends]

    def whole_pass(self, peer: tuple[str, int], now: float) -> None:
        assert self.ask(peer, now) == [(peer, 1), (GROUP, 1)]
        for block in range(1, BLOCKS + 1):
            self.say(peer, ack(block), now)
        assert self.outcomes()[-1] == (peer[0], "ok")

    def drops(self) -> dict[str, int]:
        figures = self.server.statistics()
        return {name[5:]: count for name, count in figures.items() if name.startswith("drop.") and count}


# -- the protocol ------------------------------------------------------------------------------------------------------


def test_block_1_goes_to_the_group_and_to_who_asked() -> None:
    talk = Talk()
    assert talk.ask(ONE) == [(ONE, 1), (GROUP, 1)]
    assert talk.say(ONE, ack(1)) == [(GROUP, 2)]
    assert talk.say(ONE, ack(2)) == [(GROUP, 3)]


def test_who_asks_during_a_pass_gets_no_answer_and_acknowledges_nothing() -> None:
    talk = Talk()
    talk.ask(ONE)
    assert talk.ask(TWO) == []
    assert talk.say(TWO, ack(1)) == []
    assert talk.say(ONE, ack(1)) == [(GROUP, 2)]
    assert talk.drops() == {"merged": 1, "unknown-peer": 1}
    assert len(talk.asked) == 1


def test_who_asks_while_the_acknowledging_client_is_silent_begins_no_pass() -> None:
    talk = Talk()
    talk.ask(ONE)
    talk.say(ONE, ack(1), 0.001)
    assert talk.ask(TWO, 1.5) == [(GROUP, 2)]
    assert talk.say(ONE, ack(2), 1.6) == [(GROUP, 3)]
    assert talk.drops() == {"merged": 1}


def test_only_the_block_in_flight_is_repeated() -> None:
    talk = Talk()
    talk.ask(ONE)
    talk.say(ONE, ack(1), 0.001)
    talk.say(ONE, ack(2), 0.002)
    assert talk.replies(0.06) == [(GROUP, 3)]
    assert talk.say(ONE, ack(1), 0.07) == []
    assert talk.say(ONE, ack(9), 0.07) == []
    assert talk.say(ONE, ack(3), 0.07) == [(GROUP, 4)]
    assert talk.drops() == {"stale-ack": 2}


def test_block_1_is_repeated_both_ways() -> None:
    talk = Talk()
    talk.ask(ONE)
    assert talk.replies(1.01) == [(ONE, 1), (GROUP, 1)]


def test_a_repeated_request_brings_block_1_at_once() -> None:
    talk = Talk()
    talk.ask(ONE)
    assert talk.ask(ONE, 0.1) == []
    assert talk.ask(ONE, 0.25) == [(ONE, 1), (GROUP, 1)]
    assert len(talk.asked) == 1


@pytest.mark.parametrize("quiet", [0, 2, 255])
@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize(("asks", "limit"), [(1, 3), (1000, 8)])
def test_a_forged_request_brings_its_victim_and_the_group_little(
    quiet: int, any_order: bool, asks: int, limit: int
) -> None:
    talk = Talk(quiet=quiet, any_order=any_order)
    sent = talk.ask(ONE)
    for tick in range(1, 1300):  # to the end of the longest pass that there could be
        if talk.ends:
            break
        sent += talk.ask(ONE, tick / 5) if tick < asks else talk.replies(tick / 5)
    assert talk.outcomes() == [("10.0.0.7", "no-answer")]
    assert max(sent.count((ONE, 1)), sent.count((GROUP, 1))) <= limit
    assert len(sent) <= 2 * limit


def test_who_acknowledges_at_last_is_waited_for_as_before() -> None:
    talk = Talk(quiet=60)
    talk.ask(ONE)
    assert talk.replies(1.01) == [(ONE, 1), (GROUP, 1)]
    assert talk.say(ONE, ack(1), 2.0) == [(GROUP, 2)]
    sent = [said for second in range(3, 60) for said in talk.replies(float(second))]
    assert len(sent) > 10
    assert talk.ends == []


def test_the_end() -> None:
    talk = Talk()
    talk.whole_pass(ONE, 0.0)
    [end] = talk.ends
    assert (end.name, end.bytes, end.blocks, end.size, end.blksize) == ("f", len(FILE), BLOCKS, len(FILE), 512)
    figures = talk.server.statistics()
    assert (figures["passes"], figures["bytes"], figures["running"]) == (1, len(FILE), 0)


def test_the_last_ack_is_a_courtesy() -> None:
    talk = Talk()
    talk.ask(ONE)
    for block in range(1, BLOCKS):
        talk.say(ONE, ack(block))
    while not talk.ends and (at := talk.server.next_timer()) is not None:
        talk.replies(at)
    assert talk.outcomes() == [("10.0.0.7", "ok")]


def test_after_a_pass_it_is_quiet_for_as_long_as_listeners_wait() -> None:
    talk = Talk(quiet=2)
    talk.whole_pass(ONE, 0.0)
    assert talk.replies(2.4) == []
    assert talk.ask(TWO, 3.1) == [(TWO, 1), (GROUP, 1)]


def test_who_lost_blocks_of_a_pass_gets_each_block_twice_in_the_next() -> None:
    """It asks a second sooner than who merely came late; and what helped once is kept up."""
    talk = Talk(quiet=2)
    talk.whole_pass(ONE, 0.0)
    assert talk.ask(TWO, 1.0) == []
    assert talk.ask(TWO, 3.0) == [(TWO, 1), (GROUP, 1), (GROUP, 1)]
    assert talk.say(TWO, ack(1), 3.0) == [(GROUP, 2), (GROUP, 2)]
    assert talk.say(TWO, ack(2), 3.0) == [(GROUP, 3), (GROUP, 3)]
    assert talk.say(TWO, ack(2), 3.0) == []  # the second one's
    for block in range(3, BLOCKS + 1):
        talk.say(TWO, ack(block), 3.0)
    assert talk.server.statistics()["bytes"] == 3 * len(FILE)
    assert talk.ask(THREE, 6.0) == [(THREE, 1), (GROUP, 1), (GROUP, 1)]


def test_a_third_pass_in_succession_sends_each_block_twice() -> None:
    """Where the time to listen is long, who lost blocks asks no sooner than the group is quiet."""
    talk = Talk(quiet=2)
    talk.whole_pass(ONE, 0.0)
    talk.whole_pass(TWO, 3.0)
    assert talk.server.statistics()["bytes"] == 2 * len(FILE)
    assert talk.ask(THREE, 6.0) == [(THREE, 1), (GROUP, 1), (GROUP, 1)]


def test_a_file_that_nobody_asked_for_in_a_while_is_sent_once_again() -> None:
    talk = Talk(quiet=2)
    talk.whole_pass(ONE, 0.0)
    assert talk.ask(TWO, 1.0) == []
    talk.replies(121.0)
    assert talk.ask(TWO, 121.0) == [(TWO, 1), (GROUP, 1)]


def test_who_asks_shortly_before_the_quiet_ends_is_served_then() -> None:
    """Listeners ask when they have heard nothing for two seconds, which is a little before the quiet is over."""
    talk = Talk(quiet=2)
    talk.whole_pass(ONE, 0.0)
    assert talk.ask(TWO, 1.99) == []
    assert talk.ask(TWO, 2.3) == []  # it may ask again
    assert talk.replies(2.49) == []
    assert talk.replies(2.51) == [(TWO, 1), (GROUP, 1)]
    assert talk.say(TWO, ack(1), 2.52) == [(GROUP, 2)]


def test_a_master_that_falls_silent_ends_its_pass_and_listeners_open_the_next() -> None:
    talk = Talk(quiet=2)
    talk.ask(ONE)
    talk.say(ONE, ack(1), 0.01)
    repeated = []
    while not talk.ends and (at := talk.server.next_timer()) is not None:
        repeated += talk.replies(at)
        ended = at
    assert set(repeated) == {(GROUP, 2)}
    assert talk.outcomes() == [("10.0.0.7", "timeout")]
    assert 4 < ended < 7
    assert talk.ask(TWO, ended + 2) == []
    assert talk.ask(TWO, ended + 2.6) == [(TWO, 1), (GROUP, 1)]


def test_a_machine_that_starts_over_does_not_begin_a_pass_within_the_pass() -> None:
    talk = Talk(quiet=2)
    talk.ask(ONE)
    talk.say(ONE, ack(1), 0.1)
    talk.say(ONE, ack(2), 0.2)
    assert talk.ask(ONE, 0.3) == []
    assert talk.outcomes() == [("10.0.0.7", "superseded")]
    assert talk.ask(ONE, 2.5) == []
    assert talk.ask(ONE, 2.9) == [(ONE, 1), (GROUP, 1)]


def test_each_file_has_a_group_and_passes_of_its_own() -> None:
    talk = Talk()
    talk.ask(ONE)
    assert talk.ask(TWO, name="g") == [(TWO, 1), (talk.groups["g"], 1)]
    assert talk.say(ONE, ack(1)) == [(GROUP, 2)]


@pytest.mark.parametrize("when", [3.0, 60.0, 119.0])
def test_a_group_sends_one_content(when: float) -> None:
    """Listeners may wait for the rest of the former; a mixture would be a broken boot program."""
    talk = Talk()
    talk.groups["g"] = GROUP
    talk.whole_pass(ONE, 0.0)
    talk.files["f"] = Blob(FILE + b"new")
    assert talk.ask(TWO, when) == []
    assert talk.ask(THREE, when, name="g") == []
    assert talk.outcomes()[1:] == [("10.0.0.8", "moved"), ("10.0.0.9", "moved")]
    assert talk.drops() == {"group-taken": 2}


def test_a_new_content_is_sent_when_nobody_can_wait_for_the_former() -> None:
    talk = Talk()
    talk.whole_pass(ONE, 0.0)
    talk.files["f"] = Blob(FILE + b"new")
    talk.replies(119.0)
    assert talk.ask(TWO, 121.0) == [(TWO, 1), (GROUP, 1)]


def test_a_group_in_use_is_no_other_files() -> None:
    talk = Talk()
    talk.groups["g"] = GROUP
    talk.ask(ONE)
    assert talk.ask(TWO, name="g") == []
    assert talk.say(ONE, ack(1)) == [(GROUP, 2)]


@pytest.mark.parametrize(("size", "served"), [(LARGEST_FILE, True), (LARGEST_FILE + 1, False)])
def test_the_largest_file(size: int, served: bool) -> None:
    talk = Talk()
    talk.files["f"] = Blob(bytes(size))
    assert bool(talk.ask(ONE)) is served
    assert talk.outcomes() == ([] if served else [("10.0.0.7", "moved")])


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1024])
def test_small_files(size: int) -> None:
    talk = Talk()
    talk.files["f"] = Blob(FILE[:size])
    assert talk.ask(ONE) == [(ONE, 1), (GROUP, 1)]
    for block in range(1, size // 512 + 2):
        talk.say(ONE, ack(block))
    assert talk.outcomes() == [("10.0.0.7", "ok")]


def test_what_is_not_there_gets_no_answer() -> None:
    """An ERROR would end the boot: plain TFTP shall say it."""
    talk = Talk()
    assert talk.ask(ONE, name="nothing") == []
    assert talk.outcomes() == [("10.0.0.7", "refused")]


def test_a_client_may_close() -> None:
    talk = Talk()
    talk.ask(ONE)
    assert talk.say(ONE, error(0, "closed")) == []
    assert talk.say(ONE, ack(1)) == []
    assert talk.outcomes() == [("10.0.0.7", "closed")]


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [(b"", "malformed"), (b"\0\1f", "malformed"), (b"\0\1f\0mail\0", "malformed"), (b"\0\2f\0octet\0", "opcode"),
     (b"\0\3\0\1", "opcode"), (b"\0\4", "unknown-peer"), (b"\0\4\0\1", "unknown-peer")],
)  # fmt: skip
def test_nonsense_is_counted(datagram: bytes, reason: str) -> None:
    talk = Talk()
    assert talk.say(ONE, datagram) == []
    assert sum(talk.drops().values()) == 1
    assert reason in talk.drops() or datagram == b"\0\4"


def test_a_flood_of_names_ends_at_the_limit_and_passes() -> None:
    talk = Talk()
    for i in range(300):
        talk.server.receive(rrq(f"name {i}"), (f"10.0.1.{i % 250}", 2056), 0.0, "10.0.0.1")
    assert talk.drops() == {"busy": 300 - 256}
    talk.replies(0.0)
    assert talk.ask(ONE) == [(ONE, 1), (GROUP, 1)]


def test_what_the_control_plane_never_answers_is_forgotten() -> None:
    server = VirtualTftp(sender=PassSender())
    server.receive(rrq("f"), ONE, 0.0, "10.0.0.1")
    server.receive(rrq("f"), TWO, 1.0, "10.0.0.1")
    [request] = server.events()
    server.on_timer(30.1)
    [end] = server.events()
    assert (end.id, end.outcome) == (request.id, "abandoned")
    server.send(request.id, Blob(FILE), 30.2, GROUP)
    assert server.drain(30.2) == []


def test_it_keeps_to_the_pacer() -> None:
    talk = Talk(pacer=Pacer(100_000))
    sent = talk.ask(ONE)
    block = 1
    now = 0.0
    while len(talk.ends) == 0:
        for _, _ in sent[:1]:
            sent = talk.say(ONE, ack(block), now)
            block += 1
        while not sent and not talk.ends and (at := talk.server.next_timer()) is not None:
            now = at
            sent = talk.replies(now)
    assert now > 0.7


def test_what_runs_is_listed() -> None:
    talk = Talk()
    talk.ask(ONE, 0.0)
    talk.say(ONE, ack(1), 0.01)
    talk.server.ask_listing(0, 1.0)
    [listing] = talk.server.events()
    assert isinstance(listing, Listing)
    [one] = listing.transfers
    assert (one.peer, one.name, one.state, one.bytes, one.size) == (ONE, "f", "sending", 512, len(FILE))


# -- iPXE --------------------------------------------------------------------------------------------------------------


def test_ipxe_leaps_over_what_it_has() -> None:
    talk = Talk(any_order=True)
    talk.ask(ONE)
    assert talk.say(ONE, ack(99)) == [(GROUP, 100)]


def test_ipxe_asks_again_at_once() -> None:
    talk = Talk(any_order=True)
    talk.whole_pass(ONE, 0.0)
    assert talk.ask(TWO, 0.01) == [(TWO, 1), (GROUP, 1)]


def test_a_new_content_does_not_mend_the_gaps_of_the_former() -> None:
    """iPXE falls back only for a file whose end it has not seen: it gets the rest of what it has."""
    talk = Talk(any_order=True)
    talk.whole_pass(ONE, 0.0)
    talk.files["f"] = Blob(bytes(512))
    assert talk.ask(TWO, 0.3) == [(TWO, 1), (GROUP, 1)]
    assert talk.say(TWO, ack(1), 0.3) == [(GROUP, 2)]
    talk.say(TWO, ack(BLOCKS), 0.3)
    assert (talk.outcomes()[-1], talk.ends[-1].size) == (("10.0.0.8", "ok"), len(FILE))
    talk.replies(10.4)
    talk.ask(THREE, 10.5)
    assert talk.say(THREE, ack(2), 10.5) == []
    assert talk.ends[-1].size == 512


def test_another_client_takes_over_from_one_that_is_silent() -> None:
    talk = Talk(any_order=True)
    talk.ask(ONE)
    talk.say(ONE, ack(1), 0.01)
    talk.say(ONE, ack(2), 0.02)
    assert talk.ask(TWO, 0.3) == [(GROUP, 3)]  # as time has passed; not for TWO
    assert talk.ask(TWO, 0.5) == [(TWO, 1), (GROUP, 1)]
    assert talk.outcomes() == [("10.0.0.7", "timeout")]


def test_ipxe_that_hears_no_group_is_served_alone() -> None:
    talk = Talk(any_order=True)
    talk.ask(ONE)
    assert talk.say(ONE, ack(1), 0.01) == [(GROUP, 2)]
    again = (ONE[0], 2057)
    assert talk.ask(again, 0.04) == [(again, 1)]
    assert talk.say(again, ack(1), 0.05) == [(again, 2)]
    assert talk.server.statistics()["deaf"] == 1
    assert talk.ask((ONE[0], 2058), 0.3) == [((ONE[0], 2058), 1)]


def test_ipxe_that_asks_again_while_a_pass_moves_is_served_alone() -> None:
    talk = Talk(any_order=True)
    talk.ask(ONE)
    assert talk.ask(TWO, 0.01) == []
    for block in range(1, 30):
        talk.say(ONE, ack(block), 0.01 * block)
    assert talk.ask(TWO, 0.3) == [(TWO, 1)]
    assert talk.say(ONE, ack(30), 0.3) == [(GROUP, 31)]
    assert talk.say(TWO, ack(1), 0.3) == [(TWO, 2)]


# -- crowds ------------------------------------------------------------------------------------------------------------


def crowd(net: Network, count: int, kind: type[Client], *, every: float = 0.0005, **more: float) -> list[Client]:
    """Clients that begin after each other."""
    clients = []
    for i in range(count):
        clients.append(net.add(kind("f", f"10.0.{i // 200 + 1}.{i % 200 + 1}", **more)))
        net.run(net.now + every)
    return clients


def whole(clients: list[Client]) -> bool:
    return all(client.done and client.received == FILE for client in clients)


def passes(net: Network) -> float:
    """Bytes sent to the group, over the file's size."""
    return net.group_bytes / len(FILE)


def fallen_back(clients: list[Client]) -> int:
    return sum(client.plain is not None for client in clients)


@pytest.mark.parametrize("kind", [Intel, Ipxe])
def test_six_clients_take_one_stream(kind: type[Client]) -> None:
    net = Network({"f": FILE}, any_order=kind is Ipxe)
    clients = crowd(net, 6, kind)
    net.run()
    assert whole(clients)
    assert fallen_back(clients) == 0
    assert passes(net) == 1 if kind is Intel else passes(net) < 1.1


@pytest.mark.parametrize("kind", [Intel, Ipxe])
def test_late_listeners_get_the_head_in_the_next_pass(kind: type[Client]) -> None:
    net = Network({"f": FILE}, any_order=kind is Ipxe)
    clients = crowd(net, 10, kind, every=0.005)
    net.run()
    assert whole(clients)
    assert fallen_back(clients) == 0
    assert passes(net) <= 2.1


@pytest.mark.parametrize(("kind", "size"), [(Intel, len(FILE)), (Intel, 300_000), (Ipxe, len(FILE))])
def test_200_listeners_with_loss(kind: type[Client], size: int) -> None:
    """A listener of PXE's keeps only the run up to the end, and needs a second pass for one loss: at any size, that
    pass is the last one, as it sends each block twice.
    """
    data = random.Random(2).randbytes(size)
    net = Network({"f": data}, any_order=kind is Ipxe, down=[Loss(0.001, 1)], up=[Loss(0.001, 2)])
    clients = crowd(net, 200, kind)
    net.run()
    assert all(client.done and client.received == data for client in clients)
    assert fallen_back(clients) <= 2
    assert net.group_bytes < 3.1 * size
    if kind is Intel:
        assert net.passes.statistics()["passes"] <= 3


@pytest.mark.parametrize("kind", [Intel, Ipxe])
@pytest.mark.parametrize("seed", range(8))
def test_bad_networks(kind: type[Client], seed: int) -> None:
    """Loss, duplicates and reordering: every file is right, whoever sends it in the end."""
    down = [Loss(0.02, seed), Duplicate(0.1, seed + 100), Reorder(0.05, seed + 200)]
    net = Network({"f": FILE}, any_order=kind is Ipxe, down=down, up=[Loss(0.02, seed + 300), Duplicate(0.1, seed)])
    clients = crowd(net, 12, kind, every=0.02)
    net.run()
    assert whole(clients), [client.failed for client in clients]


@pytest.mark.parametrize("kind", [Intel, Ipxe])
def test_a_dead_master(kind: type[Client]) -> None:
    net = Network({"f": FILE}, any_order=kind is Ipxe)
    clients = crowd(net, 6, kind)
    net.run(net.now + (2.02 if kind is Intel else 0.02))
    [master] = [client for client in clients if client.passes]
    net.fail(master)
    others = [client for client in clients if client is not master]
    net.run()
    assert whole(others)
    assert fallen_back(others) == 0
    assert max(client.finished_at for client in others) < (20 if kind is Intel else 3)


@pytest.mark.parametrize("kind", [Intel, Ipxe])
def test_a_slow_master_is_waited_for(kind: type[Client]) -> None:
    net = Network({"f": FILE}, any_order=kind is Ipxe)
    slow = net.add(kind("f", "10.0.9.9", pause=0.05))
    net.run(3.0)
    clients = crowd(net, 3, kind)
    net.run()
    assert whole([slow, *clients])
    assert fallen_back(clients) == 0


def test_pxe_clients_that_hear_no_group_fall_back() -> None:
    net = Network({"f": FILE})
    deaf = net.add(Intel("f", "10.0.9.9", deaf=True))
    net.run()
    assert whole([deaf])
    assert fallen_back([deaf]) == 1
    assert deaf.finished_at < 10


def test_ipxe_that_hears_no_group_needs_no_fall_back() -> None:
    """Block 1 by unicast is an answer: without being served alone it would begin anew for ever."""
    net = Network({"f": FILE}, any_order=True)
    deaf = [net.add(Ipxe("f", f"10.0.9.{i}", deaf=True)) for i in (1, 2)]
    hearing = crowd(net, 5, Ipxe)
    net.run()
    assert whole([*deaf, *hearing])
    assert fallen_back([*deaf, *hearing]) == 0
    assert max(client.finished_at for client in deaf) < 5
    again = net.add(Ipxe("f", "10.0.9.1", deaf=True))
    before = net.group_bytes
    net.run()
    assert whole([again])
    assert net.group_bytes == before


def test_a_network_without_multicast_costs_ipxe_some_seconds() -> None:
    net = Network({"f": FILE}, any_order=True)
    clients = [net.add(Ipxe("f", f"10.0.9.{i}", deaf=True)) for i in range(1, 40)]
    net.run()
    assert whole(clients)
    assert max(client.finished_at for client in clients) < 12
    assert passes(net) < 1


@pytest.mark.parametrize("kind", [Intel, Ipxe])
def test_what_cannot_be_sent_so_comes_by_plain_tftp(kind: type[Client]) -> None:
    data = random.Random(3).randbytes(LARGEST_FILE + 1)
    net = Network({"f": data}, any_order=kind is Ipxe)
    client = net.add(kind("f", "10.0.9.9"))
    net.run()
    assert client.done
    assert client.received == data
    assert net.group_bytes == 0
