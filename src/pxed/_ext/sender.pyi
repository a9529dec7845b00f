"""The C-level interface of everything that sends blocks (sender.pxd)."""

from typing_extensions import disjoint_base

@disjoint_base
class Sender:
    """Abstract; `tftp_sender.TftpSender` is one. Only its C-level methods matter to an engine."""
