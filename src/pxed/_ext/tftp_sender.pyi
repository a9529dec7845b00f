"""TftpSender: all TFTP transfers of one engine, sans-I/O. The rules are at the head of tftp_sender.pyx."""

from typing import final

from pxed._ext.sender import Sender

@final
class TftpSender(Sender):
    """For engines (C level); `tftp_virtual` drives one from Python.

    `seed` keys the hash table, `limit` bounds the transfers at one time. Raises ValueError for a limit out of range.
    """

    def __new__(cls, seed: int = ..., limit: int = ...) -> TftpSender: ...
