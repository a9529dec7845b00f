"""ERROR packets that wait to leave (C level)."""

from typing import final

@final
class Control:
    """The queue of ERROR packets of a TFTP sender."""
