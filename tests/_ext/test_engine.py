"""The end of an Engine that its owner has forgotten: descriptors, events and commands go with it, and quietly."""

import gc
import select
import socket
from pathlib import Path

from pxed._ext.blob import Blob
from pxed._ext.engine import Engine

PATIENCE = 60.0


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_an_engine_that_ends_in_a_cycle_of_garbage_ends_quietly() -> None:
    """What Python had in it may be gone by then; what it says about that would be an error of this test."""
    gc.collect()
    before = descriptors()
    engine = Engine()
    ((address, port),) = engine.bind([("127.0.0.1", 0)])
    engine.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"\0\1file\0octet\0", (address, port))
        assert select.select([engine.event_fd], [], [], PATIENCE)[0]
    engine.stop()
    engine.send(1, Blob(b"an event and a command that nobody takes"))
    cycle: list[object] = [engine]
    cycle.append(cycle)
    del cycle, engine
    gc.collect()
    assert descriptors() == before


def test_sockets_of_an_engine_that_never_began_are_closed_with_it() -> None:
    gc.collect()
    before = descriptors()
    engine = Engine()
    ((address, port),) = engine.bind([("127.0.0.1", 0)])
    assert descriptors() == before + 3
    del engine
    assert descriptors() == before
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((address, port))
