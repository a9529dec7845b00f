"""An image to a file or block device of any Linux host: what `pxed agent fetch` does, without a job.

A file is written under a name of its own, PATH.part, and gets its name when it is whole; both it and a block device
tell an interrupted fetch's successor what they hold (`resume`).
"""

import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from pxed.agent.cast import Cast
from pxed.agent.failure import AgentFailure
from pxed.agent.host import Host
from pxed.agent.plan import Plan, check_fits
from pxed.agent.progress import Tally
from pxed.agent.restore import Restore, check_seal
from pxed.agent.resume import Record
from pxed.agent.server import TIMEOUT, Connection, Patience, Refused, Unreachable
from pxed.agent.source import Source
from pxed.agent.table import finish_table
from pxed.agent.target import Target
from pxed.images.manifest import Manifest
from pxed.types import ImageFacts, Step

__all__ = ["Fetch", "Fetched", "base_url"]

FIRST_PATIENCE = 5.0  # seconds that a server may take to answer at all: the address may be wrong
PATIENCE = 300.0  # once it has answered: it may be started anew


class Fetched(Struct, frozen=True):
    """What was fetched, and how."""

    image: str
    name: str
    path: str
    size: int  # bytes of the disk
    data_size: int  # stored bytes of the image: all that can travel
    seconds: float
    by_cast: int  # stored bytes that came, and were proved
    by_http: int
    chunks: int  # stored ones
    chunks_resumed: int  # that the target held already
    wrong: int  # frames that were damaged on the way
    receiver: dict[str, int]  # the multicast receiver's counters; empty when it had none
    account: str  # the same as a sentence


class Fetch:
    """One fetch. `run` blocks; `tally` can be looked at, and stops it, meanwhile."""

    def __init__(
        self,
        server: str,
        image: str,
        path: Path,
        tally: Tally,
        *,
        transport: str = "auto",
        interface: str = "",
        replace: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`server`: a base URL; `image`: name or id; `interface`: our IPv4 address where multicast is."""
        self._server, self._image, self._path, self._tally = server, image, path, tally
        self._transport, self._interface, self._replace, self._now = transport, interface, replace, now
        self._restore: Restore | None = None

    @property
    def transport(self) -> tuple[str, str]:
        """What the image comes by just now ("cast", "http", "waiting"), and why that is."""
        return self._restore.transport if self._restore else ("waiting", "")

    def run(self) -> Fetched:
        """Fetch it. Raises AgentFailure, Refused, Unreachable, Stopped."""
        with Connection(self._server, timeout=FIRST_PATIENCE) as first:
            return self._fetch(first)

    def _fetch(self, first: Connection) -> Fetched:
        begun, tally = self._now(), self._tally
        facts = self._facts(first)
        first.wait_for_answers(TIMEOUT)
        path = self._path.resolve()  # a link to a disk is that disk
        is_device = self._check_path(path)
        source = Source(self._server, facts.id, tally, self._patience, me=os.urandom(16).hex(), first=first)
        plan = source.plan()
        target = _open_device(path, plan.manifest) if is_device else _open_part(path, plan, facts.id)
        try:
            tally.expect(plan.size)
            tally.begin(Step.RESTORE)
            cast = None
            if self._transport != "http":
                only = self._transport == "cast"
                cast = Cast(source, tally, self._patience(), self._now, only=only, interface=self._interface)
            work = self._restore = Restore(plan, target, tally, source, cast)
            seal = work.run()
            check_seal(seal, target)
            if is_device:
                self._finish_table(target, plan.manifest)
        finally:
            target.close()
        if not is_device:
            _give_name(target.path, path)
        figures = work.figures
        return Fetched(
            image=facts.id,
            name=facts.name,
            path=str(path),
            size=plan.size,
            data_size=plan.stored,
            seconds=self._now() - begun,
            by_cast=figures.cast,
            by_http=figures.http,
            chunks=plan.count,
            chunks_resumed=figures.resumed,
            wrong=figures.wrong.total(),
            receiver=work.counters(),
            account=work.account(),
        )

    def _facts(self, connection: Connection) -> ImageFacts:
        patience = Patience(FIRST_PATIENCE, self._now, self._tally.wait, lambda _: None)
        try:
            return patience.call(lambda: connection.facts(self._image))
        except Refused as refusal:
            if refusal.status in (401, 403):
                raise Refused(
                    refusal.status, f"{self._server} gives images to its jobs only ([images] public is off there)."
                ) from refusal
            raise Refused(refusal.status, f"{self._server} has no image {self._image}: {refusal}") from refusal
        except Unreachable as error:
            raise Unreachable(f"{self._server} does not answer: {error}") from error

    def _check_path(self, path: Path) -> bool:
        """Whether it is a block device. Raises AgentFailure when it is nothing that could be written."""
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise AgentFailure(Step.TARGET, f"There is no directory {path.parent}.") from None
            return False
        except OSError as error:
            raise AgentFailure(Step.TARGET, f"{path} cannot be looked at: {error.strerror}.") from error
        if stat.S_ISBLK(mode):
            return True
        if not stat.S_ISREG(mode):
            raise AgentFailure(Step.TARGET, f"{path} is neither a file nor a block device.")
        if not self._replace:
            raise AgentFailure(Step.TARGET, f"{path} exists; --replace overwrites it.")
        return False

    def _patience(self) -> Patience:
        return Patience(PATIENCE, self._now, self._tally.wait, self._tally.message)

    def _finish_table(self, target: Target, manifest: Manifest) -> None:
        """On a larger disk the backup table belongs to its end; without the tools for that the disk is still whole."""
        try:
            if moved := finish_table(Host(), target, manifest):
                self._tally.message(moved)
        except AgentFailure as failure:
            self._tally.message(f"{failure} The disk holds the image as it is.")


def base_url(server: str, port: int) -> str:
    """ADDRESS, ADDRESS:PORT, ADDRESS6 or [ADDRESS6]:PORT as a base URL. Raises ValueError."""
    found = re.fullmatch(
        r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@?#\[\]]+))(?::(\d{1,5}))?|([0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*)", server
    )
    if not found:
        raise ValueError(f"{server!r} is no server")
    number = int(found[3]) if found[3] else port
    if not 0 < number < 65536:
        raise ValueError(f"{server!r} is no server: there is no such port")
    host = f"[{found[1] or found[4]}]" if found[1] or found[4] else found[2]
    return f"http://{host}:{number}"


def _open_device(path: Path, manifest: Manifest) -> Target:
    target = Target(path)
    try:
        check_fits(manifest, target.size)
        if target.sector != manifest.sector:
            raise AgentFailure(
                Step.TARGET,
                f"The disk {path} has sectors of {target.sector} bytes, the image was made for {manifest.sector}: its "
                "partition table would mean other places. Nothing was written.",
            )
    except BaseException:
        target.close()
        raise
    return target


def _open_part(path: Path, plan: Plan, image: str) -> Target:
    """PATH.part, of the image's size: what an interrupted fetch of this image left, or else empty."""
    part = path.with_name(path.name + ".part")
    try:
        part.open("ab").close()
        target = Target(part)
    except OSError as error:
        raise AgentFailure(Step.TARGET, f"{part} cannot be made: {error.strerror}.") from error
    try:
        target.resize(plan.size)
        record = Record(target, image, plan.count)
        if not (record.possible and record.load()):
            target.resize(0)
            target.resize(plan.size)
        if target.room < plan.raw:
            if not target.allocated:
                part.unlink()
            raise AgentFailure(
                Step.TARGET, f"There is no room for {path}: {target.room} bytes are free, the image needs {plan.raw}."
            )
    except BaseException:
        target.close()
        raise
    return target


def _give_name(part: Path, path: Path) -> None:
    try:
        part.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise AgentFailure(Step.FINISH, f"{part} is whole, but cannot be named {path}: {error.strerror}.") from error
