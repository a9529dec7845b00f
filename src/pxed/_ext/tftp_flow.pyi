"""What TFTP transfers learn about the way to their clients (C level): round trips, bursts, block sizes."""

from typing import final

@final
class BlockSizes:
    """The largest blocks for clients that full-size ones do not reach. `seed` keys its hash table."""

    def __new__(cls, seed: int = ...) -> BlockSizes: ...
