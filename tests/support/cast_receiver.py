"""A receiver of multicast sessions in plain Python: slow, and written from the specification alone."""

import http.client
import json
import select
import socket
import struct
from typing import Any

import msgspec

from pxed.types import CastSession, Drop
from pxed.wire.cast import Data, Mark, Order, Report, Session, decode, encode_report


class Refused(Exception):
    """The join was refused: status and sentence."""


def join(
    address: str, port: int, image: str, receiver: str, *, run: str = "", name: str = "", host: str = ""
) -> CastSession:
    """POST /pxed/cast/join, from the address `host` when one is given."""
    connection = http.client.HTTPConnection(address, port, timeout=30, source_address=(host, 0) if host else None)
    try:
        headers = {"Authorization": f"Bearer {run}"} if run else {}
        body = json.dumps({"image": image, "receiver": receiver, "name": name})
        connection.request("POST", "/pxed/cast/join", body, headers)
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise Refused(response.status, json.loads(data)["error"])
        return msgspec.json.decode(data, type=CastSession)
    finally:
        connection.close()


class Receiver:
    """Takes part in a session from an address of this host. `lengths` are those of the image's frames."""

    def __init__(self, session: CastSession, lengths: list[int], address: str = "127.0.0.1") -> None:
        self.session = session
        self.wire = Session(int(session.session, 16), bytes.fromhex(session.key), session.symbol)
        self.lengths = lengths
        self.frames: list[dict[int, bytes]] = [{} for _ in lengths]
        self.orders: list[Order] = []
        self.marks: list[Mark] = []
        self.drops: list[Drop] = []
        self.heard = self.highest = self.first = self.reports = self.refused = 0
        self._group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._group.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._group.bind((session.group, session.port))
        membership = struct.pack("4s4s", socket.inet_aton(session.group), socket.inet_aton(session.server))
        self._group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._own.bind((address, 0))

    def close(self) -> None:
        self._group.close()
        self._own.close()

    def missing(self) -> list[int]:
        """The frames that it does not have whole."""
        symbol = self.session.symbol
        return [i for i, length in enumerate(self.lengths) if len(self.frames[i]) < -(-length // symbol)]

    def data(self) -> bytes:
        """All frames, one after the other."""
        return b"".join(b"".join(part for _, part in sorted(frame.items())) for frame in self.frames)

    def report(self, **changed: Any) -> None:
        """Say what is missing: whole frames of which some symbol is."""
        self.reports += 1
        missing = self.missing()
        fields: dict[str, Any] = {
            "receiver": self.session.receiver, "number": self.reports, "part": 0, "parts": 1,
            "flags": 0 if missing else 1, "highest": self.highest, "received": self.heard,
            "expected": self.highest - self.first + 1 if self.heard else 0,
            "written": len(self.lengths) - len(missing), "wrong": 0, "disk_rate": 100_000, "disk_queue": 0,
            "refused": self.refused, "begin": 0, "stop": len(self.lengths), "wants": tuple((i, 1) for i in missing),
        }  # fmt: skip
        self.send(encode_report(Report(**fields | changed), self.wire))

    def send(self, datagram: bytes) -> None:
        self._own.sendto(datagram, (self.session.server, self.session.port))

    def listen(self, seconds: float) -> None:
        """Take what comes, for a while or until something other than DATA has come."""
        while True:
            ready, _, _ = select.select([self._group, self._own], [], [], seconds)
            if not ready:
                return
            for one in ready:
                if not self._take(decode(one.recv(65536), self.wire)):
                    return

    def _take(self, packet: Data | Mark | Report | Order | Drop) -> bool:
        if isinstance(packet, Data):
            self.heard += 1
            self.first = self.first or packet.sequence
            self.highest = max(self.highest, packet.sequence)
            if packet.number < packet.symbols:
                self.frames[packet.chunk][packet.number] = bytes(packet.payload)
            return True
        kinds: tuple[tuple[type, list[Any]], ...] = ((Order, self.orders), (Mark, self.marks), (Drop, self.drops))
        next(into for kind, into in kinds if isinstance(packet, kind)).append(packet)
        return False

    def fetch(self, patience: int = 200) -> None:
        """Report and take until nothing is missing, then say so."""
        while self.missing():
            assert patience, f"{len(self.missing())} frames are missing"
            patience -= 1
            self.report()
            self.listen(0.3)
        for _ in range(3):
            self.report()
