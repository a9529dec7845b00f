"""The clocks and request patterns of real firmware, as data: one table, each number with its source.

Read for this table (project, file; nothing is copied):

- iPXE (Debian 12's and head): src/config/dhcp.h, src/net/udp/dhcp.c, src/net/udp/tftp.c, src/net/retry.c,
  src/include/ipxe/retry.h, src/include/ipxe/tftp.h
- EDK2: NetworkPkg/UefiPxeBcDxe (PxeBcDhcp4.c, PxeBcMtftp.c, PxeBcImpl.h), NetworkPkg/Dhcp4Dxe/Dhcp4Io.c,
  NetworkPkg/Mtftp4Dxe (Mtftp4Rrq.c, Mtftp4Support.c, Mtftp4Impl.h), NetworkPkg.dec (PcdPxeTftpWindowSize)
- GRUB: grub-core/net/tftp.c, grub-core/net/net.c, include/grub/net.h
- shim: netboot.c
- BIOS ROMs: Intel's PXE base code, whose only public source is EFI's of 2006 (EdkModulePkg/Universal/Network/PxeBc/Dxe:
  pxe_bc_mtftp.c, tftp.h); the specification's DHCP times as iPXE's dhcp.h quotes them; request logs of tftpd32 users
- packets on the wire: tests/vectors/dhcp (iPXE 1.0.0 of 2019 and OVMF 2022.11, captured)

Where a project waits in ticks of a second or of 55 ms, the exact time is taken. Times are seconds.
"""

from enum import StrEnum

from msgspec import Struct, structs

from pxed.wire.iana import ArchType

__all__ = [
    "GRUB_CONFIG",
    "GRUB_TFTP",
    "IPXE_DHCP",
    "IPXE_HTTP",
    "IPXE_TFTP",
    "ROWS",
    "SHIM_ASKS",
    "SHIM_TFTP",
    "BackOff",
    "Clock",
    "DhcpHabits",
    "Probe",
    "Row",
    "Stage",
    "Stray",
    "TftpHabits",
    "Waits",
    "row",
]


class Waits(Struct, frozen=True):
    """The packet is sent, and sent again after each of these times but the last, when it is given up.

    Each new packet starts the row over.
    """

    seconds: tuple[float, ...]

    def tries(self) -> tuple[float, ...]:
        """The waits after each of the tries for one packet."""
        return self.seconds

    @property
    def patience(self) -> float:
        """From the first try to giving up."""
        return sum(self.seconds)


class BackOff(Struct, frozen=True):
    """iPXE's retry timer: the wait doubles with each silence, and it gives up when it would exceed `longest`.

    What is special: an answer does not reset it. As many answers as there were silences leave it as it is, and
    each after those takes an eighth off and adds half of the round trip, down to `shortest` (retry.c).
    """

    shortest: float
    longest: float

    def tries(self) -> tuple[float, ...]:
        """The waits after each of the tries for one packet, when it was not backed off before."""
        waits = [self.shortest]
        while 2 * waits[-1] <= self.longest:
            waits.append(2 * waits[-1])
        return tuple(waits)

    @property
    def patience(self) -> float:
        """From the first try to giving up, when it was not backed off before."""
        return sum(self.tries())


Clock = Waits | BackOff


class Stray(StrEnum):
    """What a client does with DATA that is not the next block."""

    ACK_LAST = "acknowledges the last block in order again"
    ACK_IT = "acknowledges the old block by its own number, ignores a later one"
    COUNT = "acknowledges the last block again, which counts as one of its tries; a block too early ends the transfer"


class TftpHabits(Struct, frozen=True):
    """How a client reads a file."""

    request: Clock
    block: Clock
    blksize: int = 512  # asked for, unless `asks_blksize` is False
    windowsize: int = 1  # 1: not asked for
    tsize: bool = True  # asks for the size in the request that reads
    stray: Stray = Stray.ACK_LAST
    resends: bool = True  # False: a silent server gets nothing again once the first block has come


class Probe(Struct, frozen=True):
    """A request for the size alone, that comes before the one that reads; ended with an ERROR after the OACK."""

    options: tuple[str, ...]  # beside tsize, of those that the reading request has
    error: int
    text: str


class DhcpHabits(Struct, frozen=True):
    """How a client gets an address and learns what to boot."""

    discover: Clock
    request: Clock
    proxy: Clock
    """Of the request on port 4011."""
    window: bool
    """True: offers are looked at when the time after a DISCOVER is over, however early they came."""
    lease_alone: float
    """Seconds after the first DISCOVER from which an address without a boot offer is taken; inf: never."""
    proxy_patience: float
    """Seconds after which no further request on 4011 is sent; it goes on without an answer then."""
    proxy_port: int
    """From which the request on 4011 comes."""
    client_class: str
    parameters: bytes
    """Option 55."""
    undi: bytes
    """Option 94."""
    user_class: bytes = b""
    features: bytes = b""
    """Option 175."""
    broadcast: bool = False
    """The flag that asks for broadcast replies."""


class Stage(StrEnum):
    """What a boot program is."""

    IPXE = "ipxe"
    SHIM = "shim"


class Row(Struct, frozen=True):
    """One kind of machine: its own firmware, and what it loads."""

    name: str
    title: str
    arch: ArchType
    dhcp: DhcpHabits
    tftp: TftpHabits
    probe: Probe | None
    loads: Stage
    """What the site's boot program for this architecture is."""
    late: float
    """A server that begins to answer so many seconds after power-on is still in time (with what DHCP allows)."""
    is_ipxe: bool = False
    """The firmware itself is iPXE, and gets its script at once."""


# -- iPXE --------------------------------------------------------------------------------------------------------------

_RETRY = BackOff(0.25, 10.0)  # retry.h: a quarter of a second, ten seconds
_IPXE_PARAMETERS = bytes.fromhex("010306070c0f111a2b3c4243778081828384858687afcb")  # captured
# Captured: bus id, version, and HTTP (19), TFTP (21), EFI (36), menu (39) and others among the features.
_IPXE_FEATURES = bytes.fromhex(
    "b105018086100eeb03010000170101220101130101110101270101190101290101100102210101150101180101120101"
)


def _ipxe(arch: ArchType, interface: bytes) -> DhcpHabits:
    return DhcpHabits(
        discover=BackOff(1.0, 10.0),  # DHCP_DISC_START_TIMEOUT_SEC, _END_: 0, 1, 3, 7 s; gives up at 15
        request=BackOff(0.25, 10.0),  # DHCP_REQ_START_TIMEOUT_SEC 0 is the timer's own shortest
        proxy=BackOff(0.25, 10.0),
        window=False,  # dhcp_discovery_rx: goes on as soon as it has both offers
        lease_alone=2.0,  # DHCP_DISC_PROXY_TIMEOUT_SEC
        proxy_patience=2.0,  # DHCP_REQ_PROXY_TIMEOUT_SEC
        proxy_port=68,
        client_class=f"PXEClient:Arch:{arch:05}:UNDI:{interface[1]:03}{interface[2]:03}",
        parameters=_IPXE_PARAMETERS,
        undi=interface,
        user_class=b"iPXE",
        features=_IPXE_FEATURES,
    )


IPXE_DHCP = {
    ArchType.BIOS: _ipxe(ArchType.BIOS, b"\1\2\1"),  # captured
    ArchType.EFI_X64: _ipxe(ArchType.EFI_X64, b"\1\3\x10"),
}
IPXE_TFTP = TftpHabits(request=_RETRY, block=_RETRY, blksize=1432)  # TFTP_MAX_BLKSIZE; no window, ever
IPXE_HTTP = _RETRY  # tcp.c uses the same timer for SYN

# -- EDK2 --------------------------------------------------------------------------------------------------------------

_PXE_DISCOVER = Waits((4.0, 8.0, 16.0, 32.0))  # mPxeDhcpTimeout; PXE 2.1 says the same
_UEFI_DHCP = DhcpHabits(
    discover=_PXE_DISCOVER,
    request=_PXE_DISCOVER,
    proxy=Waits((1.0, 2.0, 3.0, 4.0)),  # PXEBC_BOOT_REQUEST_TIMEOUT times the number of the try, _RETRIES 4
    window=True,  # DhcpOnTimerTick chooses when the time is over, and asks again if it finds nothing to boot
    lease_alone=float("inf"),
    proxy_patience=float("inf"),
    proxy_port=4011,
    client_class="PXEClient:Arch:00007:UNDI:003000",
    parameters=bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687"),  # captured
    undi=b"\1\3\0",
    broadcast=True,
)
_MTFTP = Waits((4.0,) * 6)  # PXEBC_MTFTP_TIMEOUT 4, PXEBC_MTFTP_RETRIES 6, for requests and ACKs alike
_UEFI_TFTP = TftpHabits(request=_MTFTP, block=_MTFTP, blksize=1468, windowsize=4, tsize=False)
# Mtftp4 ends the probe with "request denied" from its callback.
_UEFI_PROBE = Probe(("blksize", "windowsize"), 8, "User aborted the transfer")

# -- shim and GRUB -----------------------------------------------------------------------------------------------------

# shim reads by the firmware's own MTFTP, with blocks of 512 (netboot.c; rhboot/shim#618) and without a probe.
SHIM_TFTP = TftpHabits(request=_MTFTP, block=_MTFTP, blksize=512, windowsize=4, tsize=False)
SHIM_ASKS = ("revocations.efi", "grubx64.efi")  # beside itself, in this order; the first may be missing
# GRUB_NET_TRIES 40, GRUB_NET_INTERVAL 400 ms, GRUB_NET_INTERVAL_ADDITION 20 ms. While it reads it only listens.
GRUB_TFTP = TftpHabits(
    request=Waits(tuple(0.4 + 0.02 * number for number in range(40))),
    block=Waits(tuple(0.4 + 0.02 * number for number in range(1, 42))),
    blksize=1024,
    stray=Stray.ACK_IT,
    resends=False,
)
GRUB_CONFIG = "grub/grub.cfg"

# -- BIOS ROMs ---------------------------------------------------------------------------------------------------------

_BIOS_DHCP = DhcpHabits(
    discover=_PXE_DISCOVER,
    request=Waits((1.0, 2.0, 3.0, 4.0)),  # PXE 2.1
    proxy=Waits((1.0, 2.0, 3.0, 4.0)),
    window=True,
    lease_alone=12.0,  # PXE 2.1: through the times of 4 and 8 s
    proxy_patience=float("inf"),
    proxy_port=68,
    client_class="PXEClient:Arch:00000:UNDI:002001",
    parameters=_UEFI_DHCP.parameters,
    undi=b"\1\2\1",
    broadcast=True,
)
_BIOS_TFTP = TftpHabits(
    request=Waits((5.0,) * 3),  # REQ_RESP_TIMEOUT, three tries
    block=Waits((4.0,) * 3),  # ACK_TIMEOUT, NUM_ACK_RETRIES
    blksize=1456,  # request logs: "OACK: <blksize=1456,>" after an aborted request with tsize alone
    tsize=False,
    stray=Stray.COUNT,
)
_BIOS_PROBE = Probe((), 0, "TFTP Aborted")  # the same logs

ROWS: tuple[Row, ...] = (
    Row(
        name="uefi", title="UEFI (EDK2), then iPXE", arch=ArchType.EFI_X64, dhcp=_UEFI_DHCP, tftp=_UEFI_TFTP,
        probe=_UEFI_PROBE, loads=Stage.IPXE, late=27.0,
    ),
    Row(
        name="bios", title="BIOS ROM, then iPXE", arch=ArchType.BIOS, dhcp=_BIOS_DHCP, tftp=_BIOS_TFTP,
        probe=_BIOS_PROBE, loads=Stage.IPXE, late=3.9,
    ),
    Row(
        name="ipxe", title="iPXE in the ROM", arch=ArchType.BIOS, dhcp=IPXE_DHCP[ArchType.BIOS], tftp=IPXE_TFTP,
        probe=None, loads=Stage.IPXE, late=0.9, is_ipxe=True,
    ),
    # Real ones report x64 too. Type 9 is x64 in practice, and lets a fleet have both.
    Row(
        name="shim", title="UEFI, shim, GRUB", arch=ArchType.EFI_BC, tftp=_UEFI_TFTP, probe=_UEFI_PROBE,
        dhcp=structs.replace(_UEFI_DHCP, client_class="PXEClient:Arch:00009:UNDI:003000"), loads=Stage.SHIM, late=27.0,
    ),
)  # fmt: skip


def row(name: str) -> Row:
    """The row of this name. Raises KeyError."""
    return {one.name: one for one in ROWS}[name]
