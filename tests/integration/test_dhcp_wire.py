"""proxyDHCP on the wire: beside real DHCP servers, on the same host with them, behind a real relay.

Every test makes its own network of anonymous namespaces. The clients speak as boot ROMs do; the other daemons are
the real ones.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select

import pytest

from pxed.wire import dhcp
from pxed.wire.iana import MessageType, OptionCode
from support.firmware import Answer, Firmware
from support.netns import Daemon, Namespace, Net

pytestmark = pytest.mark.root

TESTS = Path(__file__).parent.parent


@pytest.fixture
def net() -> Iterator[Net]:
    """The test's network."""
    with Net() as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the test's sockets."""
    with ExitStack() as made:
        yield made


def pxed(where: Namespace, *addresses: str, same_host: bool = False) -> Daemon:
    """pxed's DHCP service in a namespace, answering."""
    command = [sys.executable, "-m", "support.boot_server", *(["--same-host"] if same_host else [])]
    for address in addresses:
        command += ["--address", address]
    path = f"{TESTS}:{TESTS.parent / 'src'}"
    daemon = where.daemon("env", f"PYTHONPATH={path}", *command)
    daemon.wait_for("ready")
    return daemon


def dnsmasq(where: Namespace, interface: str, first: str, last: str, tmp_path: Path, *more: str) -> None:
    """dnsmasq as a plain DHCP server, with its port open."""
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"]
    command += [f"--interface={interface}", f"--dhcp-range={first},{last},1h", "--dhcp-authoritative"]
    command += [f"--dhcp-leasefile={tmp_path}/{where.name}.leases", "--log-facility=-", f"--pid-file={tmp_path}/pid"]
    where.daemon(*command, *more).wait_for("DHCP, IP range")


def rom(stack: ExitStack, where: Namespace, interface: str = "eth0", arch: int = 0, port: int = 68) -> Firmware:
    """A boot ROM in a namespace."""
    mac = where.mac(interface)
    with where:
        made = Firmware(interface, mac, arch, port)
    stack.callback(made.close)
    return made


def lan(net: Net, *names: str) -> list[Namespace]:
    """Namespaces whose eth0 hang on one switch."""
    switch = net.namespace("switch")
    made = [net.namespace(name) for name in names]
    for where in made:
        net.link(switch, f"to-{where.name}", where, "eth0")
    net.bridge(switch, "br0", *(f"to-{where.name}" for where in made))
    return made


def proxy_of(answers: list[Answer]) -> Answer:
    """pxed's answer."""
    found = [answer for answer in answers if answer.is_proxy]
    assert len(found) == 1, [(answer.source, answer.packet.yiaddr) for answer in answers]
    return found[0]


def lease_of(answers: list[Answer]) -> Answer:
    """The DHCP server's answer."""
    found = [answer for answer in answers if answer.packet.yiaddr != "0.0.0.0"]
    assert len(found) == 1, [(answer.source, answer.packet.yiaddr) for answer in answers]
    return found[0]


def take_lease(client: Firmware, offer: Answer) -> Answer:
    """REQUEST what was offered, as a ROM does; the ACK."""
    packet = offer.packet
    more = {"SERVER_ID": packet.options[OptionCode.SERVER_ID]}
    more["REQUESTED_ADDRESS"] = bytes(map(int, packet.yiaddr.split(".")))
    client.send(client.packet(MessageType.REQUEST, **more))
    ack = client.wait(MessageType.ACK, 67)
    assert ack.packet.yiaddr == packet.yiaddr
    return ack


def test_beside_a_dhcp_server_elsewhere(net: Net, stack: ExitStack, tmp_path: Path) -> None:
    server, site, client = lan(net, "server", "site", "client")
    server.address("eth0", "10.1.0.1/24")
    site.address("eth0", "10.1.0.2/24")
    dnsmasq(site, "eth0", "10.1.0.100", "10.1.0.110", tmp_path)
    process = pxed(server, "10.1.0.1")
    machine = rom(stack, client)

    answers = machine.discover(2)

    offer = proxy_of(answers)
    assert offer.source == ("10.1.0.1", 67)
    assert offer.server_id == offer.packet.siaddr == "10.1.0.1"
    assert offer.packet.file.rstrip(b"\0") == b"undionly.kpxe"
    assert lease_of(answers).server_id == "10.1.0.2"
    take_lease(machine, lease_of(answers))
    event = json.loads(process.wait_for('"kind"'))
    assert event["kind"] == "offer"
    assert event["mac"] == client.mac("eth0")


@pytest.mark.parametrize("port", [68, 4011, 40011])
def test_4011_is_answered_from_4011_to_the_port_asked_from(net: Net, stack: ExitStack, port: int) -> None:
    server, client = lan(net, "server", "client")
    server.address("eth0", "10.1.0.1/24")
    server.address("eth0", "10.1.0.9/24")  # the kernel would rather answer from the first
    client.address("eth0", "10.1.0.50/24")
    pxed(server, "10.1.0.1", "10.1.0.9")
    machine = rom(stack, client, arch=7, port=port)

    for address in ("10.1.0.1", "10.1.0.9"):
        machine.send(machine.packet(MessageType.REQUEST, ciaddr="10.1.0.50"), (address, 4011))
        answer = machine.wait(MessageType.ACK, 4011)
        assert answer.source == (address, 4011)
        assert answer.server_id == answer.packet.siaddr == address
        assert answer.packet.file.rstrip(b"\0") == b"snponly.efi"


@pytest.mark.parametrize("same_host", [False, True])
def test_4011_is_answered_from_the_address_asked_or_not_at_all(net: Net, stack: ExitStack, same_host: bool) -> None:
    """A giaddr left over from the lease does not choose the address, and an address not configured is not pxed's."""
    server, client, other = net.namespace("server"), net.namespace("client"), net.namespace("other")
    net.link(server, "eth0", client, "eth0")
    net.link(server, "eth1", other, "eth0")
    server.address("eth0", "10.1.0.1/24")
    server.address("eth0", "10.1.0.9/24")  # not configured
    server.address("eth1", "10.2.0.1/24")
    client.address("eth0", "10.1.0.50/24")
    pxed(server, "10.1.0.1", "10.2.0.1", same_host=same_host)
    machine = rom(stack, client, arch=7)
    request = machine.packet(MessageType.REQUEST, ciaddr="10.1.0.50", giaddr="10.2.0.99")
    inform = machine.packet(MessageType.INFORM, ciaddr="10.1.0.50")

    machine.send(request, ("10.1.0.9", 4011))
    machine.send(inform, ("10.1.0.9", 67))
    machine.send(request, ("10.1.0.1", 4011))

    answer = machine.wait(MessageType.ACK, 4011)
    assert answer.source == ("10.1.0.1", 4011)
    assert answer.server_id == answer.packet.siaddr == "10.1.0.1"
    # Requests of a socket are taken in order: a first answer would have come before the second one.
    machine.send(inform, ("10.1.0.1", 67))
    (informed,) = machine.answers(1)
    assert informed.source == ("10.1.0.1", 67)
    assert machine.answers(1, 0.0) == []


def test_same_host_as_dnsmasq(net: Net, stack: ExitStack, tmp_path: Path) -> None:
    server, client = lan(net, "server", "client")
    server.address("eth0", "10.1.0.1/24")
    dnsmasq(server, "eth0", "10.1.0.100", "10.1.0.110", tmp_path)
    pxed(server, "10.1.0.1", same_host=True)
    check_same_host(rom(stack, client), client)


def test_same_host_as_kea(net: Net, stack: ExitStack, tmp_path: Path) -> None:
    server, client = lan(net, "server", "client")
    server.address("eth0", "10.1.0.1/24")
    kea(server, "eth0", tmp_path)
    pxed(server, "10.1.0.1", same_host=True)
    check_same_host(rom(stack, client), client)


def kea(where: Namespace, interface: str, tmp_path: Path) -> None:
    """kea-dhcp4 as a plain DHCP server."""
    subnet = {
        "id": 1,
        "subnet": "10.1.0.0/24",
        "pools": [{"pool": "10.1.0.100 - 10.1.0.110"}],
        "interface": interface,
    }
    config = {
        "Dhcp4": {
            "interfaces-config": {"interfaces": [interface]},
            "lease-database": {"type": "memfile", "persist": False},
            "subnet4": [subnet],
            "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stderr"}]}],
        }
    }
    file = tmp_path / "kea.json"
    file.write_text(json.dumps(config))
    environment = [f"{name}={tmp_path}" for name in ("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR")]
    where.daemon("env", *environment, "kea-dhcp4", "-c", str(file)).wait_for("DHCP4_STARTED")


def check_same_host(machine: Firmware, client: Namespace) -> None:
    """Both daemons make their offers from port 67; the lease is had; 4011 is pxed's."""
    answers = machine.discover(2)
    offer, lease = proxy_of(answers), lease_of(answers)
    assert offer.source == ("10.1.0.1", 67)
    assert offer.packet.file.rstrip(b"\0") == b"undionly.kpxe"
    assert OptionCode.CLASS_ID not in lease.packet.options, "the DHCP server needs no option 60 for this"
    ack = take_lease(machine, lease)

    client.address("eth0", f"{ack.packet.yiaddr}/24")
    machine.send(machine.packet(MessageType.REQUEST, ciaddr=ack.packet.yiaddr), ("10.1.0.1", 4011))
    boot = machine.wait(MessageType.ACK, 4011)
    assert boot.source == ("10.1.0.1", 4011)


@pytest.mark.parametrize("same_host", [False, True])
def test_behind_a_relay(net: Net, stack: ExitStack, tmp_path: Path, same_host: bool) -> None:
    """client - 10.2.0.0/24 - relay - 10.1.0.0/24 - pxed. pxed has a second network, to choose a wrong address from."""
    relay, client, server = net.namespace("relay"), net.namespace("client"), net.namespace("server")
    net.link(relay, "down0", client, "eth0")
    net.link(relay, "up0", server, "eth0")
    net.link(server, "eth1", relay, "unused")
    server.address("eth1", "10.3.0.1/24")
    server.address("eth0", "10.1.0.1/24")
    relay.address("up0", "10.1.0.2/24")
    relay.address("down0", "10.2.0.1/24")
    relay.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    server.run("ip", "route", "add", "10.2.0.0/24", "via", "10.1.0.2")
    if same_host:  # with the subnet of the relay's clients
        dnsmasq(server, "eth0", "10.2.0.100", "10.2.0.110,255.255.255.0", tmp_path)
    pxed(server, "10.3.0.1", "10.1.0.1", same_host=same_host)
    options = ["-d", "-4", "-a", "-i", "down0", "-i", "up0", "-pf", f"{tmp_path}/relay.pid"]
    relay.daemon("dhcrelay", *options, "10.1.0.1").wait_for("Sending on   Socket")
    machine = rom(stack, client)

    offer = proxy_of(machine.discover(2 if same_host else 1))

    assert offer.server_id == offer.packet.siaddr == "10.1.0.1"
    assert offer.packet.giaddr == "10.2.0.1"
    assert offer.packet.file.rstrip(b"\0") == b"undionly.kpxe"
    assert OptionCode.RELAY_INFO not in offer.packet.options, "the relay takes its echoed option 82 off"

    # The client's own request to 4011 is routed: no relay, and its answer comes from the address asked.
    client.address("eth0", "10.2.0.50/24")
    client.run("ip", "route", "add", "default", "via", "10.2.0.1")
    machine.send(machine.packet(MessageType.REQUEST, ciaddr="10.2.0.50"), ("10.1.0.1", 4011))
    boot = machine.wait(MessageType.ACK, 4011)
    assert boot.source == ("10.1.0.1", 4011)
    assert boot.packet.siaddr == "10.1.0.1"


@pytest.mark.parametrize("same_host", [False, True])
def test_each_interface_is_answered_with_its_own_address(net: Net, stack: ExitStack, same_host: bool) -> None:
    server = net.namespace("server")
    clients = [net.namespace(f"client{i}") for i in range(3)]
    for i, where in enumerate(clients):
        net.link(server, f"eth{i}", where, "eth0")
        server.address(f"eth{i}", f"10.{i}.0.1/24")
    pxed(server, "10.0.0.1", "10.1.0.1", same_host=same_host)  # nobody listens for eth2
    machines = [rom(stack, where) for where in clients]

    for i in (0, 1):
        (offer,) = machines[i].discover(1)
        assert offer.source == (f"10.{i}.0.1", 67)
        assert offer.server_id == offer.packet.siaddr == f"10.{i}.0.1"
    # A broadcast on eth0 is not heard on eth1: the other ROMs, given the same xid, hear nothing.
    machines[2].send(machines[2].packet(MessageType.DISCOVER))
    machines[1].xid = machines[2].xid = machines[0].xid
    assert len(machines[0].discover(1)) == 1
    assert machines[1].answers(1, 0.0) == machines[2].answers(1, 0.0) == []


def test_the_error_names_who_holds_a_port(net: Net, tmp_path: Path) -> None:
    server = net.namespace("server")
    net.link(server, "eth0", server, "peer")
    server.address("eth0", "10.1.0.1/24")
    dnsmasq(server, "eth0", "10.1.0.100", "10.1.0.110", tmp_path)

    with pytest.raises(AssertionError) as failure:
        pxed(server, "10.1.0.1")
    assert "UDP port 67" in str(failure.value)
    assert "taken by dnsmasq (pid " in str(failure.value)
    assert "same_host_dhcp = true" in str(failure.value)

    with pytest.raises(AssertionError, match=r"10\.9\.9\.9 is not an address of this machine.*10\.1\.0\.1 \(eth0\)"):
        pxed(server, "10.9.9.9")


@pytest.mark.parametrize("same_host", [False, True])
def test_a_bridge_put_over_the_interface_of_a_running_server(net: Net, stack: ExitStack, same_host: bool) -> None:
    """As virtualisation hosts have it: the address moves to the bridge, and each request is seen once."""
    server, client = net.namespace("server"), net.namespace("client")
    net.link(server, "eth0", client, "eth0")
    server.address("eth0", "10.1.0.1/24")
    pxed(server, "10.1.0.1", same_host=same_host)
    machine = rom(stack, client)
    assert len(machine.discover(1)) == 1

    server.run("ip", "address", "flush", "dev", "eth0")
    net.bridge(server, "br0", "eth0")
    server.address("br0", "10.1.0.1/24")
    (offer,) = machine.discover(1)
    assert offer.source == ("10.1.0.1", 67)
    # What answers a request to 4011 comes after every answer to the DISCOVER before it.
    machine.xid += 1
    machine.send(machine.packet(MessageType.DISCOVER))
    machine.wait(MessageType.OFFER, 67)
    client.address("eth0", "10.1.0.50/24")
    machine.send(machine.packet(MessageType.REQUEST, ciaddr="10.1.0.50"), ("10.1.0.1", 4011))
    assert [answer.message for answer in machine.answers(1)] == [MessageType.ACK], "one offer per request"


@pytest.mark.parametrize("same_host", [False, True])
def test_500_machines_ask_at_the_same_moment(net: Net, stack: ExitStack, same_host: bool) -> None:
    """All are answered though none asks twice: after a power failure ROMs that miss their offer do not boot."""
    server, client = lan(net, "server", "client")
    server.address("eth0", "10.1.0.1/24")
    pxed(server, "10.1.0.1", same_host=same_host)
    machine = rom(stack, client)
    machines = range(0xA0000000, 0xA0000000 + 500)
    for machine.xid in machines:
        machine.mac = b"\x52\x54" + machine.xid.to_bytes(4, "big")
        machine.send(machine.packet(MessageType.DISCOVER))

    answered = set()
    while len(answered) < 500 and select([machine.sock], [], [], 60)[0]:
        packet = dhcp.decode(machine.sock.recv(4096))
        assert isinstance(packet, dhcp.Packet)
        if packet.op == 2:  # the other ROMs' broadcasts come round the switch
            assert packet.chaddr == b"\x52\x54" + packet.xid.to_bytes(4, "big")
            answered.add(packet.xid)
    assert answered == set(machines)
