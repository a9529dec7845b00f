"""Multicast sessions over real sockets: joined over HTTP, sent by the engine, watched by the policy."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from pxed._ext.cast_events import DIRECTIONS, REASON_NAMES
from pxed.agent.cast import REASONS
from pxed.cast import member
from pxed.cast import session as policy
from pxed.cast.figures import Move, Note, Step
from pxed.config import Cast, Config, Mtftp, Server, Tftp
from pxed.errors import NotFoundError, RefusedError
from pxed.images.library import Library
from pxed.service import cast as service
from pxed.service.cast import CastService
from pxed.service.cast_limits import Bounds, Limits
from pxed.service.cast_session import LiveSession
from pxed.service.http import MachineHttp
from pxed.types import CastOrder as Order
from pxed.types import CastWhy as Why
from pxed.types import ImageSession
from support.cast_receiver import Receiver, Refused, join
from support.loop import LoopThread
from support.machines import RUN, Machines

MIB = 1 << 20
MAC = "52:54:00:00:00:07"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """With two images, of 3 and 1 chunks that are not zero, and one of zeros."""
    directory = tmp_path_factory.mktemp("library")
    made = Library(directory / "images")
    for name, data in (("demo", os.urandom(2 * MIB) + bytes(MIB) + os.urandom(MIB)), ("small", os.urandom(MIB))):
        (directory / name).write_bytes(data)
        made.import_image(directory / name, name)
    (directory / "zero").write_bytes(bytes(MIB))
    made.import_image(directory / "zero", "zero")
    yield made
    made.close()


def config(**changed: Any) -> Config:
    """Of a server on two addresses of loopback, each an interface of its own."""
    return Config(Server(["127.0.0.1", "127.0.0.2"]), Tftp("/"), cast=Cast(port=0, **{"rate": "100Mbit", **changed}))


class Classroom:
    """A server in a loop of its own."""

    def __init__(self, library: Library, loop: LoopThread) -> None:
        self.library, self.loop = library, loop
        self.machines = Machines()
        self.machines.image = library.get("demo").id
        self.casts = self.made(config())
        self.looked = threading.Event()

    def made(self, settings: Config) -> CastService:
        return CastService(
            settings,
            self.library,
            cast(Any, self.machines),
            interface_of=lambda address: f"eth{address[-1]}",
            ipv4_for=lambda address: address,
            mac_of=lambda _address: MAC,
        )

    def open(self, settings: Config | None = None) -> None:
        if settings is not None:
            self.casts = self.made(settings)
        look = self.casts.look

        async def looked(session: LiveSession) -> None:
            await look(session)
            self.looked.set()

        self.casts.look = looked  # type: ignore[method-assign]
        self.casts.open()
        self.http = MachineHttp(
            ("127.0.0.1", "127.0.0.2"), 0, cast(Any, None), cast(Any, self.machines), self.library,
            public_images=True, casts=self.casts,
        )  # fmt: skip
        self.http.open()
        self.loop.call(self.casts.start)
        self.loop.call(self.http.start)

    def close(self) -> None:
        self.loop.run(self.http.stop())
        self.loop.run(self.casts.stop())

    def join(
        self, receiver: str, image: str = "demo", run: str = "", address: str = "127.0.0.1", host: str = "127.0.0.1"
    ) -> Receiver:
        """A receiver on the machine `host` joins through our `address`."""
        found = self.library.get(image)
        port = self.http.ports[["127.0.0.1", "127.0.0.2"].index(address)]
        session = join(address, port, found.id, receiver, run=run, name=f"pc-{receiver}", host=host)
        layout = self.library.layout(found.id)
        lengths = [int.from_bytes(layout[at : at + 4], "little") for at in range(0, len(layout), 4)]
        return Receiver(session, lengths, host)

    def sessions(self) -> list[ImageSession]:
        return self.loop.call(self.casts.sessions)

    def until(self, what: str, holds: Any) -> ImageSession:
        """The newest session, once something holds of it."""
        while True:
            self.looked.clear()
            if (found := self.sessions()) and holds(found[-1]):
                return found[-1]
            assert self.looked.wait(60), f"never {what}: {found}"

    def until_states(self, wanted: list[str], *receivers: Receiver) -> ImageSession:
        """The newest session, once its receivers are in these states; `receivers` report meanwhile."""

        def holds(session: ImageSession) -> bool:
            for receiver in receivers:
                receiver.report()
            return states(session) == wanted

        return self.until(f"{wanted}", holds)


@pytest.fixture
def room(library: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[Classroom]:
    monkeypatch.setattr(service, "LOOK", 0.02)
    monkeypatch.setattr(service, "LINGER", 0.1)
    with LoopThread() as loop:
        made = Classroom(library, loop)
        made.open()
        yield made
        made.close()


def states(session: ImageSession) -> list[str]:
    return [receiver.state for receiver in session.receivers]


def test_two_machines_share_a_session_and_get_the_image(room: Classroom, library: Library) -> None:
    with closing(room.join("aaaaaaaa", run=RUN)) as one, closing(room.join("bbbbbbbb")) as two:
        assert one.session.session == two.session.session
        assert [one.session.receiver, two.session.receiver] == [1, 2]
        assert room.loop.call(lambda: room.casts.uses(library.get("demo").id))
        two.report()
        one.fetch()
        two.fetch()
        image = library.open_data(library.get("demo").id)
        stored = b"".join(os.pread(fd, length, offset) for fd, offset, length in image.segments(0, image.size))
        image.close()
        assert one.data() == stored
        assert two.data() == stored
        ended = room.until("ended", lambda session: session.state == "ended")
    assert states(ended) == ["done", "done"]
    assert [receiver.name for receiver in ended.receivers] == ["pc-one", "pc-bbbbbbbb"]
    assert ended.sent >= len(stored)
    assert not room.loop.call(lambda: room.casts.uses(library.get("demo").id))
    texts = [(event.job_id, event.text.split(" after ")[0]) for event in room.machines.events if event.kind == "cast"]
    name = ended.id
    assert sorted(texts, key=str) == sorted(
        [
            (7, f"Joined multicast session {name} of demo, as receiver 1."),
            (None, f"Joined multicast session {name} of demo, as receiver 2."),
            (7, "Has the whole image"),
            (None, "Has the whole image"),
        ],
        key=str,
    )
    assert room.casts.statistics["joined"] == 2
    assert room.casts.statistics["receiver.finished"] == 2


def test_joining_again_changes_nothing(room: Classroom) -> None:
    with closing(room.join("aaaaaaaa")) as one:
        again = room.join("aaaaaaaa")
        again.close()
        assert again.session == one.session
        assert room.casts.statistics["joined"] == 1
        assert [receiver.number for receiver in room.sessions()[-1].receivers] == [1]


def test_two_sessions_of_one_image_on_two_networks(room: Classroom) -> None:
    with closing(room.join("aaaaaaaa")) as one, closing(room.join("bbbbbbbb", address="127.0.0.2")) as two:
        assert one.session.group != two.session.group
        assert one.session.session != two.session.session
        assert (one.session.server, two.session.server) == ("127.0.0.1", "127.0.0.2")
        assert sorted(session.interface for session in room.sessions()) == ["eth1", "eth2"]
        one.fetch()
        # What the other session's receiver says in the wrong session counts for nothing.
        two.send(b"\xc5\x01\x03\x00" + bytes(100))
        two.fetch()
        assert one.data() == two.data()


def test_a_session_begins_when_the_rule_says_so(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK", 0.02)
    with LoopThread() as loop:
        room = Classroom(library, loop)
        room.open(config(start="2 machines"))
        with closing(room.join("aaaaaaaa")) as one:
            waiting = room.sessions()[-1]
            assert (waiting.state, waiting.waits) == ("waiting", "1 of 2 machines are there")
            one.report()
            one.listen(0.3)
            assert one.heard == 0
            with closing(room.join("bbbbbbbb")):  # on the same host: that is one machine
                assert room.sessions()[-1].state == "waiting"
            with closing(room.join("cccccccc", host="127.0.0.3")):
                assert room.sessions()[-1].state == "sending"
                one.fetch()
        room.close()


def test_a_machine_that_comes_back_is_one_machine(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job's run says at once which it is, from whatever address; another machine's receiver is not touched."""
    monkeypatch.setattr(service, "LOOK", 0.02)
    with LoopThread() as loop:
        room = Classroom(library, loop)
        room.open(config(start="3 machines"))
        with closing(room.join("aaaaaaaa", run=RUN, host="127.0.0.3")) as one, closing(room.join("bbbbbbbb")) as two:
            room.until_states(["receiving"] * 2, one, two)
            with closing(room.join("cccccccc", run=RUN, host="127.0.0.4")) as again:
                found = room.until_states(["dead", "receiving", "receiving"], two, again)
                assert (found.state, found.waits) == ("waiting", "2 of 3 machines are there")
                former = found.receivers[0]
                assert (former.reason, former.late) == ("it joined again, as receiver 3", False)
                assert room.machines.events[-1].text == (
                    f"Joined multicast session {found.id} of demo, as receiver 3, in place of receiver 1."
                )
                room.until_states(["receiving"] * 3, one, two, again)
        room.close()


def test_a_start_by_hand(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK", 0.02)
    with LoopThread() as loop:
        room = Classroom(library, loop)
        room.open(config(start="manual"))
        with closing(room.join("aaaaaaaa", "small")) as one:
            assert loop.call(lambda: room.casts.begin("small")).state == "sending"
            with pytest.raises(RefusedError, match="nothing to start"):
                loop.call(lambda: room.casts.begin(one.session.session[:6]))
            with pytest.raises(NotFoundError):
                loop.call(lambda: room.casts.begin("other"))
            one.fetch()
        room.close()


def test_a_start_by_hand_of_an_image_on_two_networks(library: Library) -> None:
    with LoopThread() as loop:
        room = Classroom(library, loop)
        room.open(config(start="manual"))
        with closing(room.join("aaaaaaaa")) as one, closing(room.join("bbbbbbbb", address="127.0.0.2")) as two:
            begun = [loop.call(lambda: room.casts.begin("demo")).id for _ in range(2)]
            assert begun == [one.session.session, two.session.session]
            with pytest.raises(RefusedError, match="nothing to start"):
                loop.call(lambda: room.casts.begin("demo"))
        room.close()


def test_the_beginning_of_two_ids_is_refused(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter((bytes.fromhex("ab12" + "0" * 12), bytes.fromhex("ab13" + "0" * 12)))
    monkeypatch.setattr(service, "session_id", lambda _key, _root: next(ids))
    room.join("aaaaaaaa").close()
    room.join("bbbbbbbb", "small").close()
    words = r"^The ids of 2 multicast sessions begin with ab: ab120+ \(demo, sending\), ab130+ \(small, sending\)\.$"
    for ask in (room.casts.session, room.casts.begin):
        with pytest.raises(RefusedError, match=words):
            room.loop.call(lambda ask=ask: ask("ab"))
    assert room.loop.call(lambda: room.casts.session("ab12")).image_name == "demo"
    assert room.loop.call(lambda: room.casts.session("small")).id.startswith("ab13")


def test_a_restart_of_the_server_in_the_middle(room: Classroom, library: Library) -> None:
    """Receivers join again and ask for what they lack; only that travels."""
    with closing(room.join("aaaaaaaa")) as one:
        one.fetch()
        old = one.session
        kept = one.frames[:2]
    room.close()
    room.open(config())
    with closing(room.join("aaaaaaaa")) as one:
        assert one.session.session != old.session
        assert one.session.key != old.key
        one.frames[:2] = kept
        # A report of the old session is nobody's: no answer, no harm.
        one.wire, new = one.wire._replace(id=int(old.session, 16), key=bytes.fromhex(old.key)), one.wire
        one.report()
        one.wire = new
        one.fetch()
        sent = room.until("done", lambda session: states(session) == ["done"]).sent
        assert one.lengths[2] <= sent < sum(one.lengths)


def test_the_last_one_is_told_to_take_http(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loses nothing and the others are done: a stream for one is what HTTP does better."""
    monkeypatch.setattr(policy, "_WORTH_SECONDS", 0.0)  # three chunks never take long
    with (
        closing(room.join("aaaaaaaa")) as one,
        closing(room.join("bbbbbbbb", host="127.0.0.3")) as two,
        closing(room.join("cccccccc", host="127.0.0.4")) as last,
    ):
        last.report()
        one.fetch()
        two.fetch()

        def is_told(session: ImageSession) -> bool:
            last.listen(0.0)
            last.frames[0].clear()  # what it always wants; it counts as written, so that it is no more than is sent
            last.report(received=10_000, expected=10_000, written=len(last.lengths))
            return states(session) == ["done", "done", "http"]

        told = room.until("told to take HTTP", is_told)
        assert told.receivers[2].reason == "only a few are left"
        while not last.orders:
            last.report()
            last.listen(0.1)
        assert (last.orders[0].order, last.orders[0].reason) == (Order.HTTP, Why.FEW)


def test_a_reload_changes_the_rate_of_a_running_session(room: Classroom) -> None:
    with closing(room.join("aaaaaaaa")) as one:
        assert room.sessions()[-1].rate == 100e6 / 8
        room.loop.call(lambda: room.casts.configure(config(rate="40Mbit")))
        one.report()
        assert room.until("slower", lambda session: session.rate == 40e6 / 8).cap == 40e6 / 8
        one.fetch()


def test_what_cannot_be_joined(room: Classroom, library: Library) -> None:
    port = room.http.ports[0]
    for image, status, words in (
        (library.get("zero").id, 409, "zero is all zeros"),
        ("0" * 64, 404, "There is no image 0000"),
    ):
        with pytest.raises(Refused, match=words) as refused:
            join("127.0.0.1", port, image, "cccccccc")
        assert refused.value.args[0] == status
    assert room.sessions() == []


def test_an_image_whose_pack_is_cut_off_is_refused_by_words(room: Classroom, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(os.urandom(MIB))
    with Library(tmp_path / "images") as damaged:
        image = damaged.import_image(tmp_path / "disk", "hurt").image
        (pack,) = (tmp_path / "images" / "packs").iterdir()
        os.truncate(pack, MIB // 2)
        room.casts._library = damaged
        with pytest.raises(Refused, match="hurt cannot be read from the store") as refused:
            join("127.0.0.1", room.http.ports[0], image.id, "cccccccc")
        assert refused.value.args[0] == 409


def test_chunks_that_cannot_be_read_are_one_line_for_the_operator(room: Classroom) -> None:
    """A pack that is cut off while a session sends it may have thousands."""
    with closing(room.join("aaaaaaaa")), capture_logs() as logs:
        session = next(iter(room.casts._live.values()))
        for chunk in range(3):
            room.loop.call(lambda chunk=chunk: room.casts._unreadable(session.id, chunk, errno.ENODATA))
        assert [line["chunk"] for line in logs if line["event"] == "a chunk cannot be read"] == [0]
        assert room.sessions()[-1].trouble.startswith("Chunk 2 cannot be read from the store")


def test_a_full_house_is_refused(room: Classroom, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_RECEIVERS", 1)
    monkeypatch.setattr(service, "MOST_SESSIONS", 1)
    room.join("aaaaaaaa").close()
    for image, words in (("demo", "has 1 receivers already"), ("small", "1 sessions run already")):
        with pytest.raises(Refused, match=words):
            room.join("bbbbbbbb", image)


def test_one_host_cannot_take_all_places(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_OF_ADDRESS", 2)
    first, second = room.join("aaaaaaaa"), room.join("bbbbbbbb")
    with pytest.raises(Refused, match="has 2 receivers of 127"):
        room.join("cccccccc")
    room.join("aaaaaaaa").close()  # who is in may join again
    first.fetch()
    room.until("has one that is done", lambda session: "done" in states(session))
    room.join("cccccccc").close()
    monkeypatch.setattr(service, "MOST_OF_ADDRESS", 9)
    monkeypatch.setattr(service, "MOST_JOINS_OF_ADDRESS", 3)
    with pytest.raises(Refused, match="had 3 receivers of 127"):
        room.join("dddddddd")
    for receiver in (first, second):
        receiver.close()


def test_who_joins_and_is_not_heard_takes_http_next_time(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall lets no reports through: each session would make it wait in vain."""
    monkeypatch.setattr(member, "DEAD_AFTER", 0.1)
    monkeypatch.setattr(service, "LINGER", 60.0)
    port, image = room.http.ports[0], room.library.get("demo").id
    join("127.0.0.1", port, image, "aaaaaaaa")
    room.until("has a receiver that is not heard", lambda session: states(session) == ["dead"])
    with pytest.raises(Refused, match=r"reports of 127.0.0.1 do not come: is UDP port [0-9]+") as end:
        join("127.0.0.1", port, image, "bbbbbbbb")
    assert end.value.args[0] == 409
    monkeypatch.setattr(service, "UNHEARD", 0.0)
    room.join("cccccccc").close()  # it is tried again some time


def test_groups_are_free_ones(library: Library) -> None:
    """Never one of [mtftp], nor one that has its Ethernet address, nor one that another session has."""
    settings = Config(
        Server("127.0.0.1"), Tftp("/"), cast=Cast(groups="239.255.78.0/30"), mtftp=Mtftp(True, "224.127.78.0/31")
    )
    made = CastService(settings, library, cast(Any, None), sender=cast(Any, object()), interface_of=str, ipv4_for=str)
    assert {made._free_group() for _ in range(50)} == {"239.255.78.2", "239.255.78.3"}


def test_the_senders_words_are_in_the_order_of_the_wires_numbers() -> None:
    assert ("", *(why.name.lower() for why in Why if why)) == REASON_NAMES
    assert {order: DIRECTIONS[order] for order in (Order.RECEIVE, Order.HTTP, Order.LISTEN)} == {
        Order.RECEIVE: "back", Order.HTTP: "http", Order.LISTEN: "listen"
    }  # fmt: skip
    assert set(REASONS) == {*Why} - {Why.NONE}  # the agent has a sentence for each


def test_moves_are_told_to_the_sender_and_to_the_machine(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(service, "direct", lambda *order: told.append(order) or _direct(*order))
    _direct = (
        service.direct.__globals__["direct"] if False else __import__("pxed._ext.cast_events", fromlist=["x"]).direct
    )
    with closing(room.join("aaaaaaaa", run=RUN)) as one:
        session = next(iter(room.casts._live.values()))
        step = Step(1, (Move(1, Order.LISTEN, Why.DISK),), (Note(1, "moved", "Moved out."),))
        room.loop.call(lambda: room.casts._obey(session, step))
        assert told == [(session.id, 1, "listen", "disk")]
        assert room.machines.events[-1].text == "Moved out."
        assert room.casts.statistics["moved.listen"] == 1
        one.report()
        one.listen(30)
        while not one.orders:
            one.report()
            one.listen(1)
        assert (one.orders[0].order, one.orders[0].reason) == (2, 1)


# -- limits ------------------------------------------------------------------------------------------------------------


def limits(speed: int | None = None, rates: dict[str, str] | None = None, **cast_keys: Any) -> Limits:
    settings = Config(Server("10.78.0.1", rates=rates or {}), Tftp("/"), cast=Cast(**cast_keys))
    return Limits(settings, lambda _interface: speed)


def test_rates_of_an_interface() -> None:
    said = limits(rate="170Mbit", rates={"eth1": "1Gbit"}, floor="20Mbit")
    assert said.bounds("eth0", 1, 0) == Bounds(2.5e6, 21.25e6)
    assert said.bounds("eth0", 2, 0).cap == 21.25e6 / 2
    assert limits(rate="170Mbit", session_rate="100Mbit").bounds("eth0", 1, 0).cap == 12.5e6
    assert limits(rate="10Mbit", floor="20Mbit").bounds("eth0", 1, 0) == Bounds(1.25e6, 1.25e6)


def test_a_rate_where_nothing_is_said_fits_the_line_and_most_ports() -> None:
    for speed, rates, line in (
        (None, {}, 125e6),
        (12_500_000, {}, 12.5e6),
        (1_250_000_000, {}, 125e6),
        (125_000_000, {"eth0": "200Mbit"}, 25e6),
    ):
        bounds = limits(speed, rates).bounds("eth0", 1, 0)
        assert bounds.cap == pytest.approx(0.8 * line / 1.07)
        assert bounds.floor == pytest.approx(bounds.cap / 10)


def test_hours_of_the_day_over_midnight_too() -> None:
    said = limits(rate="1Gbit", hours={"08:00-18:00": "80Mbit", "22:00-06:00": "400Mbit"})
    caps = {minute: said.bounds("eth0", 1, minute).cap * 8 / 1e6 for minute in (0, 359, 360, 480, 1079, 1080, 1320)}
    assert caps == {0: 400, 359: 400, 360: 1000, 480: 80, 1079: 80, 1080: 1000, 1320: 400}


def test_room_for_those_who_are_moved() -> None:
    assert limits(rate="170Mbit", rates={"eth0": "200Mbit"}).room("eth0", 21.25e6) == pytest.approx(
        25e6 - 21.25e6 * 1.07
    )
    assert limits(rate="170Mbit").room("eth0", 0) is None  # all that the site wants to see
    assert limits().room("eth0", 0) is None
    assert limits(125_000_000).room("eth0", 50e6) == pytest.approx(125e6 - 53.5e6)
    assert limits(12_500_000).room("eth0", 50e6) == 0
