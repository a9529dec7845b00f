"""TftpSender: all TFTP transfers of one engine, sans-I/O. The rules are at the head of tftp_sender.pyx."""

from typing import Any, NamedTuple, final

from typing_extensions import Buffer

from pxed._ext.blob import Blob
from pxed._ext.sender import Sender

OUTCOME_NAMES: tuple[str, ...]
DROP_NAMES: tuple[str, ...]

class Request(NamedTuple):
    """Somebody asks for a file. Answer with `send` or `refuse`; until then it waits, and repeats are merged."""

    id: int
    peer: tuple[str, int]
    local_address: str
    name: str
    mode: str
    options: dict[str, int]

class Finished(NamedTuple):
    """A transfer ended; `outcome` is one of OUTCOME_NAMES, `error` "" or an ERROR's code and text."""

    id: int
    peer: tuple[str, int]
    name: str
    bytes: int
    blocks: int
    retransmits: int
    seconds: float
    outcome: str
    error: str

@final
class Ledger:
    """Makes Python records of events; C-level only."""

@final
class TftpSender(Sender):
    """The sender, driven in virtual time: times are seconds, peers are (address, port).

    `seed` keys the hash table, `limit` bounds the transfers at one time. Raises ValueError for a limit out of range.
    """

    def __new__(cls, seed: int = ..., limit: int = ...) -> TftpSender: ...
    def receive_datagram(self, data: Buffer, peer: tuple[str, int], now: float, local: str = "") -> None:
        """A datagram from `peer`, sent to our address `local`. Raises ValueError for an address that is none."""

    def expire(self, now: float) -> None:
        """Let the timers run that are due at `now`."""

    def deadline(self) -> float | None:
        """When to call `expire` next; None when nothing waits."""

    def drain(self, now: float) -> list[tuple[tuple[str, int], bytes]]:
        """Every datagram that is ready, as (peer, bytes), in order."""

    def events(self) -> list[Request | Finished]:
        """The records since the last call."""

    def send(self, id: int, blob: Blob, now: float) -> None:
        """Answer request `id` with a blob; nothing when it ended meanwhile."""

    def refuse(self, id: int, code: int, text: str, now: float) -> None:
        """Answer request `id` with an ERROR; nothing when it ended meanwhile."""

    def statistics(self) -> dict[str, Any]:
        """Counters since the beginning; `outcomes` and `drops` by reason."""
