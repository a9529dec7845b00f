"""The checks of this host, each with what it judges given to it; the sentences as an operator reads them."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pxed.config import DEFAULT_BOOT_PROGRAMS, Config, parse
from pxed.net import diagnose as d
from pxed.net.diagnose import Finding, diagnose
from pxed.net.interfaces import InterfaceAddress

LOCAL = [
    InterfaceAddress(1, "lo", "127.0.0.1", IPv4Network("127.0.0.0/8")),
    InterfaceAddress(2, "eth0", "10.78.0.1", IPv4Network("10.78.0.0/24")),
    InterfaceAddress(3, "eth1", "192.168.1.5", IPv4Network("192.168.1.0/24")),
]
Make = Callable[..., Config]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A configuration where everything is in order, and whatever is written over it."""
    programs, environment = tmp_path / "ipxe", tmp_path / "state/environment"
    programs.mkdir()
    environment.mkdir(parents=True)
    (tmp_path / "tftp").mkdir()
    for name in DEFAULT_BOOT_PROGRAMS.values():
        (programs / name).write_bytes(b"")
    for name in ("vmlinuz", "initramfs.cpio.zst"):
        (environment / name).write_bytes(b"")

    def made(
        address: str | list[str] = "10.78.0.1",
        root: str = "",
        server: str = "",
        dhcp: str = "",
        tftp: str = "",
        cast: str = "",
    ) -> Config:
        return parse(
            f'[server]\naddress = {json.dumps(address)}\nstate_dir = "{tmp_path}/state"\n{server}\n'
            f'[tftp]\nroot = "{root or tmp_path / "tftp"}"\n{tftp}\n'
            f'[dhcp]\nboot_program_dir = "{programs}"\n{dhcp}\n'
            f"[cast]\n{cast}\n"
        )

    return made


def said(findings: Iterator[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.level, finding.kind, finding.text) for finding in findings]


def test_a_rate_of_no_interface_of_ours(make: Make) -> None:
    config = make(server='rates = { eth0 = "1Gbit", eth9 = "1Gbit" }')
    used = [entry.name for entry in LOCAL if entry.address == "10.78.0.1"]
    found = said(d.rates(config, LOCAL))
    assert [text for _, _, text in found] == [
        f"server.rates {name} limits nothing: the interfaces of server.address are: {', '.join(used)}."
        for name in ("eth0", "eth9")
        if name not in used
    ]
    assert {(level, kind) for level, kind, _ in found} == {("warning", "rates")}
    config = make(cast='rates = { eth9 = "1Gbit" }')
    assert [text for _, _, text in said(d.rates(config, LOCAL))] == [
        f"cast.rates eth9 limits nothing: the interfaces of server.address are: {', '.join(used)}."
    ]
    assert not said(d.rates(make(cast='enabled = false\nrates = { eth9 = "1Gbit" }'), LOCAL))


# -- addresses ------------------------------------------------------------------------------------------------------


def test_address_of_this_host(make: Make) -> None:
    assert said(d.addresses(make(), LOCAL)) == []


def test_address_of_another_host(make: Make) -> None:
    assert said(d.addresses(make("10.78.0.9"), LOCAL)) == [
        (
            *("error", "address"),
            "server.address 10.78.0.9 is not an address of this host; its addresses are: "
            "127.0.0.1 (lo), 10.78.0.1 (eth0), 192.168.1.5 (eth1).",
        )
    ]
    assert d.Finding(
        "error", "address", "server.address 1.1.1.1 is not an address of this host; its addresses are: none."
    ) in (list(d.addresses(make("1.1.1.1"), [])))


def test_loopback(make: Make) -> None:
    assert said(d.addresses(make("127.0.0.1"), LOCAL)) == [
        ("warning", "address", "server.address 127.0.0.1 is the loopback's: no machine can reach it.")
    ]


# -- ports ----------------------------------------------------------------------------------------------------------

HOLD = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM)
sock.bind(("127.0.0.1", 0))
if sys.argv[1] == "tcp":
    sock.listen()
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A real process that holds a port: (pid, port)."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, request.param], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.pid, int(process.stdout.readline())
    process.communicate()


@pytest.mark.parametrize("holder", ["udp"], indirect=True)
def test_port_taken_names_the_process(make: Make, holder: tuple[int, int]) -> None:
    pid, port = holder
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    config = make("127.0.0.1", dhcp="enabled = false", tftp=f"port = {port}\n[http]\nport = {free_port()}")
    assert said(d.ports(config, ["127.0.0.1"], None)) == [
        (
            *("error", "port"),
            f"UDP port {port} of 127.0.0.1 is taken by {name} (pid {pid}). "
            "Stop it, or set port in [tftp] (for tests: firmware asks 69).",
        )
    ]
    assert said(d.ports(config, ["127.0.0.1"], pid)) == []  # it is the server that runs with this configuration
    assert len(said(d.ports(config, ["127.0.0.1"], os.getpid()))) == 1


@pytest.mark.parametrize("holder", ["tcp"], indirect=True)
def test_http_port_taken(make: Make, holder: tuple[int, int]) -> None:
    pid, port = holder
    config = make("127.0.0.1", dhcp="enabled = false", tftp=f"port = {free_port()}\n[http]\nport = {port}")
    ((level, kind, text),) = said(d.ports(config, ["127.0.0.1"], None))
    assert (level, kind) == ("error", "port")
    assert f"TCP port {port} of 127.0.0.1 is taken by" in text
    assert f"(pid {pid})" in text


@pytest.mark.parametrize("holder", ["udp"], indirect=True)
def test_multicast_port_taken(make: Make, holder: tuple[int, int]) -> None:
    pid, port = holder
    tables = f"port = {free_port()}\n[http]\nport = {free_port()}\n[mtftp]\nport = {port}\n"
    config = make("127.0.0.1", dhcp="enabled = false", tftp=tables)
    assert said(d.ports(config, ["127.0.0.1"], None)) == []
    config = make("127.0.0.1", dhcp="enabled = false", tftp=f"{tables}enabled = true")
    ((level, kind, text),) = said(d.ports(config, ["127.0.0.1"], None))
    assert (level, kind) == ("error", "port")
    assert text.startswith(f"UDP port {port} of 127.0.0.1 is taken by")
    assert f"(pid {pid}). Stop it, or set port in [mtftp]." in text


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_port_that_may_not_be_opened(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse, raising=False)
    texts = [text for _, _, text in said(d.ports(make(), ["10.78.0.1"], None))]
    assert texts[0].startswith("UDP port 67 of this host may not be opened: pxed needs to be root or to have CAP_NET_")
    assert len(texts) == 4


def test_same_host_dhcp_without_a_dhcp_server(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d, "holders", lambda protocol, port: [])
    monkeypatch.setattr(d, "_port", lambda *arguments: iter(()))
    assert said(d.ports(make(dhcp="same_host_dhcp = true"), [], None)) == [
        (
            *("warning", "same-host-dhcp"),
            "dhcp.same_host_dhcp is true, but no process of this host has UDP port 67: "
            "start the DHCP server, or set it to false.",
        )
    ]


# -- files ----------------------------------------------------------------------------------------------------------


def test_everything_in_order(make: Make) -> None:
    config = make()
    checks = (d.tftp_root, d.boot_programs, d.environment, d.state_dir, d.user)
    assert [finding for check in checks for finding in check(config)] == []


def test_tftp_root_missing(make: Make, tmp_path: Path) -> None:
    root = str(tmp_path / "none")
    assert said(d.tftp_root(make(root=root))) == [("error", "tftp-root", f"tftp.root {root} does not exist.")]


def test_tftp_root_is_a_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    root = str(tmp_path / "file")
    assert said(d.tftp_root(make(root=root))) == [("error", "tftp-root", f"tftp.root {root} is not a folder.")]


def test_tftp_root_that_may_not_be_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    config = make()
    assert said(d.tftp_root(config)) == [
        ("error", "tftp-root", f"tftp.root {config.tftp.root} cannot be read by this user.")
    ]


def test_boot_program_missing_for_common_machines(make: Make, tmp_path: Path) -> None:
    (tmp_path / "ipxe/snponly.efi").unlink()
    assert said(d.boot_programs(make())) == [
        (
            *("error", "boot-program"),
            "The boot program snponly.efi for UEFI x64 (architecture 7), UEFI x64 (EBC) (architecture 9), "
            f"UEFI x64 HTTP (architecture 16) is neither in {tmp_path}/tftp nor in {tmp_path}/ipxe: "
            "such machines get no answer. On Debian it comes with the package ipxe.",
        )
    ]


def test_boot_programs_missing_for_rare_machines_are_one_line_of_information(make: Make, tmp_path: Path) -> None:
    for name in ("snponly-arm64.efi", "snponly-arm32.efi", "snponly-ia32.efi"):
        (tmp_path / "ipxe" / name).unlink()
    assert said(d.boot_programs(make())) == [
        (
            *("info", "boot-program"),
            "No boot program for UEFI IA32, UEFI ARM32, UEFI ARM64: Debian's package ipxe has none. When you have such "
            f"machines, put snponly-ia32.efi, snponly-arm32.efi, snponly-arm64.efi into {tmp_path}/tftp; until then "
            "they get no answer and boot on.",
        )
    ]


def test_boot_program_of_the_configuration_missing(make: Make, tmp_path: Path) -> None:
    config = make(dhcp='boot_programs = { 11 = "arm/grub.efi" }')
    ((level, _, text),) = said(d.boot_programs(config))
    assert level == "error"
    assert text.endswith("such machines get no answer. Name one that exists in [dhcp] boot_programs.")
    (tmp_path / "tftp/arm").mkdir()
    (tmp_path / "tftp/arm/grub.efi").write_bytes(b"")
    assert said(d.boot_programs(config)) == []


def test_environment_not_built(make: Make, tmp_path: Path) -> None:
    config = make()
    (tmp_path / "state/environment/vmlinuz").unlink()
    assert said(d.environment(config)) == [
        (
            *("error", "environment"),
            f"The imaging environment is not built: vmlinuz not in {tmp_path}/state/environment. "
            "Run: pxed environment build",
        )
    ]


def test_state_dir_that_can_be_made(make: Make, tmp_path: Path) -> None:
    config = make(server="").server
    assert config.state_dir == f"{tmp_path}/state"
    assert (
        said(d.state_dir(parse(f'[server]\naddress="1.1.1.1"\nstate_dir="{tmp_path}/a/b/c"\n[tftp]\nroot="/"'))) == []
    )


def test_state_dir_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = parse(f'[server]\naddress="1.1.1.1"\nstate_dir="{tmp_path}/file/x"\n[tftp]\nroot="/"')
    assert said(d.state_dir(config)) == [
        (
            *("error", "state-dir"),
            f"server.state_dir {tmp_path}/file/x cannot be made: {tmp_path}/file is not a folder.",
        )
    ]


def test_state_dir_not_writable(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    config = make()
    state = config.server.state_dir
    assert said(d.state_dir(config)) == [
        ("error", "state-dir", f"server.state_dir {state} cannot be written by this user.")
    ]
    for name in ("vmlinuz", "initramfs.cpio.zst"):
        (tmp_path / "state/environment" / name).unlink()
    (tmp_path / "state/environment").rmdir()
    (tmp_path / "state").rmdir()
    assert said(d.state_dir(config)) == [
        (
            *("error", "state-dir"),
            f"server.state_dir {state} does not exist and cannot be made in {tmp_path} by this user.",
        )
    ]


def test_user_that_does_not_exist(make: Make) -> None:
    assert said(d.user(make(server='user = "root"'))) == []
    assert said(d.user(make(server='user = "nobody-of-that-name"'))) == [
        ("error", "user", "server.user nobody-of-that-name is not a user of this host.")
    ]


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's own."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.root
def test_user_that_cannot_write_what_the_server_writes(reachable: Path) -> None:
    state, images = reachable / "state", reachable / "images"
    for folder in (state, images, images / "packs"):
        folder.mkdir()
    config = parse(
        f'[server]\naddress="1.1.1.1"\nstate_dir="{state}"\nuser="www-data"\n[images]\ndir="{images}"\n[tftp]\nroot="/"'
    )
    later = "The server gives {0} to www-data when root starts it."
    assert said(d.user(config)) == [
        ("warning", "user", f"server.user www-data cannot write {folder} yet. {later.format(folder)}")
        for folder in (state, images)
    ]
    for folder in (state, images):
        shutil.chown(folder, "www-data")
    restart = f"Restart the server as root: it gives {images} to www-data."
    assert said(d.user(config, server_pid=1)) == [
        ("error", "user", f"server.user www-data cannot write {images}/packs. {restart}")
    ]
    shutil.chown(images / "packs", "www-data")
    assert said(d.user(config, server_pid=1)) == []
    reachable.chmod(0o700)
    assert said(d.user(config)) == [
        (
            *("error", "user"),
            f"server.user www-data cannot write {folder}: it may not enter {reachable}. Move it or open that folder.",
        )
        for folder in (state, images)
    ]


# -- routes ---------------------------------------------------------------------------------------------------------

ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def routes(*lines: tuple[str, str, str, int, str]) -> str:
    """/proc/net/route with (interface, network, flags, metric, mask); addresses dotted."""

    def field(address: str) -> str:
        return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"

    return ROUTES + "".join(
        f"{name}\t{field(network)}\t00000000\t{flags}\t0\t0\t{metric}\t{field(mask)}\t0\t0\t0\n"
        for name, network, flags, metric, mask in lines
    )


DEFAULT = ("eth1", "0.0.0.0", "0003", 100, "0.0.0.0")
LAN = ("eth0", "10.78.0.0", "0001", 0, "255.255.255.0")
GROUPS = ("eth0", "239.0.0.0", "0001", 0, "255.0.0.0")


def test_route_takes_the_longest_prefix_then_the_smallest_metric() -> None:
    assert d.route(routes(DEFAULT, LAN), "239.255.0.1") == "eth1"
    assert d.route(routes(DEFAULT, LAN, GROUPS), "239.255.0.1") == "eth0"
    assert d.route(routes(LAN), "239.255.0.1") == ""
    other = ("eth2", "0.0.0.0", "0003", 50, "0.0.0.0")
    assert d.route(routes(DEFAULT, other), "239.255.0.1") == "eth2"
    assert d.route(routes(("*", "239.0.0.0", "0201", 0, "255.0.0.0"), DEFAULT), "239.255.0.1") == ""
    assert d.route(routes(("eth0", "239.0.0.0", "0000", 0, "255.0.0.0")), "239.255.0.1") == ""
    assert d.route("", "239.255.0.1") == ""


def test_multicast_leaves_by_a_served_interface(make: Make) -> None:
    assert said(d.multicast_route(make(), LOCAL, routes(DEFAULT, GROUPS))) == []


def test_no_multicast_route(make: Make) -> None:
    assert said(d.multicast_route(make(), LOCAL, routes(LAN))) == [
        (
            *("warning", "multicast-route"),
            "As the routes are, there is no multicast route: image sessions to many machines may not reach them. "
            "Run: ip route add 239.0.0.0/8 dev eth0",
        )
    ]


def test_multicast_leaves_by_another_interface(make: Make) -> None:
    ((_, _, text),) = said(d.multicast_route(make(), LOCAL, routes(DEFAULT)))
    assert text.startswith("As the routes are, multicast leaves this host by eth1, which pxed does not serve: ")


def test_multicast_is_silent_where_no_address_fits(make: Make) -> None:
    assert said(d.multicast_route(make("1.1.1.1"), LOCAL, routes())) == []


# -- interfaces -----------------------------------------------------------------------------------------------------


def links(config: Config, folder: Path, mtu: int | None, room: int | None) -> list[tuple[str, str, str]]:
    """What is said of LOCAL, and of a /16 beside it, on a kernel with these values."""
    (folder / "class/net/eth0").mkdir(parents=True)
    (folder / "sys/net/ipv4/neigh/default").mkdir(parents=True)
    if mtu is not None:
        (folder / "class/net/eth0/mtu").write_text(f"{mtu}\n")
    if room is not None:
        (folder / "sys/net/ipv4/neigh/default/gc_thresh3").write_text(f"{room}\n")
    wide = InterfaceAddress(4, "eth2", "10.80.0.1", IPv4Network("10.80.0.0/16"))
    return said(d.links(config, [*LOCAL, wide], str(folder), str(folder)))


@pytest.mark.parametrize(("mtu", "room"), [(1500, 1024), (9000, 254), (None, None)])
def test_interfaces_in_order(make: Make, tmp_path: Path, mtu: int | None, room: int | None) -> None:
    assert links(make(), tmp_path / "kernel", mtu, room) == []


def test_small_mtu(make: Make, tmp_path: Path) -> None:
    ((level, kind, text),) = links(make(), tmp_path / "kernel", 1400, 1024)
    assert (level, kind) == ("warning", "mtu")
    assert text.startswith("The MTU of eth0 is 1400: ")


def test_network_larger_than_the_neighbour_table(make: Make, tmp_path: Path) -> None:
    ((level, kind, text),) = links(make("10.80.0.1"), tmp_path / "kernel", 1500, 1024)
    assert (level, kind) == ("info", "neighbour-table")
    assert "neighbour table has room for 1024 machines" in text
    assert text.endswith("Run: sysctl net.ipv4.neigh.default.gc_thresh3=65536")


def test_an_ipv6_address_beside(make: Make, tmp_path: Path) -> None:
    """Its network has room for any number of machines, and its interface is spoken of once."""
    (tmp_path / "class/net/eth0").mkdir(parents=True)
    (tmp_path / "class/net/eth0/mtu").write_text("1400\n")
    (tmp_path / "sys/net/ipv4/neigh/default").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/neigh/default/gc_thresh3").write_text("1024\n")
    config = make(["10.78.0.1", "fd00::1"])
    local = [*LOCAL, InterfaceAddress(2, "eth0", "fd00::1", IPv6Network("fd00::/64"))]
    assert said(d.addresses(config, local)) == []
    ((_, kind, _),) = said(d.links(config, local, str(tmp_path), str(tmp_path)))
    assert kind == "mtu"
    ((_, kind, text),) = said(d.addresses(config, LOCAL))
    assert (kind, text.split(" its addresses")[0]) == (
        "address",
        "server.address fd00::1 is not an address of this host;",
    )
    assert [kind for _, kind, _ in said(d.addresses(make(["127.0.0.1", "::1"]), []))] == ["address", "address"]


# -- all of it ------------------------------------------------------------------------------------------------------


def test_all_checks_on_this_host_as_it_is(make: Make) -> None:
    ports = f"port = {free_port()}\n[http]\nport = {free_port()}"
    findings = diagnose(make("127.0.0.1", dhcp="enabled = false", tftp=ports))
    assert {finding.kind for finding in findings} <= {"address", "multicast-route", "mtu", "neighbour-table"}
    assert not any(finding.level == "error" for finding in findings)
