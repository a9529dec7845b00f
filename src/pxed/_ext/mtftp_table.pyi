"""The groups of a GroupSender and their addresses. C level only; the rules are at the head of mtftp_table.pyx."""

from typing import final

@final
class GroupTable:
    def __new__(cls, first: str, count: int, port: int, seed: int) -> GroupTable: ...
