"""Keys that are right each by itself and cannot be together: one UDP port for two things, one group for two, rates."""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from ._check import Mistake
from ._keys import Cast, Config
from ._mtftp import IPXE_GROUP, one_form
from ._places import Key
from ._rules import bytes_per_second
from ._text import dotted, shown

# Of DHCP: RFC 2131, and PXE 2.1 section 2.2.
_DHCP_PORTS = {67: "DHCP", 4011: "PXE boot servers"}


class _Use(NamedTuple):
    key: Key
    port: int


def clashes(config: Config) -> Iterator[Mistake]:
    """Everything of the kind in a configuration without other mistakes."""
    yield from _ports(config)
    if config.mtftp.enabled:
        yield from _files(config)
        yield from _too_few(config)
    if config.cast.enabled:
        yield from _floor(config.cast)
    if config.mtftp.enabled and config.cast.enabled and config.mtftp.network.overlaps(config.cast.network):
        yield Mistake(
            ("cast", "groups"),
            f"key `cast.groups`: expected addresses beside those of `mtftp.groups`, {shown(config.mtftp.groups)}; "
            f"got {shown(config.cast.groups)}",
        )


def _ports(config: Config) -> Iterator[Mistake]:
    taken: dict[int, str] = dict(_DHCP_PORTS) if config.dhcp.enabled else {}
    own = config.tftp.transfer_ports or ()
    for key, port in _udp(config):
        if port in taken:
            yield _mistake(key, "a UDP port of its own", f"{port}, which is that of {taken[port]}")
        elif port in own and key != ("tftp", "port"):  # bound first, and then not taken again
            yield _mistake(key, "a UDP port of its own", f"{port}, which is one of `tftp.ports`")
        taken.setdefault(port, f"`{dotted(key)}`")


def _udp(config: Config) -> Iterator[_Use]:
    """The UDP ports that are bound at each address of the server."""
    yield _Use(("tftp", "port"), config.tftp.port)
    if config.mtftp.enabled:
        yield _Use(("mtftp", "port"), config.mtftp.port)
        yield _Use(("mtftp", "server_port"), config.mtftp.server_port)
        yield _Use(("mtftp", "ipxe_port"), config.mtftp.ipxe_port)
    if config.cast.enabled:
        yield _Use(("cast", "port"), config.cast.port)


def _files(config: Config) -> Iterator[Mistake]:
    """[[mtftp.files]] that are one file, and groups that would bring their listeners what is not theirs."""
    names: set[str] = set()
    network = config.mtftp.network
    first, last = network[0], network[config.mtftp.passing - 1]
    taken = {_ethernet(IPv4Address(IPXE_GROUP[0])): f"iPXE's group, {IPXE_GROUP[0]}"}
    for number, file in enumerate(config.mtftp.files, 1):
        key = ("mtftp", f"files[{number}]", "name")
        if one_form(file.name) in names:
            yield _mistake(key, "a file that no other [[mtftp.files]] names", shown(file.name))
        names.add(one_form(file.name))
        if not file.group:
            continue
        key, group = ("mtftp", f"files[{number}]", "group"), IPv4Address(file.group)
        if first <= group <= last:
            expected = f"a group that is not of those which files take and give back, {first} to {last}"
            yield _mistake(key, expected, shown(file.group))
        elif config.cast.enabled and group in config.cast.network:
            expected = f"a group beside those of `cast.groups`, {shown(config.cast.groups)}"
            yield _mistake(key, expected, shown(file.group))
        elif _ethernet(group) in taken:
            expected = "a group with an Ethernet address of its own"
            yield _mistake(key, expected, f"{shown(file.group)}, which has that of {taken[_ethernet(group)]}")
        taken.setdefault(_ethernet(group), f"`{dotted(key)}`")


def _floor(cast: Cast) -> Iterator[Mistake]:
    """The rate that sessions are never slower than is above one that they are never faster than."""
    highest = {
        "rate": cast.rate,
        "session_rate": cast.session_rate,
        **{f"rates.{name}": rate for name, rate in cast.rates.items()},
        **{f"hours.{hours}": rate for hours, rate in cast.hours.items()},
    }
    lowest = min((key for key, rate in highest.items() if rate), key=lambda k: bytes_per_second(highest[k]), default="")
    if lowest and bytes_per_second(cast.floor) > bytes_per_second(highest[lowest]):
        expected = f"a rate of at most that of `{dotted(('cast', lowest))}`, {shown(highest[lowest])}"
        yield _mistake(("cast", "floor"), expected, shown(cast.floor))


def _ethernet(group: IPv4Address) -> int:
    """What of a group's address is in its Ethernet address (RFC 1112, section 6.4)."""
    return int(group) & 0x7F_FFFF


def _too_few(config: Config) -> Iterator[Mistake]:
    """Machines are told of MTFTP, and some boot programs would have no group."""
    programs = {program for arch in config.dhcp.architectures if (program := config.dhcp.boot_program(arch))}
    lost = sorted(programs - set(config.mtftp_groups))
    if lost and (config.mtftp.architectures or any(config.mtftp.machines.values())):
        expected = "as many addresses as give each boot program one for PXE's MTFTP"
        yield _mistake(("mtftp", "groups"), expected, f"{shown(config.mtftp.groups)}, with none for {', '.join(lost)}")


def _mistake(key: Key, expected: str, got: str) -> Mistake:
    return Mistake(key, f"key `{dotted(key)}`: expected {expected}; got {got}")
