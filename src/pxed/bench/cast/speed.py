"""How fast one core sends: a session without a limit, from a pack on disk into a cable that nobody listens at.

What is left out is what a network card would do: the cable (veth) carries whole runs, uncut, to a namespace that has
no use for them. What is measured is the way from the page cache to the device: the sender, its headers and MACs, the
kernel's copies and its way through UDP, IP and the queue.
"""

import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from pxed._ext import cast
from pxed._ext.cast_events import CastListing, admit, ask_session, open_session
from pxed._ext.cast_sender import CastSender
from pxed._ext.cast_source import CastSource
from pxed._ext.engine import Engine
from pxed.bench.namespace import Namespace
from pxed.errors import OperatorError
from pxed.wire.cast import PORT, SYMBOL

__all__ = ["CHUNK", "GROUP", "RECEIVER", "SERVER", "Speed", "cable", "measure", "random_source"]

SERVER, RECEIVER, GROUP = "10.99.0.1", "10.99.0.2", "239.255.79.1"
CHUNK = 1 << 20
_PAUSE = 0.02  # between two reports of the one receiver, who always wants everything


class Speed(Struct, frozen=True):
    """What was sent in how long: seconds of the clock, and of the processor for everything in this process."""

    bytes: int  # of symbols
    datagrams: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Payload, bits per second."""
        return self.bytes * 8 / self.seconds


@contextmanager
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    """A sender's host and a receiver's, with SERVER and RECEIVER as addresses, and a cable between them."""
    ours = Namespace()
    try:
        theirs = Namespace()
        try:
            ours.run("ip", "link", "add", "cast0", "type", "veth", "peer", "name", "cast0", "netns", str(theirs.pid))
            for place, address in ((ours, SERVER), (theirs, RECEIVER)):
                place.run("ip", "address", "add", f"{address}/24", "dev", "cast0")
                place.run("ip", "link", "set", "dev", "cast0", "up")
            yield ours, theirs
        finally:
            theirs.close()
    finally:
        ours.close()


def random_source(size: int) -> CastSource:
    """Frames of CHUNK random bytes, `size` bytes in all, in a file without a name."""
    source = CastSource()
    with tempfile.TemporaryFile(prefix="pxed-bench-") as pack:
        for _ in range(0, size, CHUNK):
            pack.write(os.urandom(CHUNK))
        pack.flush()
        for offset in range(0, size, CHUNK):
            source.add(pack.fileno(), offset, CHUNK)
    return source


def _listing(engine: Engine, session: int) -> CastListing:
    engine.post(ask_session(session))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for event in engine.drain():
            if isinstance(event, CastListing):
                return event
        time.sleep(0.001)
    raise OperatorError("The engine does not answer.")


def measure(seconds: float = 3.0, size: int = 256 << 20, cpu: int | None = None) -> Speed:
    """Send chunks of a pack of `size` bytes for so long, on one processor. Raises OperatorError without root."""
    key, session = secrets.token_bytes(16), secrets.randbits(64)
    allowed = os.sched_getaffinity(0)
    with cable() as (ours, theirs):
        with theirs.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind((RECEIVER, 0))
        engine = Engine(sender=CastSender())
        with ours.entered():
            (server,) = engine.bind([(SERVER, PORT)], multicast_ttl=1, bulk=True)
        source = random_source(size)
        try:
            os.sched_setaffinity(0, {max(allowed) if cpu is None else cpu})  # the engine's threads inherit it
            engine.start()
        finally:
            os.sched_setaffinity(0, allowed)
        try:
            engine.post(open_session(session, key, (GROUP, PORT), source))
            engine.post(admit(session, 1, RECEIVER))
            return _run(engine, cast.Session(session, key, SYMBOL), len(source), receiver, server, seconds)
        finally:
            engine.stop()
            receiver.close()


def _run(
    engine: Engine,
    session: cast.Session,
    chunks: int,
    receiver: socket.socket,
    server: tuple[str, int],
    seconds: float,
) -> Speed:
    """One receiver reports again and again that it has heard everything, and wants it all."""
    first, before, cpu = None, 0.0, 0.0
    number = 0
    while True:
        now, used, listing = time.monotonic(), time.process_time(), _listing(engine, session.id)
        if first is not None and now - before >= seconds:
            break
        if first is None and listing.passes:  # by then all is mapped
            first, before, cpu = listing, now, used
        number += 1
        highest = listing.sequence & 0xFFFFFFFF
        wants = ((0, chunks),)
        report = cast.Report(1, number, 0, 1, 0, highest, highest, highest, 0, 0, 0, 0, 0, 0, chunks, wants)
        receiver.sendto(cast.encode_report(report, session), server)
        time.sleep(_PAUSE)
    return Speed(listing.bytes - first.bytes, listing.sent - first.sent, now - before, used - cpu)
