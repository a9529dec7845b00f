"""The machine under the agent: kernel interfaces, tools, consoles. Tests put another one in its place."""

import os
import time
from pathlib import Path

__all__ = ["Host", "ToolError"]

TOOL_TIMEOUT = 120.0  # seconds; the slowest (sgdisk on a busy disk) takes a few


class ToolError(Exception):
    """A program failed; the text is its last words."""


class Host:
    """The real machine, by default; `root` is where its /sys, /dev and /proc are looked for."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.sys = root / "sys"
        self.dev = root / "dev"
        self.proc = root / "proc"
        self.mount_point = root / "mnt"

    @property
    def uefi(self) -> bool:
        """Whether the firmware that started this machine is UEFI."""
        return (self.sys / "firmware/efi").is_dir()

    def say(self, text: str) -> None:
        """A sentence on every console of the machine; a console that refuses is not worth a job."""
        line = f"pxed: {text}\n".encode()
        try:
            consoles = (self.sys / "class/tty/console/active").read_text().split()
        except OSError:
            consoles = []
        for console in consoles:
            try:
                descriptor = os.open(self.dev / console, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                os.write(descriptor, line)
            except OSError:
                pass
            finally:
                os.close(descriptor)

    def run(self, *command: str) -> str:
        """A program's output. Raises ToolError when it fails, is missing, or hangs."""
        import subprocess  # here: the time until the claim counts, and no program is run before it

        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT, errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolError(f"{command[0]}: {error}") from error
        if done.returncode:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise ToolError(f"{command[0]}: {words[-1] if words else f'exit code {done.returncode}'}")
        return done.stdout

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def now(self) -> float:
        """A clock that only goes forward, in seconds."""
        return time.monotonic()
