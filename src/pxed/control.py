"""The running server as its administrators see it: what the API asks for, answered by the services."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog

from pxed.api.control import Image, NewJob, NewMachine, Reloaded, ServiceStatus, Status
from pxed.errors import NotFoundError, OperatorError, RefusedError
from pxed.images.library import Image as StoredImage
from pxed.images.library import Library
from pxed.service.cast import CastService
from pxed.service.metrics import CONTENT_TYPE, Metrics
from pxed.service.transactions import Transactions
from pxed.types import Event, ImageSession, Job, Machine, Traffic

__all__ = ["ServerControl"]


class ServerControl:
    """Implements `pxed.api.control.Control`.

    `services` tells each service's state, `counters` their figures, `metrics` those and how long things took,
    `traffic` what moves now, `warnings` what to look at, `queriers` when IGMP queriers were heard; `reread` reads the
    configuration again; `casts` has the multicast sessions.
    """

    def __init__(
        self,
        addresses: tuple[str, ...],
        transactions: Transactions,
        library: Library,
        *,
        services: Callable[[], tuple[ServiceStatus, ...]],
        counters: Callable[[], dict[str, int]],
        metrics: Metrics,
        traffic: Callable[[int], Awaitable[Traffic]],
        warnings: Callable[[], tuple[str, ...]],
        reread: Callable[[], Reloaded],
        casts: CastService | None = None,
        queriers: Callable[[], dict[str, float | None]] = dict,
    ) -> None:
        self._addresses = addresses
        self._transactions = transactions
        self._library = library
        self._services = services
        self._counters = counters
        self._metrics = metrics
        self._traffic = traffic
        self._warnings = warnings
        self._reread = reread
        self._casts = casts
        self._queriers = queriers
        self._started = time.time()
        self._log = structlog.get_logger("pxed.control")

    async def status(self) -> Status:
        """The server at a glance."""
        trouble = (self._transactions.trouble,) if self._transactions.trouble else ()
        return Status(
            version=version("pxed"),
            pid=os.getpid(),
            started=self._started,
            addresses=self._addresses,
            machines=len(self._transactions.machines()),
            jobs=dict(Counter(job.state.value for job in self._transactions.jobs())),
            services=self._services(),
            counters=self._counters(),
            warnings=(*trouble, *self._warnings()),
            queriers=self._queriers(),
        )

    async def metrics(self) -> tuple[bytes, str]:
        """The metrics and their media type."""
        return self._metrics.text(), CONTENT_TYPE

    async def traffic(self, limit: int) -> Traffic:
        """What moves at this moment."""
        return await self._traffic(limit)

    async def reload(self) -> Reloaded:
        """Read the configuration again."""
        return self._reread()

    async def machines(self) -> list[Machine]:
        """All machines."""
        return self._transactions.machines()

    async def machine(self, key: str) -> Machine:
        """One machine."""
        return self._transactions.find_machine(key)

    async def add_machine(self, new: NewMachine) -> Machine:
        """Record a machine."""
        return await self._transactions.add_machine(
            mac=new.mac,
            uuid=new.uuid,
            serial=new.serial,
            manufacturer=new.manufacturer,
            product=new.product,
            name=new.name,
        )

    async def remove_machine(self, key: str) -> None:
        """Forget a machine."""
        await self._transactions.remove_machine(key)

    async def timeline(self, key: str) -> list[Event]:
        """A machine's timeline: the whole of it, or what memory holds while the database cannot be read."""
        machine = self._transactions.find_machine(key)
        try:
            return await self._transactions.history(machine.id)
        except OperatorError:
            return self._transactions.timeline(machine.id)

    async def jobs(self) -> list[Job]:
        """All jobs."""
        return self._transactions.jobs()

    async def job(self, job_id: int) -> Job:
        """One job."""
        return self._transactions.job(job_id)

    async def create_job(self, new: NewJob) -> Job:
        """Make a job."""
        image = await asyncio.to_thread(self._library.get, new.image)
        return await self._transactions.create_job(
            self._transactions.find_machine(new.machine),
            image.id,
            image.name or image.id[:12],
            debug=new.debug,
            transport=new.transport,
        )

    async def cancel_job(self, job_id: int) -> Job:
        """Cancel a job."""
        return await self._transactions.cancel_job(job_id)

    async def retry_job(self, job_id: int) -> Job:
        """Try a job again."""
        job = self._transactions.job(job_id)
        if not await asyncio.to_thread(self._library.has, job.image):
            raise NotFoundError(
                f"Job {job_id} restores {job.image_name}, and there is no such image any more: "
                "import the same disk again, or make a job for another image."
            )
        return await self._transactions.retry_job(job_id)

    async def images(self) -> list[Image]:
        """All images."""
        return [self._image(image) for image in await asyncio.to_thread(self._library.list)]

    async def image(self, key: str) -> Image:
        """One image."""
        return self._image(await asyncio.to_thread(self._library.get, key))

    async def remove_image(self, key: str) -> None:
        """Delete an image that no unfinished job wants."""
        image = await asyncio.to_thread(self._library.get, key)
        wanted = self._transactions.jobs_wanting(image.id)
        if wanted:
            numbers = ", ".join(str(job.id) for job in wanted[:10]) + (" ..." if len(wanted) > 10 else "")
            raise RefusedError(
                f"{image.name or image.id} is wanted by {len(wanted)} unfinished "
                f"{'job' if len(wanted) == 1 else 'jobs'} ({numbers}): cancel them first."
            )
        if self._casts is not None and self._casts.uses(image.id):
            raise RefusedError(
                f"{image.name or image.id} is being sent by multicast: wait until its session has ended "
                "(`pxed session list`)."
            )
        removed = await asyncio.to_thread(self._library.remove, key)
        if removed.trouble:
            self._log.warning(
                "image removed; the next removal gives its space back", image=key, trouble=removed.trouble
            )

    async def sessions(self) -> list[ImageSession]:
        """All multicast sessions."""
        return self._casts.sessions() if self._casts is not None else []

    async def session(self, key: str) -> ImageSession:
        """One multicast session."""
        return self._sessions().session(key)

    async def start_session(self, key: str) -> ImageSession:
        """Let a session begin."""
        return self._sessions().begin(key)

    def _sessions(self) -> CastService:
        if self._casts is None:
            raise NotFoundError("There are no multicast sessions: [cast] enabled is false.")
        return self._casts

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[Event | Job]]:
        """Everything that happens from now on."""
        with self._transactions.subscribe() as subscription:
            yield subscription

    def _image(self, image: StoredImage) -> Image:
        return Image(
            id=image.id,
            name=image.name,
            size=image.size,
            stored=image.data_size,
            created=image.created,
            jobs=len(self._transactions.jobs_wanting(image.id)),
        )
