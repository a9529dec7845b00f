"""What a TftpSender tells the control plane, as records."""

from typing import NamedTuple, final

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
    size: int
    blksize: int
    windowsize: int
    burst: int
    answered: float | None

class Progress(NamedTuple):
    """A transfer that runs, as it stood when the engine was asked; `state` is one of STATE_NAMES."""

    id: int
    peer: tuple[str, int]
    name: str
    state: str
    bytes: int
    size: int
    seconds: float
    quiet: float
    retransmits: int
    rtt: float | None
    blksize: int
    windowsize: int
    burst: int

class Listing(NamedTuple):
    """Some of what runs: the answer to one `ask_listing`. The next goes on at `after`; 0 at the end."""

    transfers: list[Progress]
    after: int

@final
class Ledger:
    """Makes Python records of events; C-level only."""
