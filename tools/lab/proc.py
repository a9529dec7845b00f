"""Child processes that cannot outlive us."""

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

_STOP_PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL: pxed flushes its database on SIGTERM


def spawn(argv: Sequence[str | Path], *, netns_pid: int | None = None, **popen: Any) -> subprocess.Popen[bytes]:
    """Start a child that the kernel kills when this thread's process dies, in a network namespace when one is given."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError("setpriv is missing: install Debian's util-linux")
    head = ["nsenter", "-t", str(netns_pid), "-n", "--"] if netns_pid else []
    return subprocess.Popen([*head, setpriv, "--pdeathsig", "KILL", "--", *map(str, argv)], **popen)


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a child by SIGTERM, then SIGKILL; its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    status = process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        close_quietly(stream)
    return status


def close_quietly(stream: IO[bytes] | None) -> None:
    """Close a pipe whose other end may be gone already."""
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def run(argv: Sequence[str | Path], *, netns_pid: int | None = None) -> str:
    """Run a command to its end; its output, or RuntimeError with what it printed."""
    head = ["nsenter", "-t", str(netns_pid), "-n", "--"] if netns_pid else []
    done = subprocess.run([*head, *map(str, argv)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
