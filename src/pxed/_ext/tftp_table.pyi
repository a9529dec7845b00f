"""All transfers of a TFTP sender, by path and by id (C level)."""

from typing import final

@final
class Table:
    """`seed` keys its hash table. Raises MemoryError."""

    def __new__(cls, seed: int = ...) -> Table: ...
