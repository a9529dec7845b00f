"""Our addresses, and which of them a client reaches."""

import socket
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.net.interfaces import Interfaces, Neighbours, list_addresses
from support.netns import Net

pytestmark = pytest.mark.root


def test_loopback_is_listed() -> None:
    with Net() as net, net.namespace("one"):
        entry, *others = list_addresses()
    assert {other.address for other in others} <= {"::1"}  # a kernel may have no IPv6
    assert (entry.name, entry.address, str(entry.network)) == ("lo", "127.0.0.1", "127.0.0.0/8")


def test_many_addresses_are_all_listed() -> None:
    """More than one netlink datagram holds."""
    with Net() as net:
        one = net.namespace("one")
        script = "\n".join(f"address add 10.{i // 250}.{i % 250}.1/32 dev lo" for i in range(2000))
        one.run("sh", "-c", f"ip -batch - <<'END'\n{script}\nEND")
        with one:
            assert len([entry for entry in list_addresses() if ":" not in entry.address]) == 2001


def test_which_address_is_ours_for_whom() -> None:
    with Net() as net:
        one, other = net.namespace("one"), net.namespace("other")
        net.link(one, "eth0", other, "a")
        net.link(one, "eth1", other, "b")
        for interface, address in (("eth0", "10.0.0.1/24"), ("eth0", "10.5.0.1/24"), ("eth0", "10.0.0.99/24")):
            one.address(interface, address)
        one.address("eth1", "10.1.0.1/24")
        one.address("eth1", "10.1.0.99/24")
        one.run("ip", "route", "add", "10.9.0.0/16", "via", "10.1.0.254", "src", "10.1.0.99")
        one.run("ip", "route", "add", "10.8.0.0/16", "via", "10.5.0.254")
        with one:
            interfaces = Interfaces(("10.0.0.1", "10.5.0.1", "10.1.0.1"))
            interfaces.refresh()
            index = {entry.name: entry.index for entry in list_addresses()}
            eth0, eth1, lo = index["eth0"], index["eth1"], index["lo"]
            assert [interfaces.name(each) for each in (eth0, eth1)] == ["eth0", "eth1"]
            # Direct: the interface's; the client's own network chooses among several; a unicast's destination wins.
            assert interfaces.address_for(eth0) == "10.0.0.1"
            assert interfaces.address_for(eth1, "0.0.0.0", "255.255.255.255", "0.0.0.0") == "10.1.0.1"
            assert interfaces.address_for(eth0, source="10.5.0.7") == "10.5.0.1"
            assert interfaces.address_for(eth0, source="172.16.0.7") == "10.0.0.1"
            assert interfaces.address_for(eth0, destination="10.1.0.1") == "10.1.0.1"
            assert interfaces.address_for(lo) is None
            # Relayed: the route toward the relay, whatever the interface.
            assert interfaces.address_for(eth1, giaddr="10.8.3.1") == "10.5.0.1"
            assert interfaces.address_for(lo, giaddr="10.0.0.7") == "10.0.0.1"
            # The route says 10.1.0.99, which is not configured: a configured one of the same interface.
            assert interfaces.address_for(eth0, giaddr="10.9.3.1") == "10.1.0.1"
            # No route at all: the first.
            assert interfaces.toward("192.0.2.1") == "10.0.0.1"
            assert interfaces.is_broadcast(eth0, "10.5.0.255")
            assert interfaces.is_broadcast(lo, "255.255.255.255")
            assert not interfaces.is_broadcast(eth1, "10.5.0.255")
            assert interfaces.name(999) == "if999"


def test_which_ipv6_address_is_ours_for_whom() -> None:
    with Net() as net:
        one, other = net.namespace("one"), net.namespace("other")
        net.link(one, "eth0", other, "a")
        net.link(one, "eth1", other, "b")
        one.address("eth0", "10.0.0.1/24")
        one.address("eth1", "10.1.0.1/24")
        for interface, address in (("eth0", "fd00::1/64"), ("eth0", "fd00::99/64"), ("eth1", "fd01::1/64")):
            one.run("ip", "address", "add", address, "dev", interface, "nodad")
        one.run("ip", "route", "add", "fd09::/64", "dev", "eth1", "src", "fd01::1")
        with one:
            assert not [entry for entry in list_addresses() if entry.address.startswith("fe80")]
            interfaces = Interfaces(("fd00::1", "10.0.0.1", "10.1.0.1", "fd01::1"))
            interfaces.refresh()
            index = {entry.name: entry.index for entry in list_addresses()}
            assert interfaces.interface_of("fd01::1") == "eth1"
            assert interfaces.address_for(index["eth0"]) == "10.0.0.1"  # DHCP hears of no other
            assert interfaces.toward("10.1.0.7") == "10.1.0.1"
            assert interfaces.toward("fd09::7") == "fd01::1"
            assert interfaces.toward("2001:db8::7") == "fd00::1"  # no route
            assert interfaces.toward("192.0.2.1") == "10.0.0.1"
            assert [interfaces.ipv4_for(address) for address in ("fd01::1", "10.1.0.1")] == ["10.1.0.1"] * 2
            assert Interfaces(("10.0.0.1", "10.1.0.1", "fd01::1")).ipv4_for("fd01::1") == "10.0.0.1"  # not read yet
            with pytest.raises(OperatorError, match=r"fd00::5 is not .* fd00::1 \(eth0\)"):
                Interfaces(("10.0.0.1", "fd00::5")).refresh()


def test_an_address_of_another_machine_is_refused() -> None:
    with Net() as net, net.namespace("one"), pytest.raises(OperatorError, match=r"127\.0\.0\.1 \(lo\)"):
        Interfaces(("10.7.7.7",)).refresh()


def test_neighbour_table(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.1.0.50        0x1         0x2         52:54:00:AA:bb:cc     *        eth0\n"
        "10.1.0.51        0x1         0x0         00:00:00:00:00:00     *        eth0\n"
    )
    neighbours = Neighbours(str(table))
    assert neighbours.mac("10.1.0.50") == "52:54:00:aa:bb:cc"
    assert neighbours.mac("10.1.0.51") == neighbours.mac("10.1.0.5") == neighbours.mac("IP") == ""
    assert Neighbours(str(table) + "-missing").mac("10.1.0.50") == ""


def test_the_neighbour_table_is_not_read_for_each_question(tmp_path: Path) -> None:
    table, now = tmp_path / "arp", 0.0
    neighbours = Neighbours(str(table), lambda: now)

    def write(mac: str) -> None:
        table.write_text(f"IP address  HW type\n10.1.0.50  0x1  0x2  {mac}  *  eth0\n")

    assert neighbours.mac("10.1.0.50") == ""
    write("52:54:00:00:00:01")
    now = 0.04
    assert neighbours.mac("10.1.0.50") == ""
    now = 0.05
    assert neighbours.mac("10.1.0.50") == "52:54:00:00:00:01"
    write("52:54:00:00:00:02")
    now = 1.0
    assert neighbours.mac("10.1.0.50") == "52:54:00:00:00:01"
    now = 1.1
    assert neighbours.mac("10.1.0.50") == "52:54:00:00:00:02"


def test_the_kernels_neighbour_table() -> None:
    with Net() as net:
        one, other = net.namespace("one"), net.namespace("other")
        net.link(one, "eth0", other, "eth0")
        one.address("eth0", "10.0.0.1/24")
        other.address("eth0", "10.0.0.2/24")
        with one:
            listener = socket.create_server(("10.0.0.1", 0))
        with listener:
            with other:
                socket.create_connection(listener.getsockname(), 60).close()
            with one:
                assert Neighbours().mac("10.0.0.2") == other.mac("eth0")


def test_an_address_that_moves_to_another_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    with Net() as net, net.namespace("one") as one:
        for name in ("a", "b"):
            net.link(one, name, one, f"{name}-peer")
        one.address("a", "10.0.0.1/24")
        interfaces = Interfaces(("10.0.0.1",))
        interfaces.refresh()
        index = {name: socket.if_nametoindex(name) for name in ("a", "b")}
        one.run("ip", "address", "flush", "dev", "a")
        one.address("b", "10.0.0.1/24")
        assert interfaces.address_for(index["b"]) is None, "not asked for every stray packet"
        monkeypatch.setattr("pxed.net.interfaces._REREAD", 0.0)
        assert interfaces.address_for(index["b"]) == "10.0.0.1"
        assert interfaces.address_for(index["a"]) is None
        one.run("ip", "address", "flush", "dev", "b")
        assert interfaces.address_for(index["b"]) == "10.0.0.1", "known ones are believed"
