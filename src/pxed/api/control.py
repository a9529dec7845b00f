"""What the API asks of the running server: the `Control` protocol, which `pxed.app` implements, and its records.

Every method may raise NotFoundError (the thing does not exist), RefusedError (not in its present state) or
OperatorError (the request makes no sense), each with a sentence for the person who asked. A `machine` given by key is
found by id, MAC in any usual writing, SMBIOS UUID or name; an image by id or name.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Protocol

from msgspec import Meta, Struct, field

from pxed.types import Event, ImageSession, Job, Machine, Traffic, Transport

__all__ = [
    "Change",
    "Control",
    "Image",
    "NewJob",
    "NewMachine",
    "Reloaded",
    "ServiceStatus",
    "Status",
]


class NewMachine(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that an operator announces. At least one of MAC, UUID and serial must be given."""

    mac: str = ""
    uuid: str = ""
    serial: str = ""
    manufacturer: str = ""
    product: str = ""
    name: Annotated[str, Meta(pattern="^[^/]*$")] = ""  # a slash would end the name in a URL


class NewJob(Struct, frozen=True, forbid_unknown_fields=True):
    """Restore `image` (id or name) on `machine` (a key)."""

    machine: str
    image: str
    debug: bool = False  # a rescue shell on the machine's console when the job fails
    transport: Transport = "auto"


class Image(Struct, frozen=True):
    """An image of the library, as listings show it."""

    id: str  # hex BLAKE3 root of its manifest
    name: str
    size: int  # bytes of disk
    stored: int = 0  # bytes that its chunks take in the store
    created: float = 0.0
    jobs: int = 0  # unfinished jobs that want it


class ServiceStatus(Struct, frozen=True):
    """One of the server's services. `state` is "running", "off" or "failed"; `detail` is a sentence."""

    name: str
    state: str
    detail: str = ""


class Status(Struct, frozen=True):
    """The server at a glance."""

    version: str
    pid: int
    started: float
    addresses: tuple[str, ...] = ()
    machines: int = 0
    jobs: dict[str, int] = field(default_factory=dict)  # unfinished and finished jobs, per state
    services: tuple[ServiceStatus, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)  # packets, drops per reason, transfers …
    warnings: tuple[str, ...] = ()  # what an operator should look at, a sentence each
    # Per interface, seconds since an IGMP querier was heard; None: not yet. Without multicast nobody listens.
    queriers: dict[str, float | None] = field(default_factory=dict)


class Reloaded(Struct, frozen=True):
    """What a reload did. `restart` names the changed keys that only a restart takes over."""

    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


class Change(Struct, frozen=True, omit_defaults=True):
    """One line of the live stream: a timeline event, a job's new state, or neither (the stream is alive)."""

    event: Event | None = None
    job: Job | None = None


class Control(Protocol):
    """The running server, as its administrators see it."""

    async def status(self) -> Status:
        """The server at a glance."""

    async def metrics(self) -> tuple[bytes, str]:
        """The metrics in the text format of Prometheus, and its media type."""

    async def traffic(self, limit: int) -> Traffic:
        """What moves at this moment, with at most `limit` transfers."""

    async def reload(self) -> Reloaded:
        """Read the configuration again. Raises ConfigError and keeps the old one when it is wrong."""

    async def machines(self) -> list[Machine]:
        """All machines, those only seen on the wire included."""

    async def machine(self, key: str) -> Machine:
        """One machine."""

    async def add_machine(self, new: NewMachine) -> Machine:
        """Record a machine, or make one known that was only seen. Raises RefusedError when it is known already."""

    async def remove_machine(self, key: str) -> None:
        """Forget a machine, its jobs and its timeline. Raises RefusedError while a job of it is unfinished."""

    async def timeline(self, key: str) -> list[Event]:
        """A machine's timeline, oldest first."""

    async def jobs(self) -> list[Job]:
        """All jobs, oldest first."""

    async def job(self, job_id: int) -> Job:
        """One job."""

    async def create_job(self, new: NewJob) -> Job:
        """Make a job for a machine."""

    async def cancel_job(self, job_id: int) -> Job:
        """Cancel an unfinished job; a running agent is told to stop at its next report."""

    async def retry_job(self, job_id: int) -> Job:
        """Make a failed, cancelled or expired job pending again."""

    async def images(self) -> list[Image]:
        """All images."""

    async def image(self, key: str) -> Image:
        """One image."""

    async def remove_image(self, key: str) -> None:
        """Delete an image. Raises RefusedError while an unfinished job wants it or a session sends it."""

    async def sessions(self) -> list[ImageSession]:
        """The multicast sessions that are open, and the last ones that have ended, oldest first."""

    async def session(self, key: str) -> ImageSession:
        """One of them, by the beginning of its id, or the newest of an image, by name.

        Raises NotFoundError, and RefusedError for the beginning of several ids.
        """

    async def start_session(self, key: str) -> ImageSession:
        """Let a session begin that waits for its start. Raises RefusedError when it does not wait."""

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Event | Job]]:
        """Everything that happens from the moment the context is entered: timeline events, jobs in their new state."""
