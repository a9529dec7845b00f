"""CastReports: what a receiver tells the server, and when. At C level; CastAssembler is its face."""

from typing import final

@final
class CastReports:
    """`seed`: of its phases."""

    def __new__(cls, seed: int) -> CastReports: ...
