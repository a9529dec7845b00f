"""Anonymous network namespaces for tests: made by `unshare`, entered by process id, gone when the test ends.

    with Net() as net:
        server, client = net.namespace("server"), net.namespace("client")
        net.link(server, "eth0", client, "eth0")
        server.address("eth0", "10.1.0.1/24")
        daemon = server.daemon("dnsmasq", ...)
        with server:                     # this thread is inside: sockets made here belong to the namespace
            sock = socket.socket(...)

Nothing has a name outside, so nothing can be left behind, and tests can run side by side.
"""

import json
import os
import queue
import signal
import subprocess
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from pxed.bench.namespace import set_namespace

_PATIENCE = 60.0


class Daemon:
    """A process, and what it says on standard output and standard error.

    A thread reads it all the time: a daemon whose pipe is full would stand still.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def line(self) -> str:
        """The next line; AssertionError with all that was said when none comes."""
        try:
            line = self._lines.get(timeout=_PATIENCE)
        except queue.Empty:
            raise AssertionError(f"nothing more was said after: {self.said}") from None
        assert line, f"the process ended: {self.said}"
        self.said += line
        return line

    def wait_for(self, text: str) -> str:
        """Read lines until one contains `text`; that line."""
        while text not in (line := self.line()):
            pass
        return line

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL."""
        _end(self._process)
        self._reader.join(_PATIENCE)

    def rest(self) -> list[str]:
        """End it; the lines that nobody has read."""
        self.stop()
        return list(iter(lambda: self._lines.get(timeout=_PATIENCE), ""))


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Namespace:
    """One network namespace, kept alive by a sleeping process. Loopback is up."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        self._stack = stack
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(_end, self._holder)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "no network namespace: not root?"
        self._holder.stdout.close()
        self._outside = threading.local()

    @property
    def pid(self) -> int:
        """A process inside."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """The command that runs the words after it inside."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *command: str, check: bool = True, timeout: float = _PATIENCE) -> str:
        """Run a command inside; its standard output."""
        done = subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def daemon(self, *command: str) -> "Daemon":
        """Start a daemon inside; it is ended with the namespace."""
        daemon = Daemon([*self.prefix, *command])
        self._stack.callback(daemon.stop)
        return daemon

    def address(self, interface: str, address: str) -> None:
        """Give an interface an address and bring it up."""
        self.run("ip", "address", "add", address, "broadcast", "+", "dev", interface)
        self.run("ip", "link", "set", "dev", interface, "up")

    def mac(self, interface: str) -> str:
        """An interface's MAC."""
        (link,) = json.loads(self.run("ip", "-json", "link", "show", "dev", interface))
        return str(link["address"])

    def __enter__(self) -> "Namespace":
        self._outside.fd = os.open(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        set_namespace(f"/proc/{self.pid}/ns/net")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            set_namespace(f"/proc/self/fd/{self._outside.fd}")
        finally:
            os.close(self._outside.fd)


class Net:
    """Namespaces and the cables between them; everything ends with the `with` block, newest first."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> "Net":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def namespace(self, name: str) -> Namespace:
        """A new namespace. `name` is for messages only."""
        return Namespace(name, self._stack)

    def link(self, one: Namespace, one_name: str, other: Namespace, other_name: str) -> None:
        """A veth pair, both ends up, without addresses."""
        command = ["ip", "link", "add", "name", one_name, "type", "veth", "peer", "name", other_name]
        one.run(*command, "netns", str(other.pid))
        one.run("ip", "link", "set", "dev", one_name, "up")
        other.run("ip", "link", "set", "dev", other_name, "up")

    def bridge(self, where: Namespace, name: str, *ports: str) -> None:
        """A bridge of interfaces that `where` has."""
        where.run("ip", "link", "add", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        for port in ports:
            where.run("ip", "link", "set", "dev", port, "master", name)
        where.run("ip", "link", "set", "dev", name, "up")
