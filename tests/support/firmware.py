"""The DHCP side of a boot ROM: sends requests from a namespace, collects what comes back."""

import select
import socket
import time

from pxed.wire import dhcp
from pxed.wire.iana import MessageType, OptionCode

_SO_BINDTODEVICE = 25
_SO_RCVBUFFORCE = 33
_PATIENCE = 60.0


class Answer:
    """One datagram that came back."""

    def __init__(self, packet: dhcp.Packet, source: tuple[str, int]) -> None:
        self.packet = packet
        self.source = source

    @property
    def message(self) -> int:
        """Option 53."""
        return self.packet.options[OptionCode.MESSAGE_TYPE][0]

    @property
    def server_id(self) -> str:
        """Option 54."""
        return dhcp.address_text(self.packet.options.get(OptionCode.SERVER_ID, b""))

    @property
    def is_proxy(self) -> bool:
        """An answer of pxed's rather than a lease."""
        return self.packet.options.get(OptionCode.CLASS_ID) == b"PXEClient" and self.packet.yiaddr == "0.0.0.0"


class Firmware:
    """A PXE ROM on one interface. Make it inside of the namespace: `with namespace: rom = Firmware(...)`."""

    def __init__(self, interface: str, mac: str, arch: int = 0, port: int = 68) -> None:
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.arch = arch
        self.xid = int.from_bytes(self.mac[-4:], "big")
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode())
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        self.sock.bind(("0.0.0.0", port))

    def close(self) -> None:
        """Close its socket."""
        self.sock.close()

    def packet(
        self, message: MessageType, ciaddr: str = "0.0.0.0", giaddr: str = "0.0.0.0", **more: bytes
    ) -> dhcp.Packet:
        """A request as PXE ROMs send it; `more` are options by name of OptionCode."""
        options = {
            OptionCode.MESSAGE_TYPE: bytes((message,)),
            OptionCode.CLASS_ID: b"PXEClient:Arch:%05d:UNDI:002001" % self.arch,
            OptionCode.CLIENT_ARCH: self.arch.to_bytes(2, "big"),
            OptionCode.CLIENT_NDI: bytes((1, 2, 1)),
            OptionCode.CLIENT_UUID: b"\0" + b"\x10" * 10 + self.mac,
        }
        options |= {OptionCode[name]: value for name, value in more.items()}
        return dhcp.Packet(
            op=1,
            xid=self.xid,
            flags=0x8000,
            ciaddr=ciaddr,
            giaddr=giaddr,
            chaddr=self.mac,
            options={int(k): v for k, v in options.items()},
        )

    def send(self, packet: dhcp.Packet, to: tuple[str, int] = ("255.255.255.255", 67)) -> None:
        """Send a request."""
        self.sock.sendto(dhcp.encode(packet), to)

    def answers(self, count: int, patience: float = _PATIENCE) -> list[Answer]:
        """Wait for so many answers to this ROM; fewer when the time is over."""
        found: list[Answer] = []
        end = time.monotonic() + patience
        while len(found) < count and (left := end - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                data, source = self.sock.recvfrom(4096)
                packet = dhcp.decode(data)
                if isinstance(packet, dhcp.Packet) and packet.xid == self.xid:
                    found.append(Answer(packet, source))
        return found

    def wait(self, message: int, port: int) -> Answer:
        """Wait for a message from a server's port; others (of earlier tries, on a slow machine) are passed over."""
        seen: list[Answer] = []
        while answer := self.answers(1):
            if answer[0].message == message and answer[0].source[1] == port:
                return answer[0]
            seen += answer
        raise AssertionError(f"no message {message} from port {port}, only {[(a.message, a.source) for a in seen]}")

    def discover(self, count: int) -> list[Answer]:
        """DISCOVER, as often as a ROM would, until so many servers have made an offer."""
        offers: dict[tuple[str, str], Answer] = {}
        for _ in range(10):
            self.send(self.packet(MessageType.DISCOVER))
            for answer in self.answers(count - len(offers), 2.0):
                offers[(answer.server_id, answer.packet.yiaddr)] = answer
            if len(offers) >= count:
                break
        return list(offers.values())
