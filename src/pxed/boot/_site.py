"""What decisions need to know about this site: a frozen extract of the configuration."""

from typing import Literal
from urllib.parse import quote

from msgspec import Struct

from pxed.config import DEFAULT_BOOT_PROGRAMS, Config
from pxed.wire import pxe

from ._quirks import Quirk

FIRST_SCRIPT = "pxed/boot.ipxe"


class Mtftp(Struct, frozen=True):
    """Who is told by DHCP, or by a boot script, that files are sent by MTFTP."""

    groups: dict[str, pxe.Mtftp] = {}
    """By boot program: where PXE's clients are to listen."""
    machines: dict[str, bool] = {}
    """By MAC: what the operator said of single machines."""
    architectures: frozenset[int] = frozenset()
    """Those whose firmware is told of it."""
    ipxe: Literal["auto", "always", "never"] = "auto"
    ipxe_port: int = 1760

    def told(self, mac: str, arch: int) -> bool:
        """Whether this machine's firmware is."""
        return self.machines.get(mac, arch in self.architectures)


class Site(Struct, frozen=True):
    """Build one with `Site.from_config` whenever the configuration is loaded."""

    boot_programs: dict[int, str]
    """Boot program by architecture type."""
    program_folders: tuple[str, ...] = ()
    """Where boot programs are looked for, for sentences."""
    no_work: Literal["silent", "local"] = "silent"
    http_port: int = 80
    tftp_port: int = 69
    mtftp: Mtftp | None = None
    """None: nobody is."""
    quirks: tuple[Quirk, ...] = ()
    """Rows that come before the built-in quirk table."""

    @classmethod
    def from_config(cls, config: Config) -> "Site":
        """The site that a configuration describes."""
        archs = {*DEFAULT_BOOT_PROGRAMS, *config.dhcp.boot_programs}
        programs = {int(arch): config.dhcp.boot_program(int(arch)) for arch in archs}
        return cls(
            boot_programs={arch: name for arch, name in programs.items() if name},
            program_folders=(config.tftp.root, config.dhcp.boot_program_dir),
            no_work=config.transaction.no_work,
            http_port=config.http.port,
            tftp_port=config.tftp.port,
            mtftp=_mtftp(config) if config.mtftp.enabled else None,
        )

    def singles_out(self, mac: str) -> bool:
        """Whether something was said of this one machine."""
        return self.mtftp is not None and mac in self.mtftp.machines

    def http_base(self, address: str) -> str:
        """'http://10.78.0.1', with the port when it is not 80. No slash at the end."""
        host = _host(address)
        return f"http://{host}" if self.http_port == 80 else f"http://{host}:{self.http_port}"

    def tftp_base(self, address: str) -> str:
        """'tftp://10.78.0.1', with the port when it is not 69. No slash at the end."""
        host = _host(address)
        return f"tftp://{host}" if self.tftp_port == 69 else f"tftp://{host}:{self.tftp_port}"

    def mtftp_base(self, address: str) -> str:
        """'mtftp://10.78.0.1:1760', for iPXE. No slash at the end."""
        return f"mtftp://{address}:{self.mtftp.ipxe_port}" if self.mtftp else ""

    def http_url(self, address: str, name: str) -> str:
        """The URL of a served name."""
        return f"{self.http_base(address)}/{quote(name.lstrip('/'))}"

    def program(self, archs: tuple[int, ...], missing: frozenset[str] = frozenset()) -> tuple[int, str] | None:
        """The first of a client's architecture types that we have a boot program for, and its name.

        `missing`: names of boot programs without a file.
        """
        named = ((arch, self.boot_programs[arch]) for arch in archs if arch in self.boot_programs)
        return next(((arch, name) for arch, name in named if name not in missing), None)


def _mtftp(config: Config) -> Mtftp:
    section = config.mtftp
    return Mtftp(
        groups={
            name: pxe.Mtftp(group.address, group.client_port, section.server_port, group.listen, group.delay)
            for name, group in config.mtftp_groups.items()
        },
        machines={mac.lower().replace("-", ":"): told for mac, told in section.machines.items()},
        architectures=frozenset(section.architectures),
        ipxe=section.ipxe,
        ipxe_port=section.ipxe_port,
    )


def _host(address: str) -> str:
    """An address as it stands in a URL: of IPv6 in brackets (RFC 3986 3.2.2)."""
    return f"[{address}]" if ":" in address else address
