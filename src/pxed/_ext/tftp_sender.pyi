"""TftpSender: all TFTP transfers of one engine, sans-I/O. The rules are at the head of tftp_sender.pyx."""

from typing import final

from pxed._ext.sender import Sender

@final
class TftpSender(Sender):
    """For engines (C level); `tftp_virtual` drives one from Python.

    `seed` keys hash tables, `limit` bounds the transfers at one time, `places` those that are served at full speed
    (0: all). Raises ValueError for a limit out of range.
    """

    def __new__(cls, seed: int = ..., limit: int = ..., places: int = ...) -> TftpSender: ...
