"""MTFTP with fixed ports, for PXE's clients and for iPXE: the engines, and which file is sent where."""

import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pxed._ext.engine import Engine
from pxed._ext.mtftp_pxe import LARGEST_FILE, PassSender
from pxed._ext.pacer import Pacer
from pxed.boot import scripts
from pxed.config import IPXE_GROUP, Mtftp, MtftpGroup
from pxed.net.holders import bind_error
from pxed.service.names import clean_name

__all__ = ["LARGEST_FILE", "Passes"]

# In iPXE's one group there can be one file only: the kernel. Whoever listens for another would take this one's blocks.
# What was sent there is forgotten when the server ends: a kernel that is rebuilt, and sent by a server restarted
# while a machine has blocks of the former, mends that machine's gaps with wrong bytes. Silence after a start would be
# no remedy: iPXE then falls back to plain TFTP with its blocks in hand, and with the last among them takes the file for
# complete. An ERROR to who asks in the first seconds would be one, as boot scripts go on to `tftp://`; `PassSender` has
# no such answer.
IPXE_FILE = scripts.KERNEL

Place = tuple[tuple[str, int], int]  # a group, and the seconds for which nothing follows there


class Passes:
    """Two engines, as the clients' needs differ (`_ext.mtftp_pxe`)."""

    def __init__(self, mtftp: Mtftp, pacer: Pacer) -> None:
        """`pacer`: what all of TFTP may send. `groups` are to be given before a request comes."""
        self._mtftp = mtftp
        self._pxe = Engine(pacer=pacer, sender=PassSender(seed=secrets.randbits(64)))
        self._ipxe = Engine(pacer=pacer, sender=PassSender(any_order=True, seed=secrets.randbits(64)))
        self.engines = (self._pxe, self._ipxe)
        self.groups: Mapping[str, MtftpGroup] = {}
        """Of PXE's clients, by the file's name in one form. May be replaced at any time."""

    def open(self, addresses: Sequence[str], line: Callable[[str], Pacer | None]) -> None:
        """Bind the ports. Raises OperatorError."""
        ports = ((self._pxe, self._mtftp.server_port, "server_port"), (self._ipxe, self._mtftp.ipxe_port, "ipxe_port"))
        for engine, port, key in ports:
            for address in addresses:
                try:
                    engine.bind([(address, port)], pacer=line(address), multicast_ttl=self._mtftp.ttl)
                except OSError as error:
                    raise bind_error("udp", address, port, error, f"Another can be set: [mtftp] {key}.") from error

    def configure(self, groups: Mapping[str, MtftpGroup]) -> None:
        """Take over where files are sent, by their names as they are configured."""
        named = ((clean_name(os.fsencode(name)), group) for name, group in groups.items())
        self.groups = {name: group for name, group in named if name is not None}

    def place(self, engine: Engine, name: str) -> Place | None:
        """Where a file that was asked for is sent; None: nowhere."""
        clean = clean_name(os.fsencode(name))
        if engine is self._ipxe:
            return (IPXE_GROUP, 0) if clean == IPXE_FILE else None
        group = self.groups.get(clean or "")
        return ((group.address, group.client_port), group.delay) if group else None

    @property
    def statistics(self) -> dict[str, int]:
        """Counters and gauges of both engines: `mtftp.NAME`, `mtftp_outcome.NAME` and `mtftp_drop.REASON`."""
        total: Counter[str] = Counter()
        for engine in self.engines:
            total.update(engine.statistics())
        return {f"mtftp_{name}" if "." in name else f"mtftp.{name}": count for name, count in total.items()}
