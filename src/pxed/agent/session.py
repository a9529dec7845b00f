"""One job from claim to finish."""

import os
from collections.abc import Callable
from pathlib import Path

from pxed.agent import restore
from pxed.agent.cast import Cast
from pxed.agent.disks import choose, wait_for_disks
from pxed.agent.failure import AgentFailure, Stopped
from pxed.agent.host import Host
from pxed.agent.identity import identify
from pxed.agent.options import Options
from pxed.agent.plan import Piece, Plan, check_fits
from pxed.agent.progress import Progress, gigabytes
from pxed.agent.server import Connection, Patience, Refused, Unreachable
from pxed.agent.source import Source
from pxed.agent.table import finish_table
from pxed.agent.target import Target
from pxed.agent.uefi import set_boot_entry
from pxed.types import ClaimAnswer, ClaimRequest, DiskFact, FinishRequest, Step

__all__ = ["REBOOT", "SHELL", "run"]

# What the environment's first process does next, as this process's exit code.
REBOOT, SHELL = 0, 3

# Seconds of an unreachable server before the machine is freed: a claim is asked again by booting again, a restore that
# stands half on the disk is worth more patience.
CLAIM_PATIENCE = 600.0
JOB_PATIENCE = 3600.0


def version() -> str:
    """The version of pxed that this environment was built from; empty in a source tree."""
    place = Path(__file__).with_name("VERSION")
    return place.read_text() if place.is_file() else ""


def run(host: Host, options: Options) -> int:
    """Do the machine's job; the exit code for the environment."""
    host.say(f"The agent {version()} asks {options.server} for this machine's work.")
    disks = wait_for_disks(host)
    patience = Patience(CLAIM_PATIENCE, host.now, _sleeper(host), host.say)
    request = ClaimRequest(
        token=options.token,
        agent=os.urandom(16).hex(),
        identity=identify(host, options.mac),
        firmware="uefi" if host.uefi else "bios",
        disks=tuple(disks),
        agent_version=version(),
    )
    try:
        with Connection(options.server) as connection:
            answer = patience.call(lambda: connection.claim(request))
    except Refused as refusal:
        host.say(f"The server gives this machine no work: {refusal}")
        host.sleep(10.0)  # long enough to be read, and no tight loop of starts
        return REBOOT
    except Unreachable as error:
        host.say(f"The server was not to be reached for {CLAIM_PATIENCE / 60:.0f} minutes: {error}")
        return REBOOT
    host.say(f"Job {answer.job_id}: {answer.kind} of the image {answer.image_name}.")
    return Session(host, options, answer, disks).run()


class Session:
    """A claimed job."""

    def __init__(self, host: Host, options: Options, answer: ClaimAnswer, disks: list[DiskFact]) -> None:
        self._host, self._options, self._answer, self._disks = host, options, answer, disks
        self._progress = Progress(Connection(options.server, answer.run), answer.report_every, host.now, host.say)
        self._source = Source(
            options.server,
            answer.image,
            self._progress,
            self._patience,
            run=answer.run,
            me=os.urandom(16).hex(),
            first=Connection(options.server, answer.run),
        )
        self._fetched = 0

    def run(self) -> int:
        """Do the job and end it with the server: done, failed with a reason, or stopped by the server."""
        began = self._host.now()
        self._progress.start()
        try:
            self._restore()
            finish = FinishRequest(True, Step.FINISH, "", self._fetched, self._host.now() - began)
        except Stopped as stop:
            self._host.say(f"The job was stopped: {stop}")
            self._progress.stop(str(stop))
            self._progress.end()
            return REBOOT
        except AgentFailure as failure:
            finish = FinishRequest(False, failure.step, str(failure), self._fetched, self._host.now() - began)
        except Exception as error:
            # A bug of ours, or a machine that breaks in a way nobody thought of: the operator gets what we know.
            reason = f"The agent failed unexpectedly: {type(error).__name__}: {error}"
            finish = FinishRequest(False, self._progress.step, reason, self._fetched, self._host.now() - began)
        finally:
            self._source.prepared()
        self._progress.end()
        return self._finish(finish)

    # -- the steps --------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        progress, source = self._progress, self._source
        if self._answer.kind != "restore":
            raise AgentFailure(
                Step.CLAIM, f"This environment cannot do a job of kind {self._answer.kind}: build the environment anew."
            )
        plan = source.plan()
        manifest = plan.manifest
        progress.expect(manifest.size)
        fact = choose(self._disks, manifest.size, manifest.sector)
        target = Target(self._host.dev / fact.path.removeprefix("/dev/"))
        try:
            check_fits(manifest, target.size)
            model = f" ({fact.model})" if fact.model else ""
            progress.message(f"The target is {fact.path}{model}, {gigabytes(fact.size)}.")
            progress.begin(Step.RESTORE)
            seal = self._write(plan, target)
            progress.begin(Step.VERIFY)
            restore.check_seal(seal, target)
            try:
                moved = finish_table(self._host, target, manifest)
            except AgentFailure:
                restore.unseal(target)  # a failed job leaves no disk that boots
                raise
            progress.message(
                "Verified: every chunk before it was written, boot sector and partition table read back."
                + (f" {moved}" if moved else "")
            )
        finally:
            target.close()  # also lets the partition be mounted: the open disk is ours alone
        progress.begin(Step.BOOT_ENTRY)
        progress.message(set_boot_entry(self._host, target, manifest, self._answer.image_name))

    def _write(self, plan: Plan, target: Target) -> list[tuple[Piece, bytes]]:
        """Everything, the seal last; returns the seal, for reading it back."""
        host, began, transport = self._host, self._host.now(), self._answer.transport
        cast = None
        if transport != "http":
            only = transport == "cast"
            cast = Cast(self._source, self._progress, self._patience(), host.now, only=only, give_up=JOB_PATIENCE)
        work = restore.Restore(plan, target, self._progress, self._source, cast)
        try:
            seal = work.run()
        finally:
            self._fetched = work.figures.fetched
        seconds = max(host.now() - began, 0.001)
        self._progress.message(
            f"Restored {gigabytes(plan.size)} in {seconds:.1f} s ({plan.size / seconds / 1e6:.0f} MB/s of disk): "
            f"{work.account()}"
        )
        return seal

    # -- the server -------------------------------------------------------------------------------------------------

    def _finish(self, request: FinishRequest) -> int:
        if not request.ok:
            self._host.say(f"The job failed at the step {request.step}: {request.reason}")
        patience = Patience(JOB_PATIENCE, self._host.now, _sleeper(self._host), self._host.say)
        try:
            with self._source.connection() as connection:
                then = patience.call(lambda: connection.finish(request)).then
        except Refused as refusal:
            self._host.say(f"The server does not take the job's end: {refusal}")
            return REBOOT
        except Unreachable as error:
            self._host.say(f"The job's end could not be told to the server: {error}")
            return REBOOT
        if request.ok:
            self._host.say("The job is done.")
        return SHELL if then == "shell" else REBOOT

    def _patience(self) -> Patience:
        return Patience(JOB_PATIENCE, self._host.now, self._progress.wait, self._host.say)


def _sleeper(host: Host) -> Callable[[float], bool]:
    def sleep(seconds: float) -> bool:
        host.sleep(seconds)
        return False

    return sleep
