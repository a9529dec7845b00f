"""What goes over the wire: public face of the codecs, the numbers of the protocols, one-line summaries.

Pure functions and records; imports nothing that does I/O.
"""

from . import cast, dhcp, iana, pxe
from ._summary import summary

__all__ = ["cast", "dhcp", "iana", "pxe", "summary"]
