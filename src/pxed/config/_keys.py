"""The configuration's sections and keys, their defaults, and what they come to."""

import ipaddress
import os
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ._mtftp import Mtftp, MtftpGroup
from ._types import Port

# Architecture types (RFC 4578, IANA) and the boot program for each. Names are looked up in the TFTP root
# first, then in `dhcp.boot_program_dir`, where Debian's `ipxe` package puts the x86 ones.
DEFAULT_BOOT_PROGRAMS: dict[str, str] = {
    "0": "undionly.kpxe",
    "6": "snponly-ia32.efi",
    "7": "snponly.efi",
    "9": "snponly.efi",
    "10": "snponly-arm32.efi",
    "11": "snponly-arm64.efi",
    "15": "snponly-ia32.efi",
    "16": "snponly.efi",
    "18": "snponly-arm32.efi",
    "19": "snponly-arm64.efi",
}


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """[server]: who we are."""

    address: str | list[str]  # what clients reach; the interfaces are found from it. At least one is of IPv4
    state_dir: str = "/var/lib/pxed"
    socket: str = "/run/pxed/pxed.sock"  # the admin API
    user: str = ""  # drop to this user after binding; "" = stay
    rates: dict[str, str] = field(default_factory=dict)  # interface -> what TFTP may send through it: "900Mbit"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, each in its one form; the first of a family is used where no other fits better."""
        written = [self.address] if isinstance(self.address, str) else self.address
        return tuple(str(ipaddress.ip_address(address)) for address in written)

    @property
    def ipv4(self) -> tuple[str, ...]:
        """Those of IPv4: DHCP has no others."""
        return tuple(address for address in self.addresses if ":" not in address)


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"


class Dhcp(Struct, frozen=True, forbid_unknown_fields=True):
    """[dhcp]: the proxyDHCP."""

    enabled: bool = True
    same_host_dhcp: bool = False  # another daemon on this host has port 67
    boot_programs: dict[str, str] = field(default_factory=dict)  # over DEFAULT_BOOT_PROGRAMS, key = arch type
    boot_program_dir: str = "/usr/lib/ipxe"

    @property
    def architectures(self) -> set[int]:
        """Those that have a boot program."""
        return {int(arch) for arch in (*DEFAULT_BOOT_PROGRAMS, *self.boot_programs)}

    def boot_program(self, arch: int) -> str | None:
        """The boot program's name for an architecture type, or None."""
        return self.boot_programs.get(str(arch)) or DEFAULT_BOOT_PROGRAMS.get(str(arch))


def _tftp_threads() -> int:
    # One core saturates several gigabits; more than a few threads only take cores from everything else.
    return min(len(os.sched_getaffinity(0)), 4)


class Tftp(Struct, frozen=True, forbid_unknown_fields=True):
    """[tftp]: `threads` serve it, each a share of the clients; by default as many as there are cores, at most 4.

    `running` clients are served at full speed at a time. More wait for their first answer, for as long as firmware
    does, and then get a block a second until there is a place. 0: enough to fill the interfaces' lines.

    `ports`: "single" answers from the port that was asked. A range like "40000-41000" answers each transfer from a port
    of its own (RFC 1350), for firewalls and relays that expect it: some 16 of them for each address and thread.
    """

    root: str
    rate: str = ""  # what may be sent in all, headers included: "900Mbit"; "" = no limit
    running: Annotated[int, Meta(ge=0, le=20_000)] = 0
    port: Port = 69
    threads: Annotated[int, Meta(ge=1, le=64)] = field(default_factory=_tftp_threads)
    ports: str = "single"

    @property
    def transfer_ports(self) -> range | None:
        """The ports that transfers have of their own; None: they have none."""
        if self.ports == "single":
            return None
        first, last = self.ports.split("-")
        return range(int(first), int(last) + 1)


class Cast(Struct, frozen=True, forbid_unknown_fields=True):
    """[cast]: images by multicast, one session for all machines that want the same one through the same interface.

    Rates are of image data, repeats included; headers come on top (6 %). All sessions of an interface share its rate;
    none is slowed down below `floor` by machines that lose datagrams. "" is what fits the interface.

    `start`: when a session begins to send. "first": with its first machine; others join at any time. "20 machines",
    "300 seconds" after the first, "20 machines or 300 seconds", "22:30", or "manual": at `pxed session start`.
    """

    enabled: bool = True
    rate: str = ""  # through each interface: "170Mbit"
    rates: dict[str, str] = field(default_factory=dict)  # interface -> the same for it
    session_rate: str = ""  # of each session
    floor: str = ""
    hours: dict[str, str] = field(default_factory=dict)  # "08:00-18:00" -> the highest rate of an interface then
    start: str = "first"
    groups: str = "239.255.79.0/24"  # every session takes one address of these
    port: Port = 1759  # of the groups, and ours for reports
    ttl: Annotated[int, Meta(ge=1, le=255)] = 1

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The addresses of the groups."""
        return ipaddress.IPv4Network(self.groups)


class Http(Struct, frozen=True, forbid_unknown_fields=True):
    """[http]: boot HTTP, for firmware, preboot clients and agents."""

    port: Port = 80
    connections: Annotated[int, Meta(ge=16, le=60000)] = 2048  # at once; idle and stalled ones make room for others
    connections_per_address: Annotated[int, Meta(ge=1)] = 512  # behind NAT a whole site has one address


class Transaction(Struct, frozen=True, forbid_unknown_fields=True):
    """[transaction]: the question "is there imaging work for this machine?"."""

    unknown_machines: Literal["ignore", "boot", "hold"] = "ignore"
    no_work: Literal["silent", "local"] = "silent"


class Jobs(Struct, frozen=True, forbid_unknown_fields=True):
    """[jobs]"""

    silence: Annotated[float, Meta(gt=0)] = 60.0  # seconds without a report until a running job has failed
    boot_timeout: Annotated[float, Meta(gt=0)] = 600.0  # seconds from the offer to the agent's claim


class Images(Struct, frozen=True, forbid_unknown_fields=True):
    """[images]"""

    dir: str = ""  # default: STATE_DIR/images
    public: bool = True  # read by everybody on the boot network; False: by machines whose job wants them


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """[metrics]: for Prometheus. They are on the admin socket always."""

    listen: str = ""  # "ADDRESS:PORT" where they are served over TCP, too; "" = nowhere

    @property
    def place(self) -> tuple[str, int] | None:
        """`listen` as address and port."""
        address, _, port = self.listen.rpartition(":")
        return (address, int(port)) if self.listen else None


class Environment(Struct, frozen=True, forbid_unknown_fields=True):
    """[environment]: the Linux imaging environment."""

    dir: str = ""  # default: STATE_DIR/environment
    append: str = ""  # added to the kernel's command line
    console: tuple[str, ...] = ("tty0", "ttyS0,115200")


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    server: Server
    tftp: Tftp
    log: Log = Log()
    dhcp: Dhcp = Dhcp()
    mtftp: Mtftp = Mtftp()
    cast: Cast = Cast()
    http: Http = Http()
    transaction: Transaction = Transaction()
    jobs: Jobs = Jobs()
    images: Images = Images()
    environment: Environment = Environment()
    metrics: Metrics = Metrics()

    @property
    def mtftp_groups(self) -> dict[str, MtftpGroup]:
        """Where boot programs, and the files that have a group, are sent to PXE's MTFTP clients, by name."""
        programs = {program for arch in self.dhcp.architectures if (program := self.dhcp.boot_program(arch))}
        return self.mtftp.pxe_groups(programs)

    @property
    def images_dir(self) -> str:
        """Where the image store lies."""
        return self.images.dir or f"{self.server.state_dir}/images"

    @property
    def environment_dir(self) -> str:
        """Where `pxed environment build` leaves vmlinuz and initramfs.cpio.zst."""
        return self.environment.dir or f"{self.server.state_dir}/environment"
