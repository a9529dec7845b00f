"""Keys that are right each by itself and cannot be together: one UDP port for two things, one group for two."""

from collections.abc import Iterator
from typing import NamedTuple

from ._check import Mistake
from ._keys import Config
from ._places import Key
from ._text import dotted, shown

# Of DHCP: RFC 2131, and PXE 2.1 section 2.2.
_DHCP_PORTS = {67: "DHCP", 4011: "PXE boot servers"}


class _Use(NamedTuple):
    key: Key
    port: int


def clashes(config: Config) -> Iterator[Mistake]:
    """Everything of the kind in a configuration without other mistakes."""
    yield from _ports(config)
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


def _mistake(key: Key, expected: str, got: str) -> Mistake:
    return Mistake(key, f"key `{dotted(key)}`: expected {expected}; got {got}")
