"""Whose turn it is to send (C level): fair turns on each line, no faster than its pacer allows."""

from typing import final

@final
class Lines:
    """The lines of one sender."""
