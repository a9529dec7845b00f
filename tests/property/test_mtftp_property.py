"""Any clients of RFC 2090 on any network: everybody ends, and with the right bytes."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed._ext.blob import Blob
from pxed._ext.mtftp_groups import GroupSender
from pxed._ext.tftp_events import Finished, Request
from pxed._ext.tftp_virtual import VirtualTftp
from support.mtftp_sim import Edk2, Group, Ipxe, Multicast
from support.tftp_sim import Duplicate, Loss, Reorder, ack, error

FILE = random.Random(3).randbytes(20_000)
SLOW = HealthCheck.too_slow

rates = st.sampled_from([0.0, 0.01, 0.1])


@given(
    kinds=st.lists(st.sampled_from([Multicast, Edk2, Ipxe]), min_size=1, max_size=6),
    blksizes=st.lists(st.sampled_from([512, 1000, 1468]), min_size=6, max_size=6),
    pauses=st.lists(st.sampled_from([0.0, 0.002, 0.03]), min_size=6, max_size=6),
    starts=st.lists(st.floats(0, 0.3), min_size=6, max_size=6),
    deaths=st.lists(st.sampled_from([None, None, None, 0.01, 0.2]), min_size=6, max_size=6),
    size=st.sampled_from([0, 1, 1468, 1469, 20_000]),
    loss=rates,
    double=rates,
    late=rates,
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[SLOW])
def test_everybody_ends_with_the_right_bytes(
    kinds: list[type[Multicast]],
    blksizes: list[int],
    pauses: list[float],
    starts: list[float],
    deaths: list[float | None],
    size: int,
    loss: float,
    double: float,
    late: float,
    seed: int,
) -> None:
    """With up to 10 % loss a client may give up, as it would from any server; whoever ends well has the file."""
    faults = [Loss(loss, seed), Duplicate(double, seed + 1), Reorder(late, seed + 2)]
    net = Group({"f": FILE[:size]}, down=faults, up=[Loss(loss, seed + 3), Duplicate(double, seed + 4)])
    clients = []
    for i, at in sorted(enumerate(starts[: len(kinds)]), key=lambda pair: pair[1]):
        net.run(at)
        clients.append(net.add(kinds[i]("f", (f"10.0.0.{i + 2}", 2000 + i), blksize=blksizes[i], pause=pauses[i])))
    for client, at in zip(clients, deaths, strict=False):
        if at is not None:
            net.run(max(net.now, at))
            net.fail(client)
    net.run()
    alive = [client for client in clients if not client.dead]
    for client in alive:
        assert client.done or client.failed, "\n".join(net.log)
        assert client.done or loss == 0.1, "\n".join(net.log)
        assert not client.done or client.received == FILE[:size]
    figures = net.groups.statistics()
    assert figures["running"] == figures["groups"] == 0
    assert net.groups.next_timer() is None


steps = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 3), st.sampled_from([8, 512, 1468]), st.integers(0, 1)),
    st.tuples(st.just("say"), st.integers(0, 3), st.integers(0, 60).map(ack), st.just(0)),
    st.tuples(
        st.just("say"), st.integers(0, 3), st.one_of(st.binary(max_size=8), st.integers(0, 9).map(error)), st.just(0)
    ),
)


@given(st.lists(st.tuples(steps, st.floats(0, 3)), max_size=60), st.integers(1, 2))
@settings(max_examples=200, deadline=None, suppress_health_check=[SLOW])
def test_any_conversation_ends(conversation: list[tuple[tuple, float]], addresses: int) -> None:  # type: ignore[type-arg]
    """Whatever is said, in the end nothing runs, and every join had exactly one end."""
    server, now = VirtualTftp(sender=GroupSender("239.255.78.0", addresses, 1758, limit=3)), 0.0
    blobs = [Blob(FILE), Blob(FILE[:100])]
    joined: set[int] = set()
    ended: list[int] = []

    def turn() -> None:
        server.on_timer(now)
        server.drain(now)
        ended.extend(event.id for event in server.events() if isinstance(event, Finished))

    for (what, who, detail, which), wait in conversation:
        peer = (f"10.0.0.{who}", 2070)
        if what == "join":
            request = Request(0, peer, "10.0.0.1", "f", "octet", {"multicast": 0, "blksize": detail})
            joined.add(server.join(request, blobs[which], now))
        else:
            server.receive(detail, peer, now, "10.0.0.1")
        turn()
        now += wait
    while (at := server.next_timer()) is not None:
        now = max(now, at)
        turn()
    turn()
    assert sorted(ended) == sorted(joined)
    assert server.statistics()["running"] == 0
