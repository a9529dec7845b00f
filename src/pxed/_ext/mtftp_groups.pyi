"""GroupSender: multicast groups of RFC 2090. The rules are at the head of mtftp_groups.pyx."""

from typing import final

from pxed._ext.blob import Blob
from pxed._ext.sender import Sender
from pxed._ext.tftp_events import Request

def carries(request: Request, blob: Blob) -> bool:
    """Whether a request for `blob` asks for multicast, over IPv4, and it is in memory and of few enough blocks."""

@final
class GroupSender(Sender):
    """For engines (C level); `tftp_virtual` drives one from Python.

    Groups have the addresses from `first`, `count` of them, and one `port`. `seed` keys the table of `limit` members.
    Raises ValueError for a range that is not of IPv4 or not from 1 to 1024 addresses.
    """

    def __new__(cls, first: str, count: int, port: int, *, seed: int = ..., limit: int = ...) -> GroupSender: ...
