"""From which of our ports a transfer is served (C level)."""

from typing import final

@final
class Tids:
    """The ports of one sender's transfers."""
