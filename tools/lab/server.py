"""`pxed serve` in a namespace, as a site would run it, and its admin API."""

import json
import subprocess
from pathlib import Path

from lab.environment import PXED
from lab.network import Namespace
from lab.proc import spawn, stop
from pxed.api.control import Status
from pxed.cli.client import Client

_CONFIG = """\
[server]
address = {address}
state_dir = "{directory}/state"
socket = "{directory}/pxed.sock"
[tftp]
root = "{directory}/tftp"
[environment]
dir = "{environment}"
[log]
level = "debug"
"""


class Server:
    """A pxed server in `host`. `extra` is TOML added to the minimal configuration."""

    def __init__(
        self, host: Namespace, directory: Path, address: str | list[str], environment: Path, extra: str = ""
    ) -> None:
        self.host = host
        self.directory = directory
        self.config = directory / "pxed.toml"
        self.log = directory / "pxed.log"
        self.socket = directory / "pxed.sock"
        (directory / "tftp").mkdir(parents=True, exist_ok=True)
        addresses = json.dumps(address)  # which is TOML, too
        self.config.write_text(_CONFIG.format(address=addresses, directory=directory, environment=environment) + extra)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it says that it is ready."""
        log = self.log.open("ab")
        self._process = spawn(
            [PXED, "--config", self.config, "serve"], netns_pid=self.host.pid, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        log.close()
        assert self._process.stdout is not None
        if b"ready" not in self._process.stdout.readline():  # it says so once, or ends
            stop(self._process)
            raise RuntimeError(f"pxed serve did not start:\n{self.tail()}")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        status = stop(self._process)
        self._process = None
        return status

    def kill(self) -> None:
        """SIGKILL: what a crash does."""
        assert self._process is not None
        self._process.kill()
        stop(self._process)
        self._process = None

    def close(self) -> None:
        """Stop it if it runs."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def pxed(self, *argv: str | Path) -> str:
        """Run a pxed command against it; RuntimeError with its output when it fails."""
        done = subprocess.run(
            [PXED, "--config", self.config, *argv], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"pxed {' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *argv: str) -> object:
        """Run a listing with --json; what it says."""
        return json.loads(self.pxed(*argv, "--json"))

    def counters(self) -> dict[str, int]:
        """The server's counters."""
        return Client(str(self.socket)).get("/status", Status).counters

    def tail(self, count: int = 40) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.is_file() else ""
