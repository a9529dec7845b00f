"""PassSender: MTFTP as PXE 2.1 has it, and as iPXE does it. The rules are at the head of mtftp_pxe.pyx."""

from typing import final

from pxed._ext.sender import Sender

LARGEST_FILE: int
"""Bytes that can be sent so: 65,535 blocks of 512, of which the last is short."""

@final
class PassSender(Sender):
    """For engines (C level); `tftp_virtual` drives one from Python. It answers requests by itself, and each Request is
    answered by `send` with a group; a `refuse` or `forget` leaves the client without an answer.

    `any_order`: the clients are iPXE. `seed` keys the hash of clients.
    """

    def __new__(cls, *, any_order: bool = ..., seed: int = ...) -> PassSender: ...
