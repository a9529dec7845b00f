"""CastImage: what one receiver has of one image, whoever brings it. At C level; CastAssembler is its face."""

from typing import final

from typing_extensions import Buffer

from pxed._ext.cast_frames import CastLayout

@final
class CastImage:
    """The arguments are those of CastAssembler. Raises ValueError for a bitmap or limits that do not fit the layout."""

    def __new__(
        cls, layout: CastLayout, have: Buffer, memory: int, queue: int, symbol: int, keep: bool
    ) -> CastImage: ...
