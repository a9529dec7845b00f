"""Members: the clients of a GroupSender. C level only; the rules are at the head of mtftp_members.pyx."""

from typing import final

@final
class Members:
    def __new__(cls, seed: int) -> Members: ...
