"""Numbers that IANA and the PXE specification gave out, as far as pxed speaks of them.

Sources: IANA "BOOTP/DHCP Parameters" (options, message types), "Processor Architecture Types" (RFC 5970, RFC 4578
section 2.1), PXE 2.1 section 2 (option 43 tags, server types), iPXE's `dhcp.h` numbers for option 175.
"""

from enum import IntEnum, IntFlag
from functools import lru_cache

__all__ = [
    "BROADCAST",
    "CLIENT_PORT",
    "PXE_PORT",
    "SERVER_PORT",
    "ArchType",
    "BootServerType",
    "Discovery",
    "IpxeTag",
    "MessageType",
    "Op",
    "OptionCode",
    "PxeTag",
    "arch_name",
]

SERVER_PORT = 67  # RFC 2131 section 4.1
CLIENT_PORT = 68
PXE_PORT = 4011  # PXE 2.1: the boot server's own port ("BINL")
BROADCAST = "255.255.255.255"


class Op(IntEnum):
    """RFC 2131 section 2."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Option 53 (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class OptionCode(IntEnum):
    """DHCP options (RFC 2132 unless said otherwise)."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    DNS = 6
    HOST_NAME = 12
    BOOT_FILE_SIZE = 13
    VENDOR = 43  # PXE tags
    REQUESTED_ADDRESS = 50
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_LIST = 55
    MAX_SIZE = 57
    CLASS_ID = 60
    CLIENT_ID = 61
    SERVER_NAME = 66
    BOOT_FILE = 67
    USER_CLASS = 77  # RFC 3004
    RELAY_INFO = 82  # RFC 3046
    CLIENT_ARCH = 93  # RFC 4578 section 2.1
    CLIENT_NDI = 94  # RFC 4578 section 2.2
    CLIENT_UUID = 97  # RFC 4578 section 2.3
    IPXE = 175  # Etherboot, iPXE: encapsulated options of their own
    PXELINUX_MAGIC = 208  # RFC 5071
    PXELINUX_CONFIG = 209
    PXELINUX_PREFIX = 210
    PXELINUX_REBOOT = 211
    END = 255


class ArchType(IntEnum):
    """Processor architecture types. 9 is x64 in practice: RFC 4578's text had 7 and 9 mixed."""

    BIOS = 0
    NEC_PC98 = 1
    IA64 = 2
    ALPHA = 3
    ARC_X86 = 4
    LEAN_CLIENT = 5
    EFI_IA32 = 6
    EFI_X64 = 7
    EFI_XSCALE = 8
    EFI_BC = 9
    EFI_ARM32 = 10
    EFI_ARM64 = 11
    POWER_OPEN_FIRMWARE = 12
    POWER_EPAPR = 13
    POWER_OPAL = 14
    HTTP_IA32 = 15
    HTTP_X64 = 16
    HTTP_BC = 17
    HTTP_ARM32 = 18
    HTTP_ARM64 = 19
    BIOS_HTTP = 20
    UBOOT_ARM32 = 21
    UBOOT_ARM64 = 22
    UBOOT_ARM32_HTTP = 23
    UBOOT_ARM64_HTTP = 24
    EFI_RISCV32 = 25
    HTTP_RISCV32 = 26
    EFI_RISCV64 = 27
    HTTP_RISCV64 = 28
    EFI_RISCV128 = 29
    HTTP_RISCV128 = 30
    S390_BASIC = 31
    S390_EXTENDED = 32
    EFI_MIPS32 = 33
    EFI_MIPS64 = 34
    EFI_SUNWAY32 = 35
    EFI_SUNWAY64 = 36
    EFI_LOONGARCH32 = 37
    HTTP_LOONGARCH32 = 38
    EFI_LOONGARCH64 = 39
    HTTP_LOONGARCH64 = 40
    RASPBERRY_PI = 41


_ARCH_NAMES = {
    ArchType.BIOS: "BIOS",
    ArchType.EFI_IA32: "UEFI IA32",
    ArchType.EFI_X64: "UEFI x64",
    ArchType.EFI_BC: "UEFI x64 (EBC)",
    ArchType.EFI_ARM32: "UEFI ARM32",
    ArchType.EFI_ARM64: "UEFI ARM64",
    ArchType.HTTP_IA32: "UEFI IA32 HTTP",
    ArchType.HTTP_X64: "UEFI x64 HTTP",
    ArchType.HTTP_BC: "UEFI x64 (EBC) HTTP",
    ArchType.HTTP_ARM32: "UEFI ARM32 HTTP",
    ArchType.HTTP_ARM64: "UEFI ARM64 HTTP",
    ArchType.RASPBERRY_PI: "Raspberry Pi",
}


@lru_cache(maxsize=64)
def arch_name(arch: int) -> str:
    """What a person calls an architecture type; any number has a name."""
    try:
        known = ArchType(arch)
    except ValueError:
        return f"architecture {arch}"
    return _ARCH_NAMES.get(known, known.name.replace("_", " "))


class PxeTag(IntEnum):
    """Tags inside option 43 (PXE 2.1 section 2)."""

    PAD = 0
    MTFTP_ADDRESS = 1
    MTFTP_CLIENT_PORT = 2
    MTFTP_SERVER_PORT = 3
    MTFTP_LISTEN = 4  # seconds to listen before opening a transfer
    MTFTP_DELAY = 5  # seconds of silence before opening again
    DISCOVERY = 6
    DISCOVERY_ADDRESS = 7
    BOOT_SERVERS = 8
    MENU = 9
    PROMPT = 10
    BOOT_ITEM = 71
    END = 255


class Discovery(IntFlag):
    """Bits of tag 6."""

    NO_BROADCAST = 1
    NO_MULTICAST = 2
    ONLY_LISTED = 4  # only servers in tag 8
    USE_BOOT_FILE = 8  # a boot file is named: just load it, no menu and no discovery


class BootServerType(IntEnum):
    """Boot server types of tags 8, 9 and 71; 32768-65534 are the vendor's to give."""

    LOCAL = 0  # bootstrap: in a menu, boot the local disk
    PXED = 0x8058  # ours, from the vendor range


class IpxeTag(IntEnum):
    """Options inside option 175."""

    PRIORITY = 1
    FEATURE_PXE_EXT = 16
    FEATURE_ISCSI = 17
    FEATURE_AOE = 18
    FEATURE_HTTP = 19
    FEATURE_HTTPS = 20
    FEATURE_TFTP = 21
    FEATURE_FTP = 22
    FEATURE_DNS = 23
    FEATURE_BZIMAGE = 24
    FEATURE_MULTIBOOT = 25
    FEATURE_NBI = 32
    FEATURE_PXE_IMAGE = 33
    FEATURE_ELF = 34
    FEATURE_COMBOOT = 35
    FEATURE_EFI = 36
    FEATURE_FCOE = 37
    FEATURE_VLAN = 38
    FEATURE_MENU = 39
    FEATURE_SDI = 40
    FEATURE_NFS = 41
    NO_PROXYDHCP = 176  # 1: do not wait for a proxy's offer
    BUS_ID = 177
    VERSION = 235
