"""A network namespace without a name: it lives as long as a shell that waits on a pipe of ours, so it goes with us."""

import ctypes
import json
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from pxed.errors import OperatorError

__all__ = ["Namespace", "Stage", "set_namespace"]

_CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace that lives until `close()`, or until this process ends."""

    def __init__(self) -> None:
        # The shell ends when its standard input does.
        self._shell = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._shell.stdout is not None and self._shell.stderr is not None
        if self._shell.stdout.readline() != "ready\n":
            said = self._shell.stderr.read().strip()
            self.close()
            raise OperatorError(f"No network namespace can be made ({said or 'no reason given'}). A lab needs root.")
        self.pid = self._shell.pid

    def run(self, *command: str) -> str:
        """Run a command inside; what it printed. Raises OperatorError with what it said."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OperatorError(f"`{' '.join(command)}` failed in the lab: {done.stderr.strip()}")
        return done.stdout

    def mac(self, interface: str) -> bytes:
        """An interface's MAC."""
        (link,) = json.loads(self.run("ip", "-json", "link", "show", "dev", interface))
        return bytes.fromhex(link["address"].replace(":", ""))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside: sockets made here belong to the namespace, and keep belonging to it."""
        outside = os.open(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            set_namespace(f"/proc/{self.pid}/ns/net")
            try:
                yield
            finally:
                set_namespace(f"/proc/self/fd/{outside}")
        finally:
            os.close(outside)

    def close(self) -> None:
        """Let the namespace go."""
        self._shell.kill()
        self._shell.communicate()


class Stage(ABC):
    """What is built of namespaces when a `with` block begins, and gone when it ends, also where building fails."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @abstractmethod
    def _build(self) -> None:
        """Make everything; what must end goes to the stack."""

    def _namespace(self) -> Namespace:
        made = Namespace()
        self._stack.callback(made.close)
        return made


def set_namespace(path: str) -> None:
    """Move this thread (os.setns is Python 3.12's)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)
