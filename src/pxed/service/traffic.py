"""What moves at this moment, as `pxed top` shows it: bytes so far, transfers under way, machines on their way."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

from pxed._ext.tftp_events import Progress
from pxed.net.connection import Download
from pxed.service.http import MachineHttp
from pxed.service.metrics import Metrics
from pxed.service.peers import Peers
from pxed.service.tftp import By, TftpService
from pxed.service.transactions import Transactions
from pxed.types import Identity, JobState, Traffic, Transfer

__all__ = ["Snapshots"]

# Transfers that wait, by the engine's gauges: for their file, or for others to end.
_WAITING = ("asked", "waiting")


class Snapshots:
    """Takes them, from the services' own figures."""

    def __init__(
        self,
        tftp: TftpService,
        http: MachineHttp,
        metrics: Metrics,
        transactions: Transactions,
        peers: Peers,
        clock: Callable[[], float] = time.time,
        casts: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`casts`: the figures of multicast sessions."""
        self._tftp = tftp
        self._http = http
        self._metrics = metrics
        self._transactions = transactions
        self._peers = peers
        self._clock = clock
        self._casts = casts

    async def take(self, limit: int) -> Traffic:
        """One, with at most `limit` transfers."""
        running = await self._tftp.transfers(limit)
        downloads = self._http.downloads()[: limit - len(running)]
        loop_time = asyncio.get_running_loop().time()
        tftp, http, cast = self._tftp.statistics, self._http.statistics, self._casts()
        jobs = [job for job in self._transactions.jobs() if job.state is JobState.RUNNING]
        waiting = sum(tftp[gauge] for gauge in _WAITING)
        return Traffic(
            time=time.monotonic(),
            tftp_bytes=tftp["bytes"],
            tftp_running=max(0, tftp["running"] - waiting),
            tftp_waiting=waiting,
            tftp_retransmits=tftp["retransmits"],
            http_bytes=http["bytes"],
            http_connections=http["open"],
            cast_bytes=cast.get("bytes", 0),
            cast_receivers=cast.get("receivers", 0),
            transfers=(
                *(self._transfer(by, progress) for by, progress in running),
                *(self._download(download, loop_time) for download in downloads),
            ),
            places=self._metrics.phases.places(self._clock()),
            steps=dict(Counter(job.step for job in jobs)),
            failures=tuple(self._metrics.failures),
        )

    def _transfer(self, by: By, progress: Progress) -> Transfer:
        peer, port = progress.peer
        return Transfer(
            id=f"{by}/{peer}/{port}/{progress.id}",
            protocol=by,
            peer=peer,
            machine=self._machine(peer),
            name=progress.name,
            state=progress.state,
            bytes=progress.bytes,
            size=progress.size,
            seconds=progress.seconds,
            quiet=progress.quiet,
            retransmits=progress.retransmits,
            blksize=progress.blksize,
            windowsize=progress.windowsize,
        )

    def _download(self, download: Download, now: float) -> Transfer:
        peer, port = download.peer
        return Transfer(
            id=f"http/{peer}/{port}/{download.begun:.6f}",
            protocol="http",
            peer=peer,
            machine=self._machine(peer),
            name=download.path,
            state="sending",
            bytes=download.sent,
            size=download.size,
            seconds=now - download.begun,
        )

    def _machine(self, peer: str) -> str:
        """The name of the machine behind an address, or its MAC; '' when it is not known."""
        mac = self._peers.told(peer)
        found = self._transactions.identify(Identity(mac=mac)) if mac else None
        return found.name or mac if found is not None else mac
