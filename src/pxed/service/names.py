"""What a machine gets under a name: one resolver for TFTP and boot HTTP.

Names under `pxed/` are made here (the preboot client's scripts, the environment's files); every other name is a
file below the TFTP root, or, when it is missing there, a boot program of `dhcp.boot_program_dir`.
Confinement is the kernel's: `open_beneath` resolves each name below its root, symbolic links included.
"""

import asyncio
import errno
import math
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import unquote_to_bytes

import structlog
from msgspec import Struct

from pxed._ext.files import open_beneath
from pxed._ext.mtftp_pxe import LARGEST_FILE
from pxed.boot import Site, scripts
from pxed.config import Config
from pxed.errors import OperatorError, RefusedError
from pxed.service.metrics import Metrics
from pxed.service.peers import Peers
from pxed.service.transactions import Transactions
from pxed.types import Check, Event, Identity, Job, Verdict
from pxed.work.identity import clean

__all__ = ["BytesContent", "Content", "FileContent", "Names", "NotFound", "Via", "kind_of"]

Via = Literal["tftp", "http"]

_PREFIX = "pxed/"
_ENVIRONMENT = "pxed/environment/"

# Seconds until boot programs are looked for again: an operator who puts one there does not wait long.
LOOK_AGAIN = 2.0

# Machines that load the environment within so many seconds are a crowd. A single one loads the kernel by MTFTP, in
# blocks of 512 bytes, slower than by TFTP; of several each further one costs nothing.
CROWD = 4
CROWD_SECONDS = 30.0

# What firmware runs; other files (menus, kernels of other systems) are logged, and kept out of the timelines.
_PROGRAM_SUFFIXES = (".efi", ".kpxe", ".kkpxe", ".pxe", ".0")

_KINDS = {scripts.FIRST_SCRIPT: "script", scripts.KERNEL: "kernel", scripts.INITRAMFS: "initramfs"}


class FileContent(Struct, frozen=True):
    """An open regular file. The caller owns the descriptor."""

    fd: int
    size: int
    mtime: int  # nanoseconds


class BytesContent(Struct, frozen=True):
    """Bytes made for this request."""

    data: bytes


class NotFound(Struct, frozen=True):
    """There is nothing under this name, for this reason (a sentence for the log)."""

    reason: str


Content = FileContent | BytesContent | NotFound


class Names:
    """Answers names, and writes what was asked for and delivered into the machines' timelines."""

    def __init__(
        self,
        config: Config,
        transactions: Transactions,
        peers: Peers,
        toward: Callable[[str], str],
        clock: Callable[[], float] = time.time,
        has_image: Callable[[str], bool] = lambda _id: True,
        metrics: Metrics | None = None,
        ipv4_for: Callable[[str], str] = lambda address: address,
    ) -> None:
        """`toward`: the address of ours that an address reaches (`Interfaces.toward`). `has_image`: whether there is an
        image of this id (`Library.has`), asked in a thread, since the library may be at work. `ipv4_for`: the IPv4
        address that belongs to an address of ours (`Interfaces.ipv4_for`)."""
        self.configure(config)
        self._transactions = transactions
        self._peers = peers
        self._toward = toward
        self._clock = clock
        self._has_image = has_image
        self._ipv4_for = ipv4_for
        self._metrics = metrics or Metrics()
        self._loading: deque[float] = deque(maxlen=CROWD)  # when the last machines were sent to load the environment
        self._log = structlog.get_logger("pxed.names")

    def configure(self, config: Config) -> None:
        """Take over a (reloaded) configuration."""
        self._config = config
        self._site = Site.from_config(config)
        # Boot programs with their names' one form, under which they are asked for.
        self._programs = {name: clean_name(os.fsencode(name)) for name in self._site.boot_programs.values()}
        self._missing: frozenset[str] = frozenset()
        self._large: frozenset[str] = frozenset()
        self._look_again = -math.inf

    async def open(self, name: str | bytes, *, via: Via, peer: str, local: str = "", probe: bool = False) -> Content:
        """What `peer` (an IP address) gets under `name`.

        Over HTTP the name is the path as sent, percent-encoded. `local` is the address of ours that the peer
        reached, if the caller knows it. `probe`: only its size is wanted (HEAD); it must have no effect.
        """
        text = os.fsdecode(name).lstrip("/")
        if text.startswith(scripts.CHECK_PREFIX):
            if not probe:
                self._metrics.requested(via, "check")
            return await self._check(text, via, peer, local or self._toward(peer), probe)
        path = clean_name(unquote_to_bytes(text) if via == "http" else os.fsencode(text))
        if path is None:
            self._metrics.requested(via, "refused")
            return NotFound("the name leads out of what is served")
        if not probe:
            self._metrics.requested(via, kind_of(path), self._peers.told(peer))
        if path == scripts.FIRST_SCRIPT:
            return BytesContent(scripts.first_script(self._base(via, local or self._toward(peer))))
        if path.startswith(_ENVIRONMENT):
            return await _unless_cached(partial(_open, self._config.environment_dir, path.removeprefix(_ENVIRONMENT)))
        if path.startswith(_PREFIX):
            return NotFound(f"{path} is not a name of pxed's")
        return await _unless_cached(partial(self._file, path))

    def _file(self, path: str, *, cached: bool = False) -> FileContent | NotFound:
        """A file of the TFTP root, or a boot program of the host's. `cached`: as for `_open`."""
        content = _open(self._config.tftp.root, path, cached=cached)
        # Of the host's own directory only the configured boot programs are served, not whatever else lies there.
        if isinstance(content, NotFound) and path in self._programs.values():
            return _open_program(self._config.dhcp.boot_program_dir, path)
        return content

    def missing_programs(self) -> frozenset[str]:
        """The configured boot programs, as they are written there, that a machine would not get under their names.

        The folders are looked at again after a few seconds: a storm of requests costs no look each.
        """
        self._look()
        return self._missing

    def large_programs(self) -> frozenset[str]:
        """The configured boot programs that are too large for MTFTP; as fresh as `missing_programs`."""
        self._look()
        return self._large

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._look_again:
            sizes = {name: self._size_of(path) for name, path in self._programs.items()}
            self._missing = frozenset(name for name, size in sizes.items() if size is None)
            self._large = frozenset(name for name, size in sizes.items() if size and size > LARGEST_FILE)
            self._look_again = now + LOOK_AGAIN

    def _size_of(self, path: str | None) -> int | None:
        """Of a boot program, in bytes; None when there is none."""
        if path is None:
            return None
        if path.startswith(_PREFIX):  # made here; a configuration may name the first script
            return 0 if path == scripts.FIRST_SCRIPT else None
        content = self._file(path)
        if not isinstance(content, FileContent):
            return None
        os.close(content.fd)
        return content.size

    def delivered(self, name: str | bytes, *, via: Via, peer: str, size: int, seconds: float) -> None:
        """The whole of a name went to `peer`: the transfer's last acknowledgement came, or the response's last byte
        is with the kernel. Not to be called for a size probe, a HEAD, or a transfer that was cut off.
        """
        text = os.fsdecode(name).lstrip("/")
        path = clean_name(unquote_to_bytes(text) if via == "http" else os.fsencode(text)) or ""
        self._metrics.delivered(via, kind_of(path), seconds)
        how = f"over {via.upper()} ({_bytes_text(size)} in {seconds:.1f} s)"
        if path == scripts.KERNEL:
            self._note(peer, "environment", f"kernel fetched {how}")
        elif path == scripts.INITRAMFS:
            self._note(peer, "environment", f"initramfs fetched completely {how}")
        elif path == scripts.FIRST_SCRIPT:  # the boot program of a machine whose ROM is iPXE
            self._note(peer, "boot-program", f"boot script fetched {how}")
        elif kind_of(path) == "boot-program":
            self._note(peer, "boot-program", f"{path} fetched {how}")

    # -- the check -------------------------------------------------------------------------------------------------

    async def _check(self, name: str, via: Via, peer: str, local: str, probe: bool) -> Content:
        """The preboot client asks whether there is work for it: the answer is a script."""
        raw = scripts.parse_check_name(name, encoded=via == "http")
        identity = clean(raw) if raw is not None else Identity()
        if not identity.mac:
            self._log.info("check without a usable MAC", name=name[:200], peer=peer, via=via)
            return NotFound("a check must name the machine's MAC: pxed/check/mac-aa-bb-cc-dd-ee-ff/...")
        if probe:
            return BytesContent(b"")
        now = self._clock()
        self._peers.learn(peer, identity.mac)
        self._transactions.seen(identity, now)
        check = self._transactions.check(identity, now)
        script, text = await self._answer(check, identity, self._base(via, local), local, now)
        event = Event(now, identity.mac, "check", text, machine_id=check.machine_id, job_id=check.job_id)
        self._transactions.note(event)
        self._log.info("check", mac=identity.mac, via=via, peer=peer, verdict=check.verdict.value, answer=text)
        return BytesContent(script)

    async def _answer(self, check: Check, identity: Identity, base: str, local: str, now: float) -> tuple[bytes, str]:
        """(script, sentence for the timeline) for a check's answer."""
        if check.verdict is Verdict.HOLD:
            return scripts.hold_script(base, check.reason), f"{check.reason} Asked to wait."
        if check.verdict is not Verdict.WORK:
            return scripts.local_script(check.reason), f"{check.reason} Boots its own disk."
        if missing := self.environment_missing():
            return scripts.local_script(missing), f"There is work, but {missing} Boots its own disk; the job waits."
        if check.job_id is not None and (gone := await self._image_gone(check.job_id)):
            return scripts.local_script(gone), f"{gone} Boots its own disk."
        offer = self._transactions.ticket(identity, now)
        if offer is None:  # the job ended, or used up its offers, between the check and now
            text = "There was work a moment ago, and there is none now."
            return scripts.local_script(text), f"{text} Boots its own disk."
        job, token = offer
        script = self._work_script(job, token, identity, base, local)
        return script, f"{check.reason} Gets the imaging environment."

    async def _image_gone(self, job_id: int) -> str:
        """'' when the job's image is there, else a sentence. A job whose image is gone (removed while no server ran,
        which knows the jobs) fails here, before its machine has lost its time to the environment."""
        job = self._transactions.job(job_id)
        try:
            if await asyncio.to_thread(self._has_image, job.image):
                return ""
            reason = f"The image {job.image_name} of job {job_id} is gone."
            await self._transactions.fail_job(job_id, "boot", reason)
        except RefusedError:  # it ended meanwhile
            return f"Job {job_id} has ended a moment ago."
        except OperatorError as error:  # neither the image nor the job is lost for that
            self._log.error("job not looked at", job=job_id, error=str(error))
            return f"There is work, but job {job_id} cannot be looked at now: {error}"
        return reason

    def _work_script(self, job: Job, token: str, identity: Identity, base: str, local: str) -> bytes:
        environment = self._config.environment
        command_line = scripts.kernel_command_line(
            self._site.http_base(self._ipv4_for(local)),  # the environment has its address from DHCP
            token,
            identity.mac,
            debug=job.debug,
            console=environment.console,
            append=environment.append,
        )
        crowded = self._crowd()  # whatever comes of it, this machine is one more
        multicast = self._site.mtftp_base(local) if self._by_multicast(identity.mac, base, local, crowded) else ""
        return scripts.work_script(base, command_line, multicast)

    def _crowd(self) -> bool:
        """Whether several machines load the environment now, with the one that asks."""
        now = time.monotonic()
        self._loading.append(now)
        return len(self._loading) == CROWD and now - self._loading[0] <= CROWD_SECONDS

    def _by_multicast(self, mac: str, base: str, local: str, crowded: bool) -> bool:
        """Whether a machine's iPXE is to try `mtftp://` for the kernel."""
        mtftp = self._site.mtftp
        if mtftp is None or ":" in local:
            return False
        by_itself = mtftp.ipxe == "always" or (mtftp.ipxe == "auto" and crowded and base.startswith("tftp:"))
        if not mtftp.machines.get(mac, by_itself):
            return False
        try:
            size = Path(self._config.environment_dir, scripts.KERNEL.removeprefix(_ENVIRONMENT)).stat().st_size
        except OSError:
            return False
        return size <= LARGEST_FILE

    def environment_missing(self) -> str:
        """'' when the environment has been built, else a sentence that says what to do."""
        directory = self._config.environment_dir
        names = [name.removeprefix(_ENVIRONMENT) for name in (scripts.KERNEL, scripts.INITRAMFS)]
        missing = [name for name in names if not os.access(Path(directory, name), os.R_OK)]
        if not missing:
            return ""
        return (
            f"the imaging environment has not been built ({' and '.join(missing)} missing in {directory}): "
            "run `pxed environment build` on the server."
        )

    # -- small things ----------------------------------------------------------------------------------------------

    def _base(self, via: Via, local: str) -> str:
        """The URL that names are relative to, over the protocol that the client is using."""
        return self._site.http_base(local) if via == "http" else self._site.tftp_base(local)

    def _note(self, peer: str, kind: str, text: str) -> None:
        """A timeline line for the machine behind an address, if it can be told which that is."""
        if mac := self._peers.mac(peer):
            self._transactions.note(Event(self._clock(), mac, kind, text))


def kind_of(path: str) -> str:
    """What kind of thing a clean name is: one of a few words, for metrics."""
    if path in _KINDS:
        return _KINDS[path]
    if path.startswith(_PREFIX):
        return "check" if path.startswith(scripts.CHECK_PREFIX) else "refused"
    return "boot-program" if path.lower().endswith(_PROGRAM_SUFFIXES) else "file"


def clean_name(name: bytes) -> str | None:
    """A name in its one form: slashes forward and single, no './'; None when it must not be served.

    Clients write backslashes (Windows boot managers) and a leading slash (most). `..` is refused rather than
    resolved: no boot client needs it.
    """
    if b"\0" in name:
        return None
    parts = [part for part in os.fsdecode(name).replace("\\", "/").split("/") if part not in ("", ".")]
    return "/".join(parts) if parts and ".." not in parts else None


async def _unless_cached(find: Callable[..., FileContent | NotFound]) -> FileContent | NotFound:
    """Look for a file here when the kernel knows where it is, else in a thread: nobody else waits for that disk."""
    try:
        return find(cached=True)
    except BlockingIOError:
        found = asyncio.ensure_future(asyncio.to_thread(find))
    try:
        return await asyncio.shield(found)
    except asyncio.CancelledError:
        found.add_done_callback(_close)
        raise


def _close(found: asyncio.Future[FileContent | NotFound]) -> None:
    """Close what nobody waits for any more."""
    if not found.cancelled() and not found.exception() and isinstance(content := found.result(), FileContent):
        os.close(content.fd)


def _open(root: str, name: str, *, cached: bool = False) -> FileContent | NotFound:
    """Open a file below a directory. With `cached`, BlockingIOError when a disk would have to be asked for it."""
    try:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return NotFound(f"{root} cannot be read: {error.strerror}")
    try:
        fd = open_beneath(directory, name, cached=cached)
    except OSError as error:
        if cached and error.errno == errno.EAGAIN:
            raise
        if error.errno == errno.EXDEV:
            return NotFound(f"{name} leads out of {root}")
        return NotFound(f"{name} in {root}: {error.strerror}")
    finally:
        os.close(directory)
    status = os.fstat(fd)
    return FileContent(fd, status.st_size, status.st_mtime_ns)


def _open_program(directory: str, name: str) -> FileContent | NotFound:
    """Open a configured boot program. The name is the operator's own, not a client's, and links may lead anywhere:
    Debian's /usr/lib/ipxe/ipxe.efi is one to /boot.
    """
    path = Path(os.path.realpath(f"{directory}/{name}"))
    return _open(str(path.parent), path.name)


def _bytes_text(size: int) -> str:
    """A size for people: '312 B', '74 KB', '57.3 MB'."""
    if size < 1000:
        return f"{size} B"
    if size < 1_000_000:
        return f"{size / 1000:.0f} KB"
    return f"{size / 1_000_000:.1f} MB"
