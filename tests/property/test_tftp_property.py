"""Any bytes and any network: nothing breaks, nobody gets wrong bytes, nobody is used as an amplifier."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed._ext.blob import Blob
from pxed._ext.tftp import parse
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import (
    Client,
    Duplicate,
    Edk2,
    Grub,
    Ipxe,
    Loss,
    Plain,
    Reorder,
    Simulation,
    Windowed,
    ack,
    error,
    rrq,
)

FILE = random.Random(3).randbytes(30_000)

WORDS = b"f octet netascii mail blksize tsize timeout windowsize 0 1 8 512 1468 65536 -1 \xff".split()
words = st.sampled_from([*WORDS, b"", b"x" * 300])
requests = st.builds(
    lambda opcode, parts: opcode + b"\0".join(parts), st.sampled_from([b"\0\1", b"\0\2"]), st.lists(words)
)
packets = st.one_of(
    st.binary(max_size=64),
    requests,
    requests.map(lambda packet: packet + b"\0"),
    st.integers(0, 65535).map(ack),
    st.integers(0, 12).map(ack),
    st.integers(0, 9).map(error),
)


def plain_parse(data: bytes) -> tuple[str, str] | None:
    """Name and mode of a request, the slow way (RFC 1350)."""
    if data[:2] not in (b"\0\1", b"\0\2"):
        return None
    parts = data[2:].split(b"\0")
    if len(parts) < 3:
        return None
    mode = parts[1].decode("latin-1").translate({c: c + 32 for c in range(65, 91)})
    return parts[0].decode("utf-8", "surrogateescape"), mode if mode in ("octet", "netascii", "mail") else "other"


@given(packets)
@settings(max_examples=500, deadline=None)
def test_parser_agrees_with_a_slow_one(data: bytes) -> None:
    got = parse(data)
    wanted = plain_parse(data)
    if data[:2] in (b"\0\1", b"\0\2"):
        assert (None if got is None else (got.name, got.mode)) == wanted  # type: ignore[union-attr]
    else:
        assert wanted is None


@given(st.lists(st.tuples(packets, st.integers(0, 3), st.floats(0, 3)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_conversation_ends(conversation: list[tuple[bytes, int, float]]) -> None:
    """Whatever is said, in the end nothing runs, and every request had exactly one end."""
    server, now = VirtualTftp(), 0.0
    open_requests: set[int] = set()

    def turn() -> None:
        server.on_timer(now)
        for event in server.events():
            if hasattr(event, "mode"):
                open_requests.add(event.id)
                if event.id % 3:
                    server.send(event.id, Blob(FILE), now)
                else:
                    server.refuse(event.id, 1, "no", now)
            else:
                open_requests.remove(event.id)
        server.drain(now)

    for packet, host, wait in conversation:
        server.receive(packet, (f"10.0.0.{host}", 1000), now)
        turn()
        now += wait
    while (at := server.next_timer()) is not None:
        now = max(now, at)
        turn()
    turn()
    assert not open_requests
    assert server.statistics()["running"] == 0


@given(requests.map(lambda packet: packet + b"\0"))
@settings(max_examples=200, deadline=None)
def test_a_forged_request_makes_three_datagrams_at_most(packet: bytes) -> None:
    server, now, sent = VirtualTftp(), 0.0, 0
    server.receive(packet, ("10.0.0.1", 69), now)
    for event in server.events():
        server.send(event.id, Blob(FILE), now)
    while True:
        sent += len(server.drain(now))
        if (at := server.next_timer()) is None:
            break
        now = max(now, at)
        server.on_timer(now)
    assert sent <= 3


@given(
    st.sampled_from([Ipxe, Plain, Grub, Windowed, Edk2]),
    st.integers(0, 6000),
    st.integers(0, 2**32),
    st.floats(0, 0.1),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_right_bytes_or_none_over_any_network(
    kind: type[Client], size: int, seed: int, loss: float, twice: float, late: float
) -> None:
    """Duplicated and reordered packets of any age may slow a client down; they never change what it gets."""
    up = [Loss(loss, seed), Duplicate(twice, seed + 1), Reorder(late, seed + 2)]
    down = [Loss(loss, seed + 3), Duplicate(twice, seed + 4), Reorder(late, seed + 5)]
    simulation = Simulation({"f": FILE[:size]}, up=up, down=down)
    client = simulation.add(kind("f", ("10.0.0.1", 2070)))
    simulation.run(400)
    assert client.done, (client.failed, simulation.log[-40:])
    assert bytes(client.received) == FILE[:size]


def test_request_of_every_client_is_understood() -> None:
    for kind in (Ipxe, Plain, Grub, Windowed, Edk2):
        assert parse(rrq("f", **kind.options)) is not None
