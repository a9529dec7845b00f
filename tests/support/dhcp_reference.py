"""DHCP in slow, plain Python, written apart from pxed's codec: the judge of its tests.

It follows RFC 2131, 2132, 3396 and 3046 word by word and imports nothing of pxed.
"""

import struct
from collections.abc import Iterable

COOKIE = bytes((99, 130, 83, 99))
HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")


def _ip(raw: bytes) -> str:
    return ".".join(str(byte) for byte in raw)


def _pieces(area: bytes) -> list[tuple[int, bytes]]:
    """The options of one area, PAD left out, up to END. ValueError when one runs out of the area."""
    pieces = []
    queue = list(area)
    while queue:
        code = queue.pop(0)
        if code == 0:
            continue
        if code == 255:
            break
        if not queue:
            raise ValueError("code without length")
        length = queue.pop(0)
        if len(queue) < length:
            raise ValueError("value cut short")
        pieces.append((code, bytes(queue[:length])))
        del queue[:length]
    return pieces


def decode(data: bytes) -> dict[str, object] | str:
    """All fields of a packet, or the reason why it is none."""
    if len(data) < HEADER.size + 4:
        return "truncated"
    op, htype, hlen, hops, xid, secs, flags, ci, yi, si, gi, chaddr, sname, file = HEADER.unpack_from(data)
    if op not in (1, 2):
        return "bad-op"
    if data[HEADER.size : HEADER.size + 4] != COOKIE:
        return "bad-cookie"
    if hlen > 16:
        return "bad-hlen"
    try:
        pieces = _pieces(data[HEADER.size + 4 :])
        overloads = [value for code, value in pieces if code == 52]
        if any(value not in (b"\1", b"\2", b"\3") for value in overloads):
            return "bad-option"
        overload = overloads[-1][0] if overloads else 0
        if overload & 1:
            pieces += _pieces(file)
        if overload & 2:
            pieces += _pieces(sname)
    except ValueError:
        return "bad-option"
    options: dict[int, bytes] = {}
    for code, value in pieces:
        if code != 52:
            options[code] = options.get(code, b"") + value
    return {
        "op": op,
        "htype": htype,
        "hlen": hlen,
        "hops": hops,
        "xid": xid,
        "secs": secs,
        "flags": flags,
        "ciaddr": _ip(ci),
        "yiaddr": _ip(yi),
        "siaddr": _ip(si),
        "giaddr": _ip(gi),
        "chaddr": chaddr[:hlen],
        "sname": b"" if overload & 2 else sname.split(b"\0")[0],
        "file": b"" if overload & 1 else file.split(b"\0")[0],
        "options": options,
    }


def fields(packet: object) -> dict[str, object]:
    """pxed's Packet in the form of `decode`."""
    names = "op,htype,hlen,hops,xid,secs,flags,ciaddr,yiaddr,siaddr,giaddr,chaddr,sname,file,options"
    return {name: getattr(packet, name) for name in names.split(",")}


def message(
    *,
    op: int = 1,
    htype: int = 1,
    hops: int = 0,
    xid: int = 0x1A2B3C4D,
    secs: int = 0,
    flags: int = 0,
    ciaddr: str = "0.0.0.0",
    yiaddr: str = "0.0.0.0",
    siaddr: str = "0.0.0.0",
    giaddr: str = "0.0.0.0",
    chaddr: bytes = b"",
    sname: bytes = b"",
    file: bytes = b"",
    options: Iterable[tuple[int, bytes]] = (),
    size: int = 300,
) -> bytes:
    """A packet with exactly these option pieces, in this order, END, and zeros up to `size`. Code 0 writes a PAD."""
    addresses = [bytes(int(part) for part in text.split(".")) for text in (ciaddr, yiaddr, siaddr, giaddr)]
    data = HEADER.pack(op, htype, len(chaddr), hops, xid, secs, flags, *addresses, chaddr, sname, file) + COOKIE
    for code, value in options:
        data += bytes((code,)) if code == 0 else bytes((code, len(value))) + value
    return (data + b"\xff").ljust(size, b"\0")
