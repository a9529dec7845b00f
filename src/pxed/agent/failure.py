"""How a job ends early: it fails at a step, or the server has stopped it."""

from pxed.errors import PxedError
from pxed.types import Step

__all__ = ["AgentFailure", "Stopped"]


class AgentFailure(PxedError):
    """The job cannot be done; the text is the reason that the operator reads."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(reason)
        self.step = step


class Stopped(PxedError):
    """The server has taken the job away (cancelled, or given up); nothing more is written. The text says why."""
