"""What simulated PXE clients say, and what they must hear: whole packets, prepared before a storm begins.

The option lists of UEFI and iPXE are those of EDK2 2022.11 and iPXE 1.0.0+git-20190125 (Debian 12) as captured on the
wire; the BIOS ROM's has what RFC 4578 and PXE 2.1 (table 2-4) want of one.
"""

from msgspec import Struct

from pxed.errors import OperatorError
from pxed.types import Drop
from pxed.wire import dhcp, summary
from pxed.wire.iana import PXE_PORT, SERVER_PORT, ArchType, MessageType, Op, OptionCode

__all__ = ["KINDS", "Kind", "Step", "check_answer", "steps", "with_answers"]

Step = tuple[int, bytes, bytes]
"""(port, request, answer), as `pxed._ext.dhcp_load.Load` has them; an answer of b"" is to be learned."""

_PXE_CLIENT = b"PXEClient"
_HEADER_ADDRESSES = (12, 16, 20, 24)  # ciaddr, yiaddr, siaddr, giaddr
_CHADDR = slice(28, 34)


class Kind(Struct, frozen=True):
    """How one kind of firmware asks. The option lists hold None where the value is the client's own."""

    arch: ArchType
    class_id: bytes
    options: tuple[tuple[int, bytes | None], ...]  # behind option 53, in the order of the real thing
    asks_again: bool = False  # on port 4011, once it has an offer: UEFI, as the offer has no option 43


def _arch(arch: ArchType) -> tuple[int, bytes]:
    return OptionCode.CLIENT_ARCH, int(arch).to_bytes(2, "big")


_BIOS_CLASS = b"PXEClient:Arch:00000:UNDI:002001"
_UEFI_CLASS = b"PXEClient:Arch:00007:UNDI:003000"
_EDK2_LIST = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687")
_IPXE_LIST = bytes.fromhex("010306070c0f111a2b3c4243778081828384858687afcb")
_ROM_LIST = bytes.fromhex("01020305060b0c0d0f1011122b363c438081828384858687")
_IPXE_FEATURES = bytes.fromhex(
    "b105018086100eeb03010000170101220101130101110101270101190101290101100102210101150101180101120101"
)

KINDS: dict[str, Kind] = {
    "bios": Kind(
        ArchType.BIOS,
        _BIOS_CLASS,
        (
            (OptionCode.PARAMETER_LIST, _ROM_LIST), (OptionCode.MAX_SIZE, b"\x04\xec"), (OptionCode.CLIENT_UUID, None),
            _arch(ArchType.BIOS), (OptionCode.CLIENT_NDI, b"\1\2\1"), (OptionCode.CLASS_ID, _BIOS_CLASS),
        ),
    ),
    "uefi": Kind(
        ArchType.EFI_X64,
        _UEFI_CLASS,
        (
            (OptionCode.MAX_SIZE, b"\x05\xc0"), (OptionCode.PARAMETER_LIST, _EDK2_LIST),
            (OptionCode.CLIENT_UUID, None), (OptionCode.CLIENT_NDI, b"\1\3\0"), _arch(ArchType.EFI_X64),
            (OptionCode.CLASS_ID, _UEFI_CLASS),
        ),
        asks_again=True,
    ),
    "ipxe": Kind(
        ArchType.BIOS,
        _BIOS_CLASS,
        (
            (OptionCode.MAX_SIZE, b"\x05\xc0"), _arch(ArchType.BIOS), (OptionCode.CLIENT_NDI, b"\1\2\1"),
            (OptionCode.CLASS_ID, _BIOS_CLASS), (OptionCode.USER_CLASS, b"iPXE"),
            (OptionCode.PARAMETER_LIST, _IPXE_LIST), (OptionCode.IPXE, _IPXE_FEATURES), (OptionCode.CLIENT_ID, None),
            (OptionCode.CLIENT_UUID, None),
        ),
    ),
}  # fmt: skip


def _mac(client: int) -> bytes:
    """A locally administered address: no real machine's."""
    return b"\x02pxd" + client.to_bytes(2, "big")


def _uuid(client: int) -> bytes:
    """The value of option 97."""
    return b"\0pxed bench  " + client.to_bytes(4, "big")


def steps(kind: Kind, client: int, address: str) -> list[Step]:
    """What one client says from its address: a DISCOVER through a relay there, and by some kinds a REQUEST on 4011."""
    said = [(SERVER_PORT, _packet(kind, client, giaddr=address), b"")]
    if kind.asks_again:
        said.append((PXE_PORT, _packet(kind, client, ciaddr=address), b""))
    return said


def _packet(kind: Kind, client: int, *, ciaddr: str = dhcp.UNSPECIFIED, giaddr: str = dhcp.UNSPECIFIED) -> bytes:
    direct = ciaddr != dhcp.UNSPECIFIED
    own = {OptionCode.CLIENT_UUID: _uuid(client), OptionCode.CLIENT_ID: b"\1" + _mac(client)}
    options = {int(OptionCode.MESSAGE_TYPE): bytes((MessageType.REQUEST if direct else MessageType.DISCOVER,))}
    options |= {int(code): own[OptionCode(code)] if value is None else value for code, value in kind.options}
    packet = dhcp.Packet(
        op=Op.REQUEST,
        hops=0 if direct else 1,
        flags=0 if direct else 0x8000,
        ciaddr=ciaddr,
        giaddr=giaddr,
        chaddr=_mac(client),
        options=options,
    )
    return dhcp.encode(packet)


def check_answer(step: Step, answer: bytes, server: str, client: int, address: str) -> None:
    """Is this an answer that this client may believe, and boot from? Raises OperatorError that says what is wrong."""
    packet = dhcp.decode(answer)
    if isinstance(packet, Drop):
        raise OperatorError(f"The answer is no DHCP message ({packet.reason}).")
    offered = step[0] == SERVER_PORT
    vendor = packet.options.get(OptionCode.VENDOR, b"")
    bootable = packet.siaddr != dhcp.UNSPECIFIED and (packet.file or OptionCode.BOOT_FILE in packet.options)
    rules: tuple[tuple[str, bool], ...] = (
        ("is no reply", packet.op == Op.REPLY),
        ("is for another machine", packet.chaddr == _mac(client)),
        (
            "is not the message that was asked for",
            packet.options.get(OptionCode.MESSAGE_TYPE) == bytes((MessageType.OFFER if offered else MessageType.ACK,)),
        ),
        ("is not a PXE server's (option 60)", packet.options.get(OptionCode.CLASS_ID, b"").startswith(_PXE_CLIENT)),
        ("names another server (option 54)", packet.options.get(OptionCode.SERVER_ID) == dhcp.address_bytes(server)),
        ("has another machine's UUID", packet.options.get(OptionCode.CLIENT_UUID, _uuid(client)) == _uuid(client)),
        ("is for another relay", not offered or packet.giaddr == address),
        # An offer without a file sends the client to 4011 (no option 43, EDK2), or to a menu (option 43).
        ("has nothing to boot", bool(bootable or (offered and (vendor or packet.siaddr == server)))),
    )
    for what, good in rules:
        if not good:
            raise OperatorError(f"The answer {what}: {summary(packet)}.")


def with_answers(said: list[Step], learned: list[bytes], of: tuple[int, str], client: int, address: str) -> list[Step]:
    """The same with the answers that must come: those that another client of its kind got, made this one's.

    of: number and address of that client.
    """
    return [
        (port, request, _made_own(answer, of, client, address))
        for (port, request, _), answer in zip(said, learned, strict=True)
    ]


def _made_own(answer: bytes, of: tuple[int, str], client: int, address: str) -> bytes:
    """Replace addresses in the header, chaddr and the UUID wherever the other client's stand."""
    theirs, ours = dhcp.address_bytes(of[1]), dhcp.address_bytes(address)
    out = bytearray(answer)
    for at in _HEADER_ADDRESSES:
        if out[at : at + 4] == theirs:
            out[at : at + 4] = ours
    out[_CHADDR] = _mac(client)
    return bytes(out.replace(_uuid(of[0]), _uuid(client)))
