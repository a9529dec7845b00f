"""Who of a crowd of TFTP clients is served, who waits, who is kept alive meanwhile (C level)."""

from typing import final

@final
class Admission:
    """The places of one sender, and who waits for them. `seed` keys a hash table. Raises ValueError: no place."""

    def __new__(cls, places: int, seed: int = ...) -> Admission: ...
