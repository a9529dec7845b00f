"""The sender's engine and receivers on one network that loses datagrams: everybody has the image in the end."""

import random
import secrets
import struct
import tempfile
import threading
from contextlib import ExitStack

import pytest

from pxed._ext.cast_events import admit, open_session
from pxed._ext.cast_frames import CastLayout
from pxed._ext.cast_receiver import CastReceiver
from pxed._ext.cast_sender import CastSender
from pxed._ext.cast_source import CastSource
from pxed._ext.engine import Engine
from support.netns import Net

pytestmark = pytest.mark.root

GROUP, PORT, SESSION, KEY = "239.255.77.2", 1759, 0xC0FFEE, bytes(range(16))
PATIENCE = 60.0
LOSS = """
add table ip lossy
add chain ip lossy in { type filter hook input priority 0; }
add rule ip lossy in udp dport 1759 numgen random mod 100 < 5 drop
"""


def take_all(receiver: CastReceiver, frames: list[bytes], wrong: int) -> None:
    """Every frame is right; the first `wrong` ones are said not to be, and come again."""
    while receiver.left:
        taken = receiver.take(PATIENCE)
        assert taken is not None, receiver.figures()
        assert memoryview(taken[1]) == frames[taken[0]]
        receiver.done(taken[0], wrong <= 0)
        wrong -= 1


def test_everybody_has_the_image_in_the_end() -> None:
    chance = random.Random(5)
    frames = [chance.randbytes(size) for size in (300_000, 1, 1_048_576, 1436, 40_000, 700_000, 999_999)]
    layout = CastLayout(struct.pack("<7I", *map(len, frames)))
    with Net() as net, ExitStack() as stack:
        switch, host = net.namespace("switch"), net.namespace("server")
        hosts = [net.namespace(name) for name in ("one", "two", "three")]
        for index, namespace in enumerate([host, *hosts]):
            net.link(switch, f"port{index}", namespace, "eth0")
            namespace.address("eth0", f"10.9.0.{index + 1}/24")
        net.bridge(switch, "br0", *(f"port{index}" for index in range(4)))
        hosts[0].run("nft", LOSS)
        hosts[1].run("nft", LOSS)

        pack = stack.enter_context(tempfile.TemporaryFile())
        pack.write(b"".join(frames))
        pack.flush()
        source, at = CastSource(), 0
        for frame in frames:
            source.add(pack.fileno(), at, len(frame))
            at += len(frame)
        engine = Engine(sender=CastSender())
        stack.callback(engine.stop)
        with host:
            engine.bind([("10.9.0.1", PORT)], multicast_ttl=1)
        engine.start()
        engine.post(open_session(SESSION, KEY, (GROUP, PORT), source, rate=20_000_000, period=0.2))

        receivers = [CastReceiver(layout, seed=secrets.randbits(64)) for _ in hosts]
        threads = []
        for number, (namespace, receiver) in enumerate(zip(hosts, receivers, strict=True), 1):
            stack.callback(receiver.close)
            engine.post(admit(SESSION, number, f"10.9.0.{number + 1}"))
            if number == 3:  # late, once somebody has all; and what it has of one frame is from elsewhere
                threads[0].join(PATIENCE)
                receiver.give(2, 0, frames[2][:500_000])
            with namespace:
                receiver.join(SESSION, KEY, number, group=GROUP, port=PORT, server="10.9.0.1", period=0.2)
            thread = threading.Thread(target=take_all, args=(receiver, frames, 2 if number == 2 else 0))
            threads.append(thread)
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        figures = [receiver.figures() for receiver in receivers]
        assert [one["left"] for one in figures] == [0, 0, 0], figures
        assert [one["wrong"] for one in figures] == [0, 2, 0]
        assert figures[2]["given"] == 500_000 // 1436 * 1436
        assert all(one["received"] < one["expected"] for one in figures[:2])
        assert not any(one["drop.mac"] or one["drop.session"] for one in figures)
