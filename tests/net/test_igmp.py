"""IGMP queriers: which packets are queries, when one is missed, and a Linux bridge that is one."""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed.errors import OperatorError
from pxed.net.dhcp import checksum
from pxed.net.igmp import PATIENCE, QuerierWatch, Query, ask, message, missing, parse, shared_groups
from pxed.net.interfaces import served
from support.netns import Namespace, Net

ALERT = bytes((0x94, 4, 0, 0))


def packet(body: bytes, *, options: bytes = ALERT, protocol: int = 2, source: str = "10.0.0.1") -> bytes:
    """An IPv4 packet with an IGMP message, whose checksum is put right."""
    body = body[:2] + b"\0\0" + body[4:]
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    words = 5 + len(options) // 4
    header = bytes((0x40 | words, 0xC0)) + (4 * words + len(body)).to_bytes(2, "big")
    header += bytes((0, 0, 0x40, 0, 1, protocol, 0, 0)) + IPv4Address(source).packed + IPv4Address("224.0.0.1").packed
    return header + options + body


def query(code: int, group: str = "0.0.0.0", more: bytes = b"") -> bytes:
    return bytes((0x11, code, 0, 0)) + IPv4Address(group).packed + more


V3 = bytes((2, 125, 0, 0))  # robustness, interval, no sources


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (query(0), Query(1, "10.0.0.1", "0.0.0.0", None)),
        (query(100), Query(2, "10.0.0.1", "0.0.0.0", None)),
        (query(10, "239.255.78.1"), Query(2, "10.0.0.1", "239.255.78.1", None)),
        (query(100, more=V3), Query(3, "10.0.0.1", "0.0.0.0", 125.0)),
        (query(100, more=bytes((2, 0x8A, 0, 0))), Query(3, "10.0.0.1", "0.0.0.0", 208.0)),
        (query(100, more=bytes((2, 0xFF, 0, 1)) + bytes(4)), Query(3, "10.0.0.1", "0.0.0.0", 31744.0)),
        (query(0, more=V3), Query(3, "10.0.0.1", "0.0.0.0", 125.0)),
    ],
)
def test_queries_of_all_versions(body: bytes, wanted: Query) -> None:
    assert parse(packet(body)) == wanted
    assert parse(packet(body, options=b"")) == wanted
    assert parse(packet(body) + b"padding of a short frame") == wanted


def test_a_switch_without_an_address_queries_too() -> None:
    assert parse(packet(query(100), source="0.0.0.0")) == Query(2, "0.0.0.0", "0.0.0.0", None)


GOOD = packet(query(100, more=V3))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet(query(100, more=b"x")),  # of no version's length
        packet(query(100)[:7]),
        packet(bytes((0x22, 0, 0, 0, 0, 0, 0, 0))),  # a report
        packet(query(100, "10.0.0.1")),
        packet(query(100), protocol=17),
        GOOD[:-1] + bytes((GOOD[-1] ^ 1,)),  # damaged
        bytes((0x65,)) + GOOD[1:],  # IPv6
        bytes((0x41,)) + GOOD[1:],  # a header of 4 bytes
        GOOD[:2] + b"\0\x18" + GOOD[4:],  # a packet without a message
    ],
)
def test_what_is_no_query(data: bytes) -> None:
    assert parse(data) is None


def test_cut_anywhere_it_is_none() -> None:
    assert all(parse(GOOD[:length]) is None for length in range(len(GOOD)))


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_a_query_or_none(data: bytes, framed: bool) -> None:
    parse(packet(data + bytes(8)) if framed else data)


def test_own_messages() -> None:
    assert message(0x17, "239.255.78.1") == bytes.fromhex("1700") + b"\xaa\xfe" + bytes((239, 255, 78, 1))
    assert checksum(message(0x16, "239.1.2.3")) == 0


# -- the watch ---------------------------------------------------------------------------------------------------------


def test_who_does_not_listen_knows_nothing() -> None:
    watch = QuerierWatch(lambda: 1e6)
    watch.read()
    watch.start()
    assert (watch.heard("eth0"), watch.misses("eth0"), watch.fileno()) == (None, False, -1)
    watch.close()


def test_it_needs_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(OperatorError, match=r"needs root \(CAP_NET_RAW\)"):
        QuerierWatch().open()


@pytest.fixture
def host() -> Iterator[tuple[Namespace, Namespace]]:
    """A host, and the switch before it."""
    with Net() as net:
        here, switch = net.namespace("host"), net.namespace("switch")
        net.link(here, "eth0", switch, "port0")
        net.bridge(switch, "bridge", "port0")
        here.address("eth0", "10.1.0.1/24")
        yield here, switch


def make_querier(switch: Namespace, on: bool) -> None:
    """The bridge queries when it begins to, and after that in two minutes."""
    switch.run("ip", "link", "set", "dev", "bridge", "type", "bridge", "mcast_snooping", "1",
               "mcast_startup_query_count", "1", "mcast_querier", str(int(on)))  # fmt: skip


@pytest.mark.root
def test_a_bridge_that_queries_is_heard_and_in_time_missed(host: tuple[Namespace, Namespace]) -> None:
    here, switch = host
    now = 1000.0

    async def listen() -> None:
        nonlocal now
        watch = QuerierWatch(lambda: now)
        with here:
            watch.open()
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        watch.start()
        take_in, watch.read = watch.read, lambda: (take_in(), heard.set())  # type: ignore[method-assign,func-returns-value]
        watch.start()
        try:
            assert watch.heard("eth0") is None
            now += PATIENCE
            assert watch.misses("eth0")
            with here:  # where the names of interfaces are looked up as queries come
                await loop.run_in_executor(None, make_querier, switch, True)
                while watch.heard("eth0") is None:
                    await asyncio.wait_for(heard.wait(), 60)
                    heard.clear()
            now += 17
            assert (watch.heard("eth0"), watch.misses("eth0"), watch.heard("eth1")) == (17.0, False, None)
            now += PATIENCE
            assert watch.misses("eth0")
        finally:
            watch.close()

    asyncio.run(listen())


@pytest.mark.root
def test_a_querier_speaks_when_asked(host: tuple[Namespace, Namespace]) -> None:
    """Long after the last of its queries; two versions of IGMP."""
    here, switch = host
    make_querier(switch, True)
    for version in ("2", "3"):
        switch.run("ip", "link", "set", "dev", "bridge", "type", "bridge", "mcast_igmp_version", version)
        with here:
            assert ask(served(["10.1.0.1"]), seconds=60) == {"eth0"}


@pytest.mark.root
def test_nobody_speaks_without_a_querier(host: tuple[Namespace, Namespace]) -> None:
    here, switch = host
    make_querier(switch, False)
    with here:
        assert ask(served(["10.1.0.1"]), seconds=0.1) == set()
        gone = served(["10.1.0.1"])
        here.run("ip", "link", "delete", "eth0")
        with pytest.raises(OperatorError, match="IGMP cannot be used on eth0"):
            ask(gone)
    assert "on eth0: switches with IGMP snooping forget" in missing("eth0")


# -- groups that share an Ethernet address -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (["239.255.78.0/24", "239.255.79.0/24"], []),
        (["239.255.78.0/24", "239.127.78.0/24"], ["mtftp1.groups 239.127.78.0/24"]),
        (["239.255.78.0/24", "239.255.76.0/22"], ["mtftp1.groups 239.255.76.0/22"]),
        (["239.255.78.0/24", "239.127.78.5/32"], ["Ethernet addresses of mtftp1.groups 239.127.78.5:"]),
        (["239.128.0.0/24"], ["224.0.0.0/24"]),
        (["224.0.0.16/28"], ["224.0.0.0/24"]),
        (["239.0.1.0/24"], []),
    ],
)
def test_groups_that_switches_cannot_tell_apart(ranges: list[str], said: list[str]) -> None:
    named = [(f"mtftp{number}.groups", IPv4Network(network)) for number, network in enumerate(ranges)]
    findings = list(shared_groups(named))
    assert len(findings) == len(said)
    assert all(text in finding.text for finding, text in zip(findings, said, strict=True))
