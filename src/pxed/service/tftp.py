"""The TFTP service: connects the engine, which moves the packets, with the names that machines ask for.

Per request and per finished transfer, never per packet: an event comes out of the engine, the name is opened, a blob
or an error goes back as a command.
"""

import asyncio
import os
import secrets
import time
from collections import ChainMap, Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Literal, Protocol

import structlog

from pxed._ext.blob import Blob
from pxed._ext.engine import Engine
from pxed._ext.mtftp_groups import GroupSender, carries
from pxed._ext.pacer import Pacer
from pxed._ext.tftp_events import Finished, Listing, Progress, Request
from pxed.config import Mtftp, MtftpGroup
from pxed.errors import OperatorError
from pxed.net.holders import bind_error
from pxed.service.blobs import BlobCache
from pxed.service.metrics import Metrics
from pxed.service.mtftp import LARGEST_FILE, Passes
from pxed.service.names import BytesContent, Content, NotFound
from pxed.service.quiet import Crowd
from pxed.service.rates import Rates

__all__ = ["TftpService"]

# Ports that an engine has for the transfers of an address: a client port rarely has more than one at a time, and each
# costs the engine some nanoseconds per turn.
TRANSFER_PORTS = 16
# An engine has no more, for all addresses.
SOCKETS = 64
# Clients that are served by multicast at a time; whoever comes then is served as if there were none. Requests and
# first answers can be forged, and a full table of the groups' engine, which is larger, would leave machines without any
# answer.
MEMBERS = 10_000

# RFC 1350 error codes.
_NOT_DEFINED = 0
_NOT_FOUND = 1

# Ends of which a flood makes any number.
_FLOODED = frozenset({"no-answer", "evicted", "abandoned"})

# Ends of a transfer that are the normal course of some client; everything else is worth a warning.
_QUIET_OUTCOMES = frozenset({"ok", "probe", "closed", "refused", "superseded"})


_NO_MTFTP = Mtftp()

# Plain TFTP; RFC 2090's multicast, by unicast to those whom no group reaches; MTFTP as PXE and iPXE have it.
By = Literal["tftp", "multicast", "mtftp"]


class Names(Protocol):
    """What the service needs of `service.names.Names`."""

    async def open(self, name: str, *, via: Literal["tftp"], peer: str, local: str = "") -> Content:
        """What `peer` gets under `name`; a file's descriptor becomes the service's."""

    def delivered(self, name: str, *, via: Literal["tftp"], peer: str, size: int, seconds: float) -> None:
        """The whole file reached the machine."""


class TftpService:
    """Engines on the given addresses, answering from `names`.

    Each engine has a thread and sockets of its own; the kernel spreads the clients over them (SO_REUSEPORT), and all
    datagrams of one transfer reach the same engine. Requests that can be served by multicast move to an engine for
    groups.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        port: int,
        names: Names,
        *,
        threads: int = 1,
        mtftp: Mtftp = _NO_MTFTP,
        metrics: Metrics | None = None,
        mac_of: Callable[[str], str] = lambda _address: "",
        rates: Rates | None = None,
        transfer_ports: range | None = None,
    ) -> None:
        """`port` 0 takes any free port per address (tests); `bound` tells which. `mac_of`: whose address it is.

        `rates`: how much may be sent, and to how many at a time. `transfer_ports`: of which each transfer has one.
        """
        self._addresses = tuple(addresses)
        self._port = port
        self._names = names
        self._metrics = metrics or Metrics()
        self._mac_of = mac_of
        self._rates = rates or Rates()
        self._transfer_ports = transfer_ports
        self._engines = [Engine(secrets.randbits(64), pacer=self._rates.whole) for _ in range(threads)]
        self._mtftp = mtftp
        self._groups = _group_engine(mtftp, self._rates.whole) if mtftp.enabled else None
        self._members = 0
        self._passes = Passes(mtftp, self._rates.whole) if mtftp.enabled else None
        self._blobs = BlobCache()
        # What each unfinished request was answered with, so that others find it for as long as it is being sent.
        self._running: dict[tuple[Engine, int], Blob | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Whoever asked an engine what runs, in the order of the asking and so of the answers.
        self._asking: dict[Engine, deque[asyncio.Future[Listing]]] = {engine: deque() for engine in self._all()}
        self._free = {address: iter(transfer_ports or ()) for address in self._addresses}
        self._log = structlog.get_logger("pxed.tftp")
        self._crowd = Crowd(time.monotonic)
        self._started = False
        self.bound: list[tuple[str, int]] = []

    @property
    def statistics(self) -> dict[str, int]:
        """Counters since the start and gauges: those of the engines together, and of the cache of files."""
        total: Counter[str] = Counter()
        for engine in self._engines:
            total.update(engine.statistics())
        groups = self._groups.statistics() if self._groups else {}
        multicast = {f"multicast.{name}": count for name, count in groups.items()}
        passes = self._passes.statistics if self._passes else {}
        return {**total, **self._blobs.statistics(), **multicast, **passes}

    def open(self) -> None:
        """Bind. Raises OperatorError: taken (it says by whom), no permission, not our address."""
        first, *others = self._engines
        for address in self._addresses:
            line = self._rates.line(address)
            try:
                [(_, port)] = bound = first.bind([(address, self._port)], pacer=line)
                self._bind_transfers(first, address, line)
                for engine in others:
                    engine.bind([(address, port)], join=True, pacer=line)
                    self._bind_transfers(engine, address, line)
                self.bound += bound
            except OSError as error:
                hint = "Another port can be set: [tftp] port (clients ask port 69 unless told otherwise)."
                raise bind_error("udp", address, self._port, error, hint) from error
        if self._groups is not None:
            self._open_groups(self._groups)
        if self._passes is not None:
            self._passes.open([address for address in self._addresses if ":" not in address], self._rates.line)
        self.share_places()

    def assign_groups(self, groups: Mapping[str, MtftpGroup]) -> None:
        """Which files PXE's MTFTP clients may have, and where: at the start and when the configuration has changed."""
        if self._passes is not None:
            self._passes.configure(groups)

    def _bind_transfers(self, engine: Engine, address: str, line: Pacer | None) -> None:
        """Ports of their own for the transfers asked for at the address that was bound last, if there shall be any."""
        if self._transfer_ports is None:
            return
        count = min(
            TRANSFER_PORTS,
            len(self._transfer_ports) // len(self._engines),
            (SOCKETS - len(self._addresses)) // len(self._addresses),
        )
        if not engine.bind_transfers(self._free[address], count, pacer=line):
            first, last = self._transfer_ports[0], self._transfer_ports[-1]
            raise OperatorError(f"No UDP port of [tftp] ports {first}-{last} is free at {address}.")

    def share_places(self) -> None:
        """Give each engine its share of the places, at the start and when `rates` has changed."""
        places = self._rates.places(self._addresses)
        for engine in self._engines:
            engine.places = -(-places // len(self._engines))

    def _open_groups(self, groups: Engine) -> None:
        port, ttl = self._mtftp.port, self._mtftp.ttl
        for address in self._addresses:
            if ":" in address:  # RFC 2090 is about IPv4
                continue
            try:
                groups.bind([(address, port)], pacer=self._rates.line(address), multicast_ttl=ttl)
            except OSError as error:
                raise bind_error("udp", address, port, error, "Another port can be set: [mtftp] port.") from error

    def _all(self) -> list[Engine]:
        return [
            *self._engines,
            *([self._groups] if self._groups else []),
            *(self._passes.engines if self._passes else []),
        ]

    def start(self) -> None:
        """Begin to serve; call it on the event loop."""
        for engine in self._all():
            engine.start()
            asyncio.get_running_loop().add_reader(engine.event_fd, self._on_events, engine)
        self._started = True

    async def stop(self) -> None:
        """End every transfer and close the ports. Safe after a failed `open`."""
        if self._started:
            for engine in self._all():
                asyncio.get_running_loop().remove_reader(engine.event_fd)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self._all():
            engine.stop()
        self._running.clear()
        self._blobs.close()
        self._started = False
        for answer in chain.from_iterable(self._asking.values()):
            answer.cancel()

    async def transfers(self, limit: int) -> list[tuple[By, Progress]]:
        """What runs now, at most `limit` of it, from the engines in turn, and how each was asked for.

        An engine tells some of its table at a time and moves packets in between, whatever the size of the table.
        """
        found: list[tuple[By, Progress]] = []
        for engine in self._all() if self._started else ():
            first = 0
            while len(found) < limit:
                answer: asyncio.Future[Listing] = asyncio.get_running_loop().create_future()
                self._asking[engine].append(answer)
                engine.ask_listing(first)
                transfers, first = await answer
                found += [(self._by(engine), transfer) for transfer in transfers]
                if not first:
                    break
        return found[:limit]

    def _by(self, engine: Engine) -> By:
        """How that what an engine sends was asked for."""
        if self._passes and engine in self._passes.engines:
            return "mtftp"
        return "multicast" if engine is self._groups else "tftp"

    def _on_events(self, engine: Engine) -> None:
        by = self._by(engine)
        for event in engine.drain():
            if isinstance(event, Request):
                self._running[engine, event.id] = None
                answer = self._answer_pass if by == "mtftp" else self._answer
                task = asyncio.create_task(answer(engine, event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif isinstance(event, Listing):
                asked = self._asking[engine].popleft()
                if not asked.done():  # whoever asked may have gone
                    asked.set_result(event)
            else:
                self._running.pop((engine, event.id), None)
                self._members -= engine is self._groups
                self._note_end(event, {"by": by} if by != "tftp" else {})

    async def _answer(self, engine: Engine, request: Request) -> None:
        """Give the engine what it shall send for a request. Whatever goes wrong becomes an ERROR for this client."""
        try:
            blob = await self._blob(request)
        except FileNotFoundError as error:
            if (more := self._crowd.room("not-found", request.peer[0])) is not None:
                self._log.info("tftp not found", name=request.name, peer=request.peer[0], reason=str(error), **more)
            engine.refuse(request.id, _NOT_FOUND, "file not found")
        except OSError as error:
            self._log.warning("tftp cannot read", name=request.name, peer=request.peer[0], reason=str(error))
            engine.refuse(request.id, _NOT_DEFINED, error.strerror or "the file cannot be read")
        except Exception:
            self._log.exception("tftp request failed", name=request.name, peer=request.peer[0])
            engine.refuse(request.id, _NOT_DEFINED, "internal error")
        else:
            if (engine, request.id) not in self._running:  # it ended meanwhile
                return
            if self._groups and self._members < MEMBERS and carries(request, blob):
                self._members += 1
                self._running[self._groups, self._groups.join(request, blob)] = blob
                engine.forget(request.id)
            else:
                self._running[engine, request.id] = blob
                engine.send(request.id, blob)

    async def _answer_pass(self, engine: Engine, request: Request) -> None:
        """The same for MTFTP. What cannot be sent so gets no answer: the client asks by plain TFTP, which says why."""
        place = self._passes.place(engine, request.name) if self._passes else None
        blob = None
        try:
            blob = await self._blob(request) if place else None
        except OSError as error:
            if (more := self._crowd.room("not-found", request.peer[0])) is not None:
                self._log.info("mtftp not served", name=request.name, peer=request.peer[0], reason=str(error), **more)
        except Exception:
            self._log.exception("mtftp request failed", name=request.name, peer=request.peer[0])
        if place is None or blob is None or len(blob) > LARGEST_FILE:
            engine.refuse(request.id, _NOT_DEFINED, "")
        elif (engine, request.id) in self._running:
            self._running[engine, request.id] = blob
            group, quiet = place
            engine.send(request.id, blob, group, quiet=quiet)

    async def _blob(self, request: Request) -> Blob:
        """The bytes under a name. Raises FileNotFoundError with the reason, or OSError."""
        netascii = request.mode == "netascii"
        content = await self._names.open(request.name, via="tftp", peer=request.peer[0], local=request.local_address)
        if isinstance(content, NotFound):
            raise FileNotFoundError(content.reason)
        if isinstance(content, BytesContent):
            blob = Blob(content.data)
            return blob.netascii() if netascii else blob
        try:
            return await self._blobs.load(content.fd, netascii=netascii)
        finally:
            os.close(content.fd)

    def _note_end(self, end: Finished, more: Mapping[str, object]) -> None:
        """One line per transfer, with `more`; a whole file is reported to the names."""
        if end.outcome == "moved":  # the line is the group's to write
            return
        peer = end.peer[0]
        quiet = end.outcome in _QUIET_OUTCOMES
        if end.answered is not None:
            self._metrics.phases.acknowledged(end.answered)
        left_out = self._crowd.room(end.outcome, peer) if end.outcome in _FLOODED else {}
        if left_out is not None and end.outcome != "refused":  # which has a line already, with the reason
            mac = self._mac_of(peer)
            _tell(self._log.info if quiet else self._log.warning, end, more, {"mac": mac} if mac else {}, left_out)
            if not quiet:
                self._metrics.failed(mac or peer, f"{end.name} over TFTP: {end.outcome} {end.error}".rstrip())
        if end.outcome == "ok":
            self._names.delivered(end.name, via="tftp", peer=peer, size=end.bytes, seconds=end.seconds)


def _tell(log: Callable[..., None], end: Finished, *additions: Mapping[str, object]) -> None:
    """A transfer with its figures."""
    more = dict(ChainMap(*map(dict, additions)))
    if end.burst < end.windowsize:
        more["burst"] = end.burst
    if end.answered is not None:
        more["first_ack"] = round(end.answered, 4)
    if end.error:
        more["error"] = end.error
    log(
        "tftp transfer",
        name=end.name,
        peer=end.peer[0],
        port=end.peer[1],
        outcome=end.outcome,
        bytes=end.bytes,
        size=end.size,
        seconds=round(end.seconds, 3),
        rate=round(end.bytes / end.seconds) if end.seconds else 0,
        blksize=end.blksize,
        windowsize=end.windowsize,
        blocks=end.blocks,
        retransmits=end.retransmits,
        **more,
    )


def _group_engine(mtftp: Mtftp, pacer: Pacer) -> Engine:
    """The one engine for all groups: a second would send the same file a second time."""
    network = mtftp.network
    sender = GroupSender(str(network[0]), mtftp.passing, mtftp.port, seed=secrets.randbits(64))
    return Engine(pacer=pacer, sender=sender)
