"""Files that are read as their transfers go. Nothing of it is for Python."""

from typing import final

@final
class Scratch:
    """The bytes that a batch sends of files without a copy in memory."""
