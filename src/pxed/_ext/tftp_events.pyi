"""What a TftpSender tells the control plane, as records."""

from typing import NamedTuple, final

OUTCOME_NAMES: tuple[str, ...]

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
