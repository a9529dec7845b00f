"""CastSender: multicast image sessions. The rules are at the head of cast_sender.pyx."""

from typing import final

from pxed._ext.sender import Sender

@final
class CastSender(Sender):
    """For engines (C level); orders and events are those of cast_events. At most `limit` sessions at a time.

    Raises ValueError unless there are from 1 to 64.
    """

    def __new__(cls, *, limit: int = 64) -> CastSender: ...
    def audit(self) -> int:
        """Counts of wants that are not what counting anew says: none. For tests in virtual time; takes long."""
