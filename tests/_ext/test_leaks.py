"""Memory that C code holds, watched in fresh processes: what was freed is used again, over and over."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# 300 bytes for each of the 20,000 transfers or blobs of a round would be 6 MB.
ALLOWED_GROWTH = 2 << 20

ROUNDS = {
    "transfers": """
        from pxed._ext.blob import Blob
        from pxed._ext.tftp_virtual import VirtualTftp
        server, blob = VirtualTftp(), Blob(b"x" * 1000)
        def work():
            for start in range(0, 20_000, 2_000):
                peers = [(f"10.0.{i // 250}.{i % 250}", 2070) for i in range(2_000)]
                for peer in peers:
                    server.receive(b"\\0\\1f\\0octet\\0tsize\\0000\\0", peer, start)
                for i, request in enumerate(server.events()):
                    if i % 5:
                        server.send(request.id, blob, start)
                    else:
                        server.refuse(request.id, 1, "no", start)
                server.drain(start)
                for peer in peers[::2]:
                    server.receive(b"\\0\\4\\0\\0", peer, start + 0.001)
                server.drain(start + 0.001)
                for peer in peers:
                    server.receive(b"\\0\\5\\0\\0closed\\0", peer, start + 0.002)
                server.drain(start + 0.002)
                server.events()
            assert server.statistics()["running"] == 0
    """,
    "blobs": """
        from pxed._ext.blob import Blob
        def work():
            for i in range(20_000):
                Blob(b"x" * 300).netascii()
            for i in range(200):
                Blob(bytes(100_000)).netascii()
    """,
    "cast sessions": """
        from pxed._ext.cast_events import close_session
        from support.cast_room import Talk
        talk = Talk()
        def work():
            for session in range(100, 120):
                now = 20.0 * session
                one = Talk(40, 100, session=session, server=talk)
                one.admit(*range(1, 11), now=now)
                for receiver in range(1, 11):
                    one.say(receiver, ((0, 40),), now=now)
                one.sent(now)
                for receiver in range(1, 11):
                    one.say(receiver, [(chunk, ((receiver, 2),)) for chunk in range(20)] + [(20, 9)], now=now)
                one.server.drain(now, 1)
                one.post(close_session(session), now)
                one.server.on_timer(now + 11)
                one.server.drain(now + 11)
                one.server.events()
            assert talk.server.statistics()["sessions"] == 1
            assert talk.server.statistics()["parity"]
    """,
    "multicast passes": """
        from pxed._ext.blob import Blob
        from pxed._ext.mtftp_pxe import PassSender
        from pxed._ext.tftp_virtual import VirtualTftp
        server, blob = VirtualTftp(sender=PassSender(any_order=True)), Blob(b"x" * 1000)
        now = 0.0
        def work():
            global now
            for start in range(100):
                now += 20
                server.on_timer(now)
                for i in range(200):
                    server.receive(b"\\0\\1%d\\0octet\\0" % i, (f"10.0.0.{i + 1}", 2070), now)
                for request in server.events():
                    if request.id % 5:
                        server.send(request.id, blob, now, (f"239.0.0.{request.id % 200}", 3001))
                    else:
                        server.refuse(request.id, 1, "no", now)
                server.drain(now)
                for i in range(0, 200, 2):
                    server.receive(b"\\0\\4\\0\\2", (f"10.0.0.{i + 1}", 2070), now + 0.001)
                server.drain(now + 0.001)
                for i in range(200):
                    server.receive(b"\\0\\5\\0\\0closed\\0", (f"10.0.0.{i + 1}", 2070), now + 0.002)
                server.drain(now + 0.002)
                server.events()
            assert server.statistics()["running"] == 0
            assert server.statistics()["outcome.ok"]
    """,
    "large files": """
        import tempfile
        from pxed._ext.blob import Blob
        from pxed._ext.tftp_virtual import VirtualTftp
        file = tempfile.TemporaryFile()
        file.truncate(100_000)
        def work():
            for i in range(200):
                server = VirtualTftp()
                for port in range(1, 20):
                    server.receive(b"\\0\\1f\\0octet\\0", ("10.0.0.1", port), 0)
                for request in server.events():
                    server.send(request.id, Blob.from_large_file(file.fileno()), 0)
                server.drain(0)
                for port in range(1, 10):
                    server.receive(b"\\0\\5\\0\\0closed\\0", ("10.0.0.1", port), 0.002)
                server.drain(0.002)
    """,
    "frames of cast sessions": """
        from support.cast_sim import Image
        image = Image([64 * 300] * 40)
        datagrams = [image.data(o, n) for o in range(40) for n in range(0, 302 + o % 20, 1 + (o % 5 == 0))]
        def work():
            for i in range(10):
                receiver = image.assembler(memory=64 * 300 * 8, queue=64 * 300 * 10)
                for turn in range(2):
                    for datagram in datagrams:
                        receiver.receive(datagram, 1.0)
                    receiver.reports(2.0 + turn)
                    for taken in iter(receiver.take, None):
                        receiver.done(taken[0], taken[0] % 3 > 0)
                for ordinal in receiver.partials():
                    receiver.give(ordinal, 64, image.frames[ordinal][64:])
                receiver.begin(5, bytes(16), 3, 9.0, symbol=64 if i % 2 else 100)
    """,
    "servers": """
        from pxed._ext.blob import Blob
        from pxed._ext.engine import Engine
        from pxed._ext.tftp_virtual import VirtualTftp
        def work():
            for i in range(20):
                server = VirtualTftp()
                for port in range(1, 100):
                    server.receive(b"\\0\\1f\\0octet\\0", ("10.0.0.1", port), 0)
                for request in server.events()[::2]:
                    server.send(request.id, Blob(b"x" * 3000), 0)
                engine = Engine()
                engine.bind([("127.0.0.1", 0)])
                engine.start()
                engine.stop()
    """,
}

FRAME = """
{work}
import gc, os
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
work(); work()
before = resident()
for _ in range(5):
    work()
print(resident() - before)
"""


@pytest.mark.parametrize("name", ROUNDS)
def test_memory_does_not_grow(name: str) -> None:
    script = FRAME.format(work=textwrap.dedent(ROUNDS[name]))
    # The address sanitizer keeps what was freed for a while, 256 MB of it unless told otherwise.
    environment = {**os.environ, "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb=1"}
    # The scripts use the tests' own modules, too.
    environment["PYTHONPATH"] = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < ALLOWED_GROWTH
