"""Multicast and HTTP side by side: when each is taken, and that they bring one disk together."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_frames import CastLayout
from pxed.agent import cast
from pxed.agent.board import Board
from pxed.agent.cast import Cast, Group
from pxed.agent.failure import AgentFailure
from pxed.agent.progress import Tally
from pxed.agent.server import Patience, Refused, Unreachable
from pxed.agent.session import run
from pxed.agent.source import Source
from pxed.types import CastOrder, CastSession, Step
from pxed.wire.cast import session_id
from support.agent_machine import FakeMachine
from support.image_server import Answer, Handler, ImageServer, StoredImage

from .test_restore import damage
from .test_resume import fetched, interrupted

CHUNK = 1 << 20
IMAGE = "ab" * 32


def session_of(image: str, number: int = 1) -> CastSession:
    key = bytes([number]) * 16
    name = session_id(key, bytes.fromhex(image)).hex()
    return CastSession(name, key.hex(), image, "239.255.78.7", 1759, "127.0.0.1", number, 1436, 0.5)


class Ears:
    """A receiver that hears what a test says."""

    def __init__(self) -> None:
        self.http, self.quiet, self.ordered, self.log = False, float("inf"), (0, 0), list[str]()
        self.full, self.taken = False, 0

    def join(self, session: int, key: bytes, receiver: int, **where: object) -> None:
        self.log.append(f"join {receiver}")
        self.quiet, self.ordered = float("inf"), (0, 0)

    def leave(self) -> None:
        self.log.append("leave")

    def close(self) -> None:
        self.log.append("close")

    def heard(self) -> float:
        return self.quiet

    def order(self) -> tuple[int, int]:
        return self.ordered

    def figures(self) -> dict[str, int]:
        return {"expected": 200, "received": 150, "taken": self.taken}


class Answers(Source):
    """Joins are answered as a test says."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", IMAGE, Tally(lambda _: None), lambda: None)  # type: ignore[arg-type,return-value]
        self.answer: CastSession | Exception = session_of(IMAGE)
        self.asked = 0

    def join(self) -> CastSession:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Scene:
    """A group, its ears, and time."""

    def __init__(self, *, only: bool = False) -> None:
        self.time, self.said = 0.0, list[str]()
        self.source, self.ears, self.board = Answers(), Ears(), Board(10)
        patience = Patience(10, lambda: self.time, lambda _: False, self.said.append)
        self.cast = Cast(
            self.source,
            Tally(self.said.append),
            patience,
            lambda: self.time,
            only=only,
            make=lambda lengths, have: self.ears,  # type: ignore[arg-type,return-value]
        )

    def begin(self) -> Group:
        assert self.cast.join()
        from array import array

        self.group = self.cast.begin(array("I", [1] * 10), bytes(2), self.board)
        return self.group

    def pass_time(self, seconds: float, quiet: float | None = None, brings: int = 0) -> None:
        """Steps of 0.1 s; `quiet`: how long ago the last datagram came, always; `brings`: wanted ones in a step."""
        for _ in range(round(seconds * 10)):
            self.time += 0.1
            self.ears.taken += brings
            self.ears.quiet = self.ears.quiet + 0.1 if quiet is None else quiet
            self.group.step()


def test_a_group_that_is_not_heard_within_two_seconds_is_changed_for_http_and_back_when_it_comes() -> None:
    scene = Scene()
    group = scene.begin()
    scene.pass_time(1.8)
    assert (group.transport, scene.board.http) == ("waiting", False)
    scene.pass_time(0.3)
    assert (group.transport, scene.board.http, scene.ears.http) == ("http", True, True)
    assert "leave" not in scene.ears.log, "it goes on listening"
    scene.pass_time(0.2, quiet=0.1)
    assert (group.transport, scene.board.http, scene.ears.http) == ("cast", False, False)
    scene.pass_time(1.7)
    assert group.transport == "cast"
    scene.pass_time(0.4)
    assert group.transport == "http"
    assert [text for text in scene.said if "again" in text]


def test_a_server_that_was_started_anew_is_joined_again() -> None:
    scene = Scene()
    scene.begin()
    scene.pass_time(1, quiet=0.1)
    scene.source.answer = Unreachable("refused")
    scene.pass_time(30)
    assert 4 <= scene.source.asked <= 15, "with growing pauses"
    assert scene.board.http, "until then by HTTP, as soon as that answers"
    scene.source.answer = session_of(IMAGE, 2)
    scene.pass_time(cast.LAST_PAUSE * 1.5 + 0.2)
    assert scene.ears.log[:2] == ["join 1", "join 2"]
    assert set(scene.ears.log[2:]) <= {"join 2"}, "nothing is heard of it"
    scene.pass_time(0.1, quiet=0.0)
    assert not scene.board.http


def test_a_switch_that_forgot_the_machine_hears_of_it_again() -> None:
    scene = Scene()
    scene.begin()
    scene.pass_time(3, quiet=0.1)
    scene.pass_time(cast.SILENCE + 2 * cast.FIRST_PAUSE)
    assert set(scene.ears.log) == {"join 1"}
    assert len(scene.ears.log) > 1, "joining is what makes the kernel report the membership"
    assert scene.board.http, "and until it helps, by HTTP"


@pytest.mark.parametrize("order", [CastOrder.CLOSED, CastOrder.UNKNOWN])
def test_a_session_that_is_over_is_joined_again_at_once(order: int) -> None:
    scene = Scene()
    scene.begin()
    scene.pass_time(3, quiet=0.1)
    scene.source.answer = session_of(IMAGE, 3)
    scene.ears.ordered = (order, 5)
    scene.pass_time(0.1, quiet=0.1)
    assert scene.ears.log == ["join 1", "join 3"]


def test_the_same_session_is_entered_again_when_the_server_asks_for_it() -> None:
    scene = Scene()
    scene.begin()
    scene.pass_time(3, quiet=0.1)
    scene.ears.ordered = (CastOrder.UNKNOWN, 6)
    scene.pass_time(0.1, quiet=0.1)
    assert scene.ears.log == ["join 1", "join 1"]


def test_who_hears_the_group_but_gets_nothing_joins_again() -> None:
    """Its address has changed: the server does not take its reports for its own."""
    scene = Scene()
    scene.begin()
    scene.pass_time(30, quiet=0.1, brings=1)
    assert scene.ears.log == ["join 1"]
    scene.pass_time(cast.STALLED - 0.2, quiet=0.1)
    assert scene.ears.log == ["join 1"]
    scene.pass_time(0.4, quiet=0.1)
    assert scene.ears.log == ["join 1", "join 1"]
    scene.pass_time(60, quiet=0.1)
    assert 6 <= scene.source.asked <= 12, "with growing pauses, while that does not help"
    scene.pass_time(60, quiet=0.1, brings=1)
    asked = scene.source.asked
    scene.pass_time(cast.STALLED + 0.2, quiet=0.1)
    assert scene.source.asked == asked + 1
    scene.source.answer = Refused(409, "Your reports do not come.")
    scene.pass_time(cast.LAST_PAUSE * 1.5 + 0.1, quiet=0.1)
    assert scene.board.http, "and the server has found out why"


def test_who_is_ordered_to_http_leaves_for_good() -> None:
    scene = Scene()
    group = scene.begin()
    scene.pass_time(1, quiet=0.1)
    scene.ears.ordered = (CastOrder.HTTP, 4)
    scene.pass_time(20, quiet=0.1)
    assert scene.ears.log == ["join 1", "leave"]
    assert (group.transport, scene.board.http) == ("http", True)
    assert "few machines remain" in group.reason


def test_threads_that_wait_for_frames_are_let_go_as_soon_as_there_is_nothing_left_to_do() -> None:
    scene = Scene()
    group = scene.begin()
    scene.board.end()
    group.run()
    assert scene.ears.log == ["join 1", "close"]


def test_who_is_ordered_to_listen_waits_while_the_group_is_heard() -> None:
    scene = Scene()
    group = scene.begin()
    scene.ears.ordered = (CastOrder.LISTEN, 1)
    scene.pass_time(25, quiet=0.1)
    assert (group.transport, scene.board.http, scene.ears.log) == ("cast", False, ["join 1"])
    assert len([text for text in scene.said if "disk is slower" in text]) == 1
    scene.pass_time(3)
    assert scene.board.http


def test_a_join_that_is_refused_means_http() -> None:
    scene = Scene()
    scene.source.answer = Refused(409, "Multicast is off.")
    assert not scene.cast.join()
    assert any("Multicast is off." in text for text in scene.said)
    scene = Scene()
    group = scene.begin()
    scene.source.answer = Refused(409, "No more.")
    scene.pass_time(30)
    assert (group.transport, scene.board.http, scene.ears.http, scene.source.asked) == ("http", True, True, 2)
    assert [text for text in scene.said if "No more." in text] == ["The image comes by HTTP: No more."]


def test_a_group_that_cannot_be_joined_means_http() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    scene = Scene()
    scene.cast.interface = "127.0.0.1"
    scene.ears.join = refuse  # type: ignore[method-assign]
    group = scene.begin()
    assert (group.transport, scene.board.http) == ("http", True)
    assert scene.said[-1].endswith("239.255.78.7 cannot be joined through 127.0.0.1: Invalid argument")
    scene.pass_time(20)
    assert scene.source.asked == 1


def test_a_session_of_another_image_is_refused() -> None:
    scene = Scene()
    for wrong in (session_of("cd" * 32), CastSession("00" * 8, "xx", IMAGE, "239.1.1.1", 1, "127.0.0.1", 1, 1436, 0.5)):
        scene.source.answer = wrong
        assert not scene.cast.join()
    assert any("not this image's" in text for text in scene.said)


def test_multicast_only_fails_instead_of_taking_http() -> None:
    scene = Scene(only=True)
    scene.source.answer = Refused(409, "Multicast is off.")
    with pytest.raises(AgentFailure, match=r"Multicast is off\."):
        scene.cast.join()
    scene.source.answer = session_of(IMAGE)
    scene.begin()
    scene.pass_time(20)
    scene.pass_time(1, quiet=0.1)
    scene.pass_time(59)
    assert not scene.board.http
    waits = "Waits up to 60 s: the multicast group is not heard."
    assert [text for text in scene.said if text.startswith(("Waits", "The image"))] == [
        waits, "The image comes from the multicast group 239.255.78.7.", waits,
    ]  # fmt: skip
    with pytest.raises(AgentFailure, match="Nothing was heard"):
        scene.pass_time(3)


# -- the whole agent ---------------------------------------------------------------------------------------------------


class Radio(CastAssembler):
    """A receiver whose group is played by a test: `play` runs in a thread of its own after the join."""

    play: Callable[["Radio"], None]
    closed: threading.Event
    quiet, ordered = 0.0, (0, 0)

    def join(self, session: int, key: bytes, receiver: int, **_: object) -> None:
        self.thread = threading.Thread(target=self.play)
        self.thread.start()

    def leave(self) -> None:
        """Nothing is open."""

    def heard(self) -> float:
        return self.quiet

    def order(self) -> tuple[int, int]:
        return self.ordered

    def close(self) -> None:
        self.closed.set()
        super().close()
        self.thread.join(30)


@pytest.fixture
def radio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Radio], None]], list[Radio]]]:
    made: list[Radio] = []

    def tune(play: Callable[[Radio], None]) -> list[Radio]:
        def make(lengths: bytes, have: bytes) -> Radio:
            one = Radio(CastLayout(lengths), have)
            one.closed = threading.Event()
            one.play = play.__get__(one)  # type: ignore[attr-defined]
            made.append(one)
            return one

        monkeypatch.setattr(cast, "_compiled", make)
        return made

    return tune  # type: ignore[return-value]


Tune = Callable[[Callable[[Radio], None]], list[Radio]]


def image_server(image: StoredImage, **settings: object) -> ImageServer:
    return ImageServer(image, session=session_of(image.id), **settings)  # type: ignore[arg-type]


def test_everything_comes_by_multicast_in_any_order_but_a_small_seal(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune
) -> None:
    def play(one: Radio) -> None:
        for ordinal in reversed(range(len(image.frames))):
            one.give(ordinal, 0, image.frames[ordinal])

    made = radio(play)
    path = machine.add_disk("vda", len(disk), content=os.urandom(CHUNK) * (len(disk) // CHUNK + 1))
    with image_server(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes()[: len(disk)] == disk
    assert fetched(server) == len(image.frames[0]) + len(image.frames[-1]), "the seal, before the old table was gone"
    assert server.finish.bytes_fetched == len(image.data)
    assert made[0].left == 0
    assert any("by multicast" in text for text in server.messages())


def test_what_the_group_brought_in_part_is_completed_by_http(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune
) -> None:
    """Half of each frame was heard when the server orders HTTP."""
    half = 1436 * 4

    def play(one: Radio) -> None:
        for ordinal, frame in enumerate(image.frames):
            one.give(ordinal, 0, frame[:half])
        one.ordered = (CastOrder.HTTP, 1)

    radio(play)
    path = machine.add_disk("vda", len(disk))
    with image_server(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk
    rest = sum(len(frame) - half for frame in image.frames[1:-1])
    assert rest <= fetched(server) <= rest + len(image.frames[0]) + len(image.frames[-1])
    assert any("disk is slower" in text for text in server.messages())


def test_both_transports_at_once_make_one_disk(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune
) -> None:
    """The group comes and goes while it brings frames in pieces."""
    began = threading.Event()

    def play(one: Radio) -> None:
        one.quiet = 5.0
        began.wait(30)
        for at in range(0, max(map(len, image.frames)), 1436):
            for ordinal, frame in enumerate(image.frames):
                if frame[at:]:
                    one.give(ordinal, at, frame[at : at + 1436])

    def begin(url: str, handler: Handler) -> None:
        if url.endswith("/data"):
            began.set()

    radio(play)
    path = machine.add_disk("vda", len(disk))
    with image_server(image, before=begin) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cast, "SILENCE", 0.0)
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk


def wrong(image: StoredImage, ordinal: int) -> bytes:
    frame = bytearray(image.frames[ordinal])
    frame[len(frame) // 2] ^= 0x55
    return bytes(frame)


def test_a_chunk_that_comes_wrong_is_taken_again_then_by_http(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune
) -> None:
    def play(one: Radio) -> None:
        bad = wrong(image, 9)
        for ordinal, frame in enumerate(image.frames):
            one.give(ordinal, 0, bad if ordinal == 9 else frame)
        while not one.closed.is_set():  # wanted again once the first was looked at
            if one.missing(9) and one.left <= 1:
                one.give(9, 0, bad)
                break
            one.closed.wait(0.005)

    radio(play)
    path = machine.add_disk("vda", len(disk))
    with image_server(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk
    assert fetched(server) == sum(len(image.frames[ordinal]) for ordinal in (0, 9, -1))
    assert any("2 frames came damaged" in text for text in server.messages())


def test_a_chunk_that_stays_wrong_fails_the_job_by_its_name(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune
) -> None:
    def play(one: Radio) -> None:
        bad = wrong(image, 9)
        for ordinal, frame in enumerate(image.frames):
            one.give(ordinal, 0, bad if ordinal == 9 else frame)
        while not one.closed.wait(0.005):
            if one.missing(9):
                one.give(9, 0, bad)

    radio(play)
    machine.add_disk("vda", len(disk))
    with image_server(image, data=damage(image, 9)) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.RESTORE)
    assert f"Chunk {image.manifest.indexes()[9]} " in server.finish.reason


def test_what_a_resumed_disk_does_not_hold_comes_from_the_group(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune
) -> None:
    count = len(image.frames)
    path = interrupted(machine, image, disk, [2, 3, 4], claimed=[2, 3, 4, 7, 8])

    def play(one: Radio) -> None:
        for ordinal in itertools.cycle(range(count)):
            if one.closed.is_set():
                return
            if ordinal in (2, 3, 4):
                assert not one.missing(ordinal), "what is claimed is not asked for"
            elif one.missing(ordinal):
                one.give(ordinal, 0, image.frames[ordinal])
            one.closed.wait(0.001)

    radio(play)
    with image_server(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk
    assert fetched(server) <= len(image.frames[0]) + len(image.frames[-1])


def test_a_claimed_chunk_that_comes_as_soon_as_it_is_wanted_is_not_lost(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group sends it before the thread that found it missing on the disk has done anything else."""
    path = interrupted(machine, image, disk, [], claimed=[7])
    looked_at: SimpleQueue[tuple[int, bool]] = SimpleQueue()
    take, done = Board.take, Radio.done

    def note(board: Board, ordinal: int) -> bool:
        taken = take(board, ordinal)
        if ordinal == 7:
            looked_at.put((ordinal, taken))
        return taken

    def bring(one: Radio, ordinal: int, ok: bool) -> None:
        done(one, ordinal, ok)
        if not ok:
            one.give(ordinal, 0, image.frames[ordinal])
            assert looked_at.get(timeout=60) == (7, True)

    def play(one: Radio) -> None:
        for ordinal, frame in enumerate(image.frames):
            one.give(ordinal, 0, frame)

    monkeypatch.setattr(Board, "take", note)
    monkeypatch.setattr(Radio, "done", bring)
    radio(play)
    with image_server(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk


def test_a_disk_that_refuses_ends_the_job_whatever_brings_the_image(
    machine: FakeMachine, image: StoredImage, disk: bytes, radio: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwritev

    def full(descriptor: int, parts: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset >= 9 * CHUNK:
            raise OSError(28, "No space left on device")
        return write(descriptor, parts, offset, flags)

    def play(one: Radio) -> None:
        for ordinal in range(1, len(image.frames)):
            one.give(ordinal, 0, image.frames[ordinal])

    radio(play)
    machine.add_disk("vda", len(disk))
    monkeypatch.setattr(os, "pwritev", full)
    with image_server(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.RESTORE)
    assert "No space left on device" in server.finish.reason


def test_a_job_by_http_asks_for_no_session(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path: Path = machine.add_disk("vda", len(disk))
    with image_server(image, transport="http") as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk
    assert server.joins == []


def test_a_job_by_multicast_alone_fails_where_there_is_none(
    machine: FakeMachine, image: StoredImage, disk: bytes
) -> None:
    machine.add_disk("vda", len(disk))
    server = ImageServer(image, transport="cast")

    def off(url: str, handler: Handler) -> None:
        if url.endswith("/join"):
            handler.rfile.read(int(handler.headers["Content-Length"]))
            raise Answer(409, "Multicast is off.")

    server.before = off
    with server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert "Multicast is off." in server.finish.reason
