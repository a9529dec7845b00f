"""Any clients of PXE's MTFTP on any network: everybody ends, and with the right bytes."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed._ext.blob import Blob
from pxed._ext.mtftp_pxe import PassSender
from pxed._ext.tftp_events import Finished
from pxed._ext.tftp_virtual import VirtualTftp
from support.mtftp_pxe_sim import Client, Intel, Ipxe, Network
from support.tftp_sim import Duplicate, Loss, Reorder, ack, error, rrq

FILE = random.Random(3).randbytes(20_000)
SLOW = HealthCheck.too_slow

rates = st.sampled_from([0.0, 0.01, 0.1])


@pytest.mark.parametrize("kind", [Intel, Ipxe])
@given(
    pauses=st.lists(st.sampled_from([0.0, 0.002, 0.03]), min_size=1, max_size=6),
    starts=st.lists(st.floats(0, 3), min_size=6, max_size=6),
    deaf=st.lists(st.booleans(), min_size=6, max_size=6),
    deaths=st.lists(st.sampled_from([None, None, None, 0.01, 2.02]), min_size=6, max_size=6),
    size=st.sampled_from([0, 1, 512, 513, 20_000]),
    loss=rates,
    double=rates,
    late=rates,
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[SLOW])
def test_whoever_ends_has_the_right_bytes(
    kind: type[Client],
    pauses: list[float],
    starts: list[float],
    deaf: list[bool],
    deaths: list[float | None],
    size: int,
    loss: float,
    double: float,
    late: float,
    seed: int,
) -> None:
    """With 10 % loss a client may give up, as it would from any server."""
    faults = [Loss(loss, seed), Duplicate(double, seed + 1), Reorder(late, seed + 2)]
    net = Network({"f": FILE[:size]}, any_order=kind is Ipxe, down=faults, up=[Loss(loss, seed + 3)])
    clients = []
    for i, at in sorted(enumerate(starts[: len(pauses)]), key=lambda pair: pair[1]):
        net.run(max(net.now, at))
        clients.append(net.add(kind("f", f"10.0.0.{i + 2}", pause=pauses[i], deaf=deaf[i])))
    for client, at in zip(clients, deaths, strict=False):
        if at is not None:
            net.run(max(net.now, at))
            net.fail(client)
    net.run()
    for client in clients:
        if not client.dead:
            assert client.done or (client.failed and loss == 0.1), "\n".join(net.log)
            assert not client.done or client.received == FILE[:size]
    assert net.passes.statistics()["running"] == 0
    assert net.passes.next_timer() is None


steps = st.one_of(
    st.tuples(st.integers(0, 3), st.sampled_from([rrq("f"), rrq("g"), rrq("nothing")])),
    st.tuples(st.integers(0, 3), st.integers(0, 60).map(ack)),
    st.tuples(st.integers(0, 3), st.one_of(st.binary(max_size=8), st.integers(0, 9).map(error))),
)


@given(st.lists(st.tuples(steps, st.floats(0, 3)), max_size=60), st.booleans(), st.integers(1, 2))
@settings(max_examples=200, deadline=None, suppress_health_check=[SLOW])
def test_any_conversation_ends(
    conversation: list[tuple[tuple[int, bytes], float]], any_order: bool, groups: int
) -> None:
    """Whatever is said, in the end nothing runs, and every request had exactly one end."""
    server = VirtualTftp(sender=PassSender(any_order=any_order))
    files = {"f": Blob(FILE), "g": Blob(FILE[::-1])}
    now = 0.0
    asked: list[int] = []
    ended: list[int] = []

    def look() -> None:
        for _ in range(2):
            for event in server.events():
                if isinstance(event, Finished):
                    ended.append(event.id)
                    continue
                asked.append(event.id)
                if event.name in files:
                    group = (f"239.255.78.{1 + (groups == 2 and event.name == 'g')}", 2056)
                    server.send(event.id, files[event.name], now, group, quiet=2)
                else:
                    server.refuse(event.id, 1, "not found", now)
            server.drain(now)

    for (client, datagram), pause in conversation:
        server.receive(datagram, (f"10.0.0.{client + 2}", 2056), now, "10.0.0.1")
        look()
        now += pause
        server.on_timer(now)
        look()
    while (at := server.next_timer()) is not None:
        now = max(now, at)
        server.on_timer(now)
        look()
    assert sorted(ended) == sorted(asked) == list(range(1, len(asked) + 1))
    assert server.statistics()["running"] == 0
