"""Who else answers PXE clients: the probe's packets, what offers mean, and real servers heard in a namespace."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxed.errors import OperatorError
from pxed.net.holders import holders
from pxed.net.interfaces import InterfaceAddress, list_addresses
from pxed.net.probe import LISTEN_SECONDS, PROBE_MAC, Offer, discover, judge, listen, read_offer
from pxed.wire.dhcp import Packet, decode, encode
from pxed.wire.iana import MessageType
from support.netns import Namespace, Net

XID = 0x01020304


def offer(**changed: object) -> bytes:
    fields: dict[str, object] = {
        "op": 2,
        "xid": XID,
        "chaddr": PROBE_MAC,
        "yiaddr": "10.0.0.50",
        "options": {53: b"\2", 54: bytes((10, 0, 0, 1))},
    }
    return encode(Packet(**(fields | changed)))  # type: ignore[arg-type]


def test_probe_is_a_pxe_discover_that_asks_for_broadcast() -> None:
    packet = decode(discover(XID))
    assert isinstance(packet, Packet)
    assert (packet.op, packet.xid, packet.flags, packet.chaddr) == (1, XID, 0x8000, PROBE_MAC)
    assert packet.options[53] == bytes((MessageType.DISCOVER,))
    assert packet.options[60].startswith(b"PXEClient:Arch:00000")
    assert PROBE_MAC[0] & 0x03 == 0x02  # locally administered, not a group


def test_offer_is_read() -> None:
    options = {53: b"\2", 54: bytes((10, 0, 0, 1)), 60: b"PXEClient\0", 66: b"10.0.0.2", 67: b"pxelinux.0\0"}
    assert read_offer(offer(options=options), XID, "eth0", "10.0.0.9") == Offer(
        interface="eth0", server="10.0.0.1", address="10.0.0.50", class_id="PXEClient", boot="10.0.0.2 pxelinux.0"
    )
    header = read_offer(
        offer(yiaddr="0.0.0.0", siaddr="10.0.0.3", file=b"x.efi", options={53: b"\2"}), XID, "e", "9.9.9.9"
    )
    assert header == Offer(interface="e", server="9.9.9.9", boot="10.0.0.3 x.efi")


OTHERS = {
    "another exchange": offer(xid=XID + 1),
    "another machine": offer(chaddr=b"\2\0\0\0\0\1"),
    "a request": offer(op=1),
    "no offer": offer(options={53: b"\5"}),
    "BOOTP": offer(options={}),
    "noise": b"\0" * 400,
}


@pytest.mark.parametrize("payload", OTHERS.values(), ids=OTHERS)
def test_what_is_no_answer_to_the_probe(payload: bytes) -> None:
    assert read_offer(payload, XID, "eth0", "10.0.0.1") is None


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_read(payload: bytes) -> None:
    assert read_offer(payload, XID, "eth0", "10.0.0.1") is None


LEASE = Offer("eth0", "10.0.0.1", address="10.0.0.50")
PROXY = Offer("eth0", "10.0.0.2", class_id="PXEClient", boot="10.0.0.2 pxelinux.0")


@dataclass
class Judged:
    offers: list[Offer]
    found: list[tuple[str, str]]
    ours: tuple[str, ...] = ()


JUDGED = {
    "plain DHCP server": Judged([LEASE], []),
    "nobody": Judged([], [("warning", "no-dhcp")]),
    "our own answer": Judged([LEASE, PROXY], [], ("10.0.0.2",)),
    "another proxyDHCP": Judged([LEASE, PROXY], [("error", "other-proxy-dhcp")]),
    "DHCP server with option 60": Judged(
        [Offer("eth0", "10.0.0.1", address="10.0.0.50", class_id="PXEClient")], [("error", "dhcp-option-60")]
    ),
    "DHCP server on our own host with option 60": Judged(
        [Offer("eth0", "10.0.0.2", address="10.0.0.50", class_id="PXEClient")],
        [("error", "dhcp-option-60")],
        ("10.0.0.2",),
    ),
    "DHCP server with a boot file": Judged(
        [Offer("eth0", "10.0.0.1", address="10.0.0.50", boot="10.0.0.1 x")], [("warning", "dhcp-boot-file")]
    ),
    "the same twice": Judged([LEASE, LEASE, PROXY, PROXY], [("error", "other-proxy-dhcp")]),
}


@pytest.mark.parametrize("case", JUDGED.values(), ids=JUDGED)
def test_judgement(case: Judged) -> None:
    assert [(finding.level, finding.kind) for finding in judge("eth0", case.offers, case.ours)] == case.found


def test_sentences() -> None:
    texts = [finding.text for finding in judge("eth0", [PROXY], ())]
    assert texts == [
        "Another proxyDHCP answers on eth0: 10.0.0.2 (it boots 10.0.0.2 pxelinux.0). Machines take whichever of the "
        "two is first. Stop it, or keep it away from the machines of pxed.",
        "No DHCP server offered an address on eth0 within 4 s: machines need one, pxed gives none.",
    ]


# -- on a wire ------------------------------------------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts on one cable: ours and another."""
    with Net() as net:
        ours, other = net.namespace("ours"), net.namespace("other")
        net.link(ours, "eth0", other, "eth0")
        ours.address("eth0", "10.9.0.1/24")
        other.address("eth0", "10.9.0.2/24")
        yield ours, other


def dnsmasq(where: Namespace, tmp_path: Path, *options: str) -> None:
    daemon = where.daemon(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"),
        *("--interface=eth0", "--log-facility=-", f"--pid-file={tmp_path}/pid", f"--dhcp-leasefile={tmp_path}/leases"),
        *options,
    )
    daemon.wait_for("DHCP, ")


def heard(where: Namespace, seconds: float = LISTEN_SECONDS) -> list[tuple[str, str]]:
    with where:
        served = [entry for entry in list_addresses() if entry.name == "eth0"]
        offers = listen(served, seconds=seconds)
    return [(finding.kind, finding.text) for finding in judge("eth0", offers["eth0"], ())]


@pytest.mark.root
def test_dhcp_server_that_sends_option_60_is_heard(wire: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    ours, other = wire
    dnsmasq(other, tmp_path, "--dhcp-range=10.9.0.100,10.9.0.120", "--dhcp-option=60,PXEClient")
    assert heard(ours) == [
        (
            "dhcp-option-60",
            'The DHCP server 10.9.0.2 on eth0 sends option 60 "PXEClient" itself: UEFI firmware then never uses an '
            "offer of pxed. Remove option 60 (vendor class) from what it sends.",
        )
    ]


@pytest.mark.root
def test_plain_dhcp_server_is_in_order(wire: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    ours, other = wire
    dnsmasq(other, tmp_path, "--dhcp-range=10.9.0.100,10.9.0.120")
    assert heard(ours) == []


@pytest.mark.root
def test_another_proxy_dhcp_is_heard(wire: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    ours, other = wire
    dnsmasq(other, tmp_path, "--dhcp-range=10.9.0.0,proxy", "--pxe-service=x86PC,Other,other")
    assert [kind for kind, _ in heard(ours)] == ["other-proxy-dhcp", "no-dhcp"]


@pytest.mark.root
def test_dhcp_server_on_the_same_host_is_heard(wire: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    ours, _ = wire
    dnsmasq(ours, tmp_path, "--dhcp-range=10.9.0.100,10.9.0.120", "--dhcp-option=60,PXEClient")
    assert [kind for kind, _ in heard(ours)] == ["dhcp-option-60"]


@pytest.mark.root
def test_our_own_server_is_not_asked(wire: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    ours, _ = wire
    dnsmasq(ours, tmp_path, "--dhcp-range=10.9.0.100,10.9.0.120")
    with ours:
        (holder,) = holders("udp", 67)
        pid = int(holder.partition("(pid ")[2].rstrip(")"))
        served = [entry for entry in list_addresses() if entry.name == "eth0"]
        assert listen(served, server_pid=pid, seconds=0.1) == {"eth0": set()}
        assert listen(served) != {"eth0": set()}


@pytest.mark.root
def test_silence_is_told(wire: tuple[Namespace, Namespace]) -> None:
    assert [kind for kind, _ in heard(wire[0], 0.1)] == ["no-dhcp"]


@pytest.mark.root
def test_interface_that_is_down(wire: tuple[Namespace, Namespace]) -> None:
    ours, _ = wire
    ours.run("ip", "link", "set", "eth0", "down")
    with ours, pytest.raises(OperatorError, match=r"^Nothing can be sent on eth0: "):
        listen([entry for entry in list_addresses() if entry.name == "eth0"])


def test_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(os.strerror(1))

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("pxed.net.probe.holders", lambda protocol, port: [])
    with pytest.raises(OperatorError, match=r"needs root \(CAP_NET_RAW\); or use --no-probe\.$"):
        listen([InterfaceAddress(1, "lo", "127.0.0.1", IPv4Network("127.0.0.0/8"))])
