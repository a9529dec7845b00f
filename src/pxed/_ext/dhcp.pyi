from typing import ClassVar, final

@final
class Packet:
    op: int
    htype: int
    hlen: int
    hops: int
    xid: int
    secs: int
    flags: int
    chaddr: bytes
    sname: bytes
    file: bytes
    options: dict[int, bytes]
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(
        self,
        *,
        op: int = 1,
        htype: int = 1,
        hops: int = 0,
        xid: int = 0,
        secs: int = 0,
        flags: int = 0,
        ciaddr: str = ...,
        yiaddr: str = ...,
        siaddr: str = ...,
        giaddr: str = ...,
        chaddr: bytes = b"",
        sname: bytes = b"",
        file: bytes = b"",
        options: dict[int, bytes] | None = None,
    ) -> None: ...
    @property
    def ciaddr(self) -> str: ...
    @property
    def yiaddr(self) -> str: ...
    @property
    def siaddr(self) -> str: ...
    @property
    def giaddr(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...

def decode(data: bytes | bytearray | memoryview) -> Packet | str: ...
def encode(packet: Packet, minimum: int = 300) -> bytes: ...
