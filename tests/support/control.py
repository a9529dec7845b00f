"""A `Control` that keeps everything in lists: what the API and the commands are tested against."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from pxed.api.control import Image, NewJob, NewMachine, Reloaded, ServiceStatus, Status
from pxed.errors import ConfigError, NotFoundError, OperatorError, RefusedError
from pxed.types import Event, ImageSession, Job, JobState, Machine, Traffic

IMAGE = Image(id="ab" * 32, name="debian", size=8 << 30, stored=1 << 30, created=1_700_000_000.0)
UNFINISHED = (JobState.PENDING, JobState.OFFERED, JobState.RUNNING)


class FakeControl:
    def __init__(self) -> None:
        self.all_machines: list[Machine] = []
        self.all_jobs: list[Job] = []
        self.all_images = [IMAGE]
        self.events: list[Event] = []
        self.listeners: list[asyncio.Queue[Event | Job]] = []
        self.now = 1_700_000_100.0
        self.broken_config = False
        self.all_sessions: list[ImageSession] = []
        self.next_sessions: list[ImageSession] = []  # what asking for one will give, in turn
        self.snapshots = [Traffic(1.0)]  # what is told next, in turn
        self.asked_while_watched = False  # somebody follows the live stream, and has asked how the jobs stand

    def publish(self, item: Event | Job) -> None:
        if isinstance(item, Event):
            self.events.append(item)
        for listener in self.listeners:
            listener.put_nowait(item)

    def change_job(self, job_id: int, **fields: object) -> Job:
        index = next(i for i, job in enumerate(self.all_jobs) if job.id == job_id)
        self.all_jobs[index] = replace(self.all_jobs[index], changed=self.now, **fields)
        self.publish(self.all_jobs[index])
        return self.all_jobs[index]

    async def status(self) -> Status:
        return Status(
            version="0.1.0",
            pid=42,
            started=self.now,
            addresses=("10.78.0.1",),
            machines=len(self.all_machines),
            jobs={"pending": len(self.all_jobs)},
            services=(ServiceStatus("tftp", "running"),),
            counters={"dhcp.offer": 3},
        )

    async def reload(self) -> Reloaded:
        if self.broken_config:
            raise ConfigError("f.toml:1: key `x`: expected y")
        return Reloaded(changed=("log.level",))

    async def traffic(self, limit: int) -> Traffic:
        self.snapshots.append(self.snapshots.pop(0))
        return self.snapshots[-1]

    async def metrics(self) -> tuple[bytes, str]:
        return b"pxed_machines 1\n", "text/plain; version=0.0.4"

    async def machines(self) -> list[Machine]:
        return self.all_machines

    async def machine(self, key: str) -> Machine:
        for machine in self.all_machines:
            if key in (str(machine.id), machine.uuid, machine.name, *machine.macs):
                return machine
        raise NotFoundError(f"No machine is known as {key}.")

    async def add_machine(self, new: NewMachine) -> Machine:
        if not (new.mac or new.uuid or new.serial):
            raise OperatorError("A machine needs a MAC, a UUID or a serial.")
        if any(new.mac in machine.macs for machine in self.all_machines):
            raise RefusedError(f"The machine {new.mac} is known already.")
        machine = Machine(
            id=len(self.all_machines) + 1,
            macs=(new.mac,),
            uuid=new.uuid,
            serial=new.serial,
            name=new.name,
            first_seen=self.now,
            last_seen=self.now,
        )
        self.all_machines.append(machine)
        self.publish(Event(self.now, new.mac, "seen", "The machine was added.", machine.id))
        return machine

    async def remove_machine(self, key: str) -> None:
        machine = await self.machine(key)
        if any(job.machine_id == machine.id and job.state in UNFINISHED for job in self.all_jobs):
            raise RefusedError("The machine has an unfinished job.")
        self.all_machines.remove(machine)

    async def timeline(self, key: str) -> list[Event]:
        machine = await self.machine(key)
        return [event for event in self.events if event.machine_id == machine.id]

    async def jobs(self) -> list[Job]:
        self.asked_while_watched |= bool(self.listeners)
        return self.all_jobs

    async def job(self, job_id: int) -> Job:
        self.asked_while_watched |= bool(self.listeners)
        for job in self.all_jobs:
            if job.id == job_id:
                return job
        raise NotFoundError(f"There is no job {job_id}.")

    async def create_job(self, new: NewJob) -> Job:
        machine = await self.machine(new.machine)
        image = await self.image(new.image)
        job = Job(
            id=len(self.all_jobs) + 1,
            machine_id=machine.id,
            kind="restore",
            image=image.id,
            image_name=image.name,
            state=JobState.PENDING,
            created=self.now,
            changed=self.now,
            debug=new.debug,
            transport=new.transport,
        )
        self.all_jobs.append(job)
        self.publish(job)
        return job

    async def cancel_job(self, job_id: int) -> Job:
        job = await self.job(job_id)
        if job.state not in UNFINISHED:
            raise RefusedError(f"Job {job_id} is {job.state} already.")
        return self.change_job(job_id, state=JobState.CANCELLED, reason="cancelled by the operator")

    async def retry_job(self, job_id: int) -> Job:
        job = await self.job(job_id)
        if job.state in (*UNFINISHED, JobState.SUCCEEDED):
            raise RefusedError(f"Job {job_id} is {job.state}.")
        return self.change_job(job_id, state=JobState.PENDING, reason="", generation=job.generation + 1)

    async def images(self) -> list[Image]:
        return self.all_images

    async def image(self, key: str) -> Image:
        for image in self.all_images:
            if key in (image.id, image.name):
                return image
        raise NotFoundError(f"There is no image {key}.")

    async def remove_image(self, key: str) -> None:
        self.all_images.remove(await self.image(key))

    async def sessions(self) -> list[ImageSession]:
        return self.all_sessions

    async def session(self, key: str) -> ImageSession:
        for index, session in reversed(list(enumerate(self.all_sessions))):
            if session.id.startswith(key) or session.image_name == key:
                if len(self.next_sessions) > 0:
                    self.all_sessions[index] = self.next_sessions.pop(0)
                return self.all_sessions[index]
        raise NotFoundError(f"There is no multicast session {key}.")

    async def start_session(self, key: str) -> ImageSession:
        session = await self.session(key)
        if session.state != "waiting":
            raise RefusedError(f"Session {session.id} is {session.state}: there is nothing to start.")
        self.all_sessions[self.all_sessions.index(session)] = replace(session, state="sending", waits="")
        return await self.session(key)

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[Event | Job]]:
        queue: asyncio.Queue[Event | Job] = asyncio.Queue()
        self.listeners.append(queue)

        async def items() -> AsyncIterator[Event | Job]:
            while True:
                yield await queue.get()

        try:
            yield items()
        finally:
            self.listeners.remove(queue)
