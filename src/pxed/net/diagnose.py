"""What is wrong on this host, in plain sentences: the checks behind `pxed check`.

Each check is given what it judges (the configuration, the kernel's tables as text) and yields findings; `diagnose`
runs them all on the host as it is. What can only be heard on the wire is `net.probe`'s.
"""

import errno
import os
import pwd
import socket
import subprocess
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Literal

from msgspec import Struct

from pxed.config import DEFAULT_BOOT_PROGRAMS, Config
from pxed.net.holders import Protocol, bind_error, holders
from pxed.net.interfaces import InterfaceAddress, list_addresses
from pxed.wire.iana import PXE_PORT, SERVER_PORT, ArchType, arch_name

__all__ = ["Finding", "diagnose"]

# Where image sessions and MTFTP groups live (RFC 2365: administratively scoped).
MULTICAST_SAMPLE = "239.255.0.1"

# The architectures that nearly every machine is: without their boot programs pxed is of little use.
COMMON_ARCHS = (ArchType.BIOS, ArchType.EFI_X64)

# TFTP blocks are cut for it, and every network that machines boot from carries it.
ETHERNET_MTU = 1500

# A neighbour takes half a kilobyte of the kernel's memory.
MOST_NEIGHBOURS = 65536

# What `pxed environment build` leaves in Config.environment_dir.
ENVIRONMENT_FILES = ("vmlinuz", "initramfs.cpio.zst")


class Finding(Struct, frozen=True):
    """One thing that is wrong. An "error" must be mended before pxed can do its work, a "warning" may be meant so.

    An "info" is nothing wrong: what is good to know.
    """

    level: Literal["error", "warning", "info"]
    kind: str  # a fixed word, for programs
    text: str  # one or more sentences, for people


def diagnose(config: Config, server_pid: int | None = None) -> list[Finding]:
    """All checks of this host. `server_pid`: of the pxed that runs with this configuration, whose ports are its own."""
    local = list_addresses()
    here = [address for address in config.server.addresses if any(address == entry.address for entry in local)]
    return [
        *addresses(config, local),
        *ports(config, here, server_pid),
        *rates(config, local),
        *tftp_root(config),
        *boot_programs(config),
        *environment(config),
        *state_dir(config),
        *user(config, server_pid),
        *multicast_route(config, local, _route_table()),
        *links(config, local),
    ]


def addresses(config: Config, local: Iterable[InterfaceAddress]) -> Iterator[Finding]:
    """Is each configured address one of this host's?"""
    have = {entry.address: entry.name for entry in local}
    for address in config.server.addresses:
        if address not in have:
            said = ", ".join(f"{a} ({name})" for a, name in have.items()) or "none"
            yield Finding(
                "error",
                "address",
                f"server.address {address} is not an address of this host; its addresses are: {said}.",
            )
        elif ip_address(address).is_loopback:
            yield Finding("warning", "address", f"server.address {address} is the loopback's: no machine can reach it.")


def ports(config: Config, here: Iterable[str], server_pid: int | None) -> Iterator[Finding]:
    """Can pxed have its ports? Tried as the server would do it, on those of its addresses that exist."""
    wanted: list[tuple[Protocol, str, int, str]] = []
    if config.dhcp.enabled:
        if config.dhcp.same_host_dhcp:
            if not holders("udp", SERVER_PORT):
                yield Finding(
                    "warning",
                    "same-host-dhcp",
                    "dhcp.same_host_dhcp is true, but no process of this host has UDP port 67: "
                    "start the DHCP server, or set it to false.",
                )
        else:
            hint = "If that is this host's DHCP server, set same_host_dhcp = true in [dhcp]: it keeps the port."
            wanted.append(("udp", "", SERVER_PORT, hint))
        wanted.append(("udp", "", PXE_PORT, ""))
    for address in here:
        wanted.append(
            ("udp", address, config.tftp.port, "Stop it, or set port in [tftp] (for tests: firmware asks 69).")
        )
        if config.mtftp.enabled and ":" not in address:
            for key in ("port", "server_port", "ipxe_port"):
                wanted.append(("udp", address, getattr(config.mtftp, key), f"Stop it, or set {key} in [mtftp]."))
        wanted.append(("tcp", address, config.http.port, "Stop it, or set port in [http]."))
    if config.metrics.place is not None:
        wanted.append(("tcp", *config.metrics.place, "Stop it, or set listen in [metrics]."))
    for protocol, address, port, hint in wanted:
        yield from _port(protocol, address, port, hint, server_pid)


def _port(protocol: Protocol, address: str, port: int, hint: str, server_pid: int | None) -> Iterator[Finding]:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        if protocol == "tcp":  # as the server does: connections of an earlier run do not block it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                if server_pid is not None and any(f"(pid {server_pid})" in who for who in holders(protocol, port)):
                    return
            else:
                hint = ""
            sentence = str(bind_error(protocol, address or "this host", port, error, hint))
            yield Finding("error", "port", sentence)


def rates(config: Config, local: Iterable[InterfaceAddress]) -> Iterator[Finding]:
    """Does each rate limit something?"""
    used = {entry.name for entry in local if entry.address in config.server.addresses}
    said = [("server.rates", name) for name in config.server.rates]
    if config.cast.enabled:
        said += [("cast.rates", name) for name in config.cast.rates]
    for key, name in said:
        if name not in used:
            have = ", ".join(sorted(used)) or "none"
            text = f"{key} {name} limits nothing: the interfaces of server.address are: {have}."
            yield Finding("warning", "rates", text)


def tftp_root(config: Config) -> Iterator[Finding]:
    """Can files be served from [tftp] root?"""
    root = config.tftp.root
    if not Path(root).exists():
        yield Finding("error", "tftp-root", f"tftp.root {root} does not exist.")
    elif not Path(root).is_dir():
        yield Finding("error", "tftp-root", f"tftp.root {root} is not a folder.")
    elif not os.access(root, os.R_OK | os.X_OK):
        yield Finding("error", "tftp-root", f"tftp.root {root} cannot be read by this user.")


def boot_programs(config: Config) -> Iterator[Finding]:
    """Is there a boot program for each architecture?"""
    folders = (config.tftp.root, config.dhcp.boot_program_dir)
    missing: dict[str, list[int]] = {}
    for arch in sorted({int(a) for a in (*DEFAULT_BOOT_PROGRAMS, *config.dhcp.boot_programs)}):
        name = config.dhcp.boot_program(arch)
        if name is not None and not any(_is_file(folder, name) for folder in folders):
            missing.setdefault(name, []).append(arch)
    rare: dict[str, list[int]] = {}  # Debian's ipxe has none for these, and few sites have such machines
    for name, archs in missing.items():
        chosen = any(str(arch) in config.dhcp.boot_programs for arch in archs)
        if not chosen and not any(arch in COMMON_ARCHS for arch in archs):
            rare[name] = archs
            continue
        who = ", ".join(f"{arch_name(arch)} (architecture {arch})" for arch in archs)
        mend = "Name one that exists in [dhcp] boot_programs" if chosen else "On Debian it comes with the package ipxe"
        yield Finding(
            "error",
            "boot-program",
            f"The boot program {name} for {who} is neither in {folders[0]} nor in {folders[1]}: "
            f"such machines get no answer. {mend}.",
        )
    if rare:
        who = ", ".join(arch_name(archs[0]) for archs in rare.values())
        yield Finding(
            "info",
            "boot-program",
            f"No boot program for {who}: Debian's package ipxe has none. When you have such machines, put "
            f"{', '.join(rare)} into {folders[0]}; until then they get no answer and boot on.",
        )


def _is_file(folder: str, name: str) -> bool:
    return Path(folder, name.replace("\\", "/").lstrip("/")).is_file()


def environment(config: Config) -> Iterator[Finding]:
    """Is the imaging environment built?"""
    folder = config.environment_dir
    missing = [name for name in ENVIRONMENT_FILES if not Path(folder, name).is_file()]
    if missing:
        yield Finding(
            "error",
            "environment",
            f"The imaging environment is not built: {' and '.join(missing)} not in {folder}. "
            "Run: pxed environment build",
        )


def state_dir(config: Config) -> Iterator[Finding]:
    """Can pxed write its state, or make the folder for it?"""
    folder = Path(config.server.state_dir)
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        yield Finding("error", "state-dir", f"server.state_dir {folder} cannot be made: {above} is not a folder.")
    elif not os.access(above, os.W_OK | os.X_OK):
        what = "cannot be written" if above == folder else f"does not exist and cannot be made in {above}"
        yield Finding("error", "state-dir", f"server.state_dir {folder} {what} by this user.")


def user(config: Config, server_pid: int | None = None) -> Iterator[Finding]:
    """Does the user exist that the server drops to, and can it write what the server writes?

    A start of the server mends what is only somebody else's; until then it is a warning, with a server running beside
    it an error. What the user cannot even reach no start mends.
    """
    if not config.server.user:
        return
    name = config.server.user
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        yield Finding("error", "user", f"server.user {name} is not a user of this host.")
        return
    if os.geteuid() != 0:  # only root can ask for another user
        return
    state, images = Path(config.server.state_dir), Path(config.images_dir)
    for folder, parts in (
        (state, ("", "pxed.db")),
        (images, ("", "lock", "index.sqlite", "packs", "manifests")),
    ):
        kept = [folder / part for part in parts if (folder / part).exists()]
        if not kept or not (refused := _refused(entry, "-w", kept)):
            continue
        trouble = f"server.user {name} cannot write {refused[0]}"
        if _refused(entry, "-x", [folder.parent]) and not folder.parent.is_relative_to(state):
            yield Finding("error", "user", f"{trouble}: it may not enter {folder.parent}. Move it or open that folder.")
        elif server_pid is not None:
            yield Finding("error", "user", f"{trouble}. Restart the server as root: it gives {folder} to {name}.")
        else:
            yield Finding("warning", "user", f"{trouble} yet. The server gives {folder} to {name} when root starts it.")


def _refused(user: pwd.struct_passwd, test: str, paths: list[Path]) -> list[str]:
    """Those of some paths for which `test` of the shell ("-w", "-x") says no to a user. Root only."""
    script = f'for path; do test {test} "$path" || echo "$path"; done'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *map(str, paths)],
        user=user.pw_uid, group=user.pw_gid, extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.splitlines()


def multicast_route(config: Config, local: Iterable[InterfaceAddress], table: str) -> Iterator[Finding]:
    """Does multicast leave by an interface that pxed serves? `table` is the text of /proc/net/route."""
    served = {entry.name for entry in local if entry.address in config.server.ipv4}
    if not served:
        return  # said by `addresses`
    way = route(table, MULTICAST_SAMPLE)
    if way in served:
        return
    first = sorted(served)[0]
    trouble = (
        f"multicast leaves this host by {way}, which pxed does not serve" if way else "there is no multicast route"
    )
    yield Finding(
        "warning",
        "multicast-route",
        f"As the routes are, {trouble}: image sessions to many machines may not reach them. "
        f"Run: ip route add 239.0.0.0/8 dev {first}",
    )


def route(table: str, destination: str) -> str:
    """The interface that /proc/net/route (the main table) sends `destination` by, '' for none."""
    target = int(IPv4Address(destination))
    best: tuple[int, int, str] | None = None  # longest prefix first, then the smallest metric
    for line in table.splitlines()[1:]:
        fields = line.split()
        name, network, flags, metric, mask = fields[0], fields[1], fields[3], fields[6], fields[7]
        up, reject = int(flags, 16) & 0x1, int(flags, 16) & 0x200
        if not up or _address(network) != target & _address(mask):
            continue
        candidate = (-_address(mask).bit_count(), int(metric), "" if reject else name)
        best = candidate if best is None else min(best, candidate)
    return best[2] if best else ""


def _address(field: str) -> int:
    """An address of /proc/net/route: the hexadecimal of a word in this machine's byte order."""
    return int.from_bytes(int(field, 16).to_bytes(4, os.sys.byteorder), "big")  # type: ignore[attr-defined]


def links(
    config: Config, local: Iterable[InterfaceAddress], proc: str = "/proc", sys: str = "/sys"
) -> Iterator[Finding]:
    """Do the served interfaces take full-size blocks, and does the neighbour table hold all machines behind them?"""
    room = _number(f"{proc}/sys/net/ipv4/neigh/default/gc_thresh3")
    told: set[str] = set()  # interfaces; one may have several addresses
    for entry in local:
        if entry.address not in config.server.addresses or entry.network.is_loopback:
            continue
        mtu = _number(f"{sys}/class/net/{entry.name}/mtu")
        if mtu is not None and mtu < ETHERNET_MTU and entry.name not in told:
            told.add(entry.name)
            yield Finding(
                "warning",
                "mtu",
                f"The MTU of {entry.name} is {mtu}: TFTP blocks as machines ask for them travel in fragments or not at "
                f"all. Set it to {ETHERNET_MTU} where the network carries that.",
            )
        if entry.network.version == 6:  # of any size, and never full of machines
            continue
        machines = entry.network.num_addresses - 2
        if room is not None and machines > room:
            yield Finding(
                "info",
                "neighbour-table",
                f"This host's neighbour table has room for {room} machines, and {entry.network} on {entry.name} may "
                "have more. When more than that are on at once, some get no answer. "
                f"Run: sysctl net.ipv4.neigh.default.gc_thresh3={min(machines * 2, MOST_NEIGHBOURS)}",
            )


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # not in this kernel, or not for this network namespace
        return None


def _route_table() -> str:
    try:
        return Path("/proc/self/net/route").read_text(encoding="ascii")
    except OSError:  # no IPv4 in this kernel: said by the addresses
        return ""
