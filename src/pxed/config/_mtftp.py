"""[mtftp]: what is sent by multicast TFTP, to whom and where."""

import ipaddress
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Literal
from zlib import crc32

from msgspec import Meta, Struct, field

from ._types import Port

Seconds = Annotated[int, Meta(ge=0, le=255)]  # a byte in DHCP
MoreSeconds = Annotated[int, Meta(ge=1, le=255)]

# Addresses of the range that files have for good, as PXE's clients are told them before they ask.
PXE_GROUPS = 16

# What iPXE's `mtftp://` listens to, for every file and server.
IPXE_GROUP = ("239.255.1.1", 3001)


def one_form(name: str) -> str:
    """A file's name without the slashes, backslashes and dots in which clients and people differ."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _rank(name: str, address: str) -> int:
    """The address of the lowest rank is a file's, if no other has it (rendezvous hashing)."""
    return crc32(f"{name} {address}".encode())


class MtftpFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One of [[mtftp.files]]: a boot program's own group and times; what is not said is the section's."""

    name: str  # as the boot program is named in [dhcp] boot_programs
    group: str = ""  # "" = one of the section's
    client_port: Port | None = None
    listen: Seconds | None = None
    delay: MoreSeconds | None = None


class MtftpGroup(Struct, frozen=True):
    """Where a file is sent to PXE's MTFTP clients; times in seconds."""

    address: str
    client_port: int
    listen: int
    delay: int


class Mtftp(Struct, frozen=True, forbid_unknown_fields=True):
    """[mtftp]: TFTP by multicast, one stream for all clients that ask for the same file so.

    RFC 2090 is the clients' choice. PXE's own MTFTP is told by DHCP to `machines` and `architectures` only; `ipxe`
    loads the kernel of the imaging environment so, "auto": when it has no HTTP and several machines boot at a time.
    `machines` says of single ones whether they get either.
    """

    enabled: bool = False
    groups: str = "239.255.78.0/24"  # every file that is being sent takes one address of these
    port: Port = 1758  # of RFC 2090's groups, and ours for everything that has to do with them
    ttl: Annotated[int, Meta(ge=1, le=255)] = 1  # 1: this network; each router on the way takes one more
    machines: dict[str, bool] = field(default_factory=dict)  # MAC -> true or false
    architectures: tuple[int, ...] = ()  # whose firmware is told of MTFTP; none by default
    server_port: Port = 1799  # of ours, for PXE's MTFTP; both bytes alike, as clients disagree on their order
    client_port: Port = 2056  # theirs, and their groups'; the same
    listen: Seconds = 2  # how long they listen before they ask
    delay: MoreSeconds = 2  # and the silence after which they ask again
    files: tuple[MtftpFile, ...] = ()
    ipxe: Literal["auto", "always", "never"] = "auto"
    ipxe_port: Port = 1760  # of ours

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The addresses of the groups."""
        return ipaddress.IPv4Network(self.groups)

    @property
    def passing(self) -> int:
        """How many of the addresses, from the first, RFC 2090 takes and gives back."""
        count = self.network.num_addresses
        return count - min(PXE_GROUPS, count // 2)

    def pxe_groups(self, programs: Iterable[str]) -> dict[str, MtftpGroup]:
        """The groups of these files and of `files`: collision-free, and the same as far as possible when some come or
        go, as clients may have been told a moment ago. Files for which there is no address left have none.
        """
        own = {one_form(file.name): file for file in self.files}
        taken = {file.group for file in self.files if file.group}
        lasting = [str(self.network[i]) for i in range(self.passing, self.network.num_addresses)]
        found = {}
        names = {form: file.name for form, file in own.items()} | {one_form(name): name for name in programs}
        for form, name in sorted(names.items()):
            file = own.get(form) or MtftpFile(name)
            free = (address for address in lasting if address not in taken)
            address = file.group or min(free, key=partial(_rank, name), default="")
            if address:
                taken.add(address)
                found[name] = MtftpGroup(
                    address,
                    self.client_port if file.client_port is None else file.client_port,
                    self.listen if file.listen is None else file.listen,
                    self.delay if file.delay is None else file.delay,
                )
        return found
