"""CPU seconds and network counters, as /proc tells them."""

import os
import time
from contextlib import suppress
from pathlib import Path

from pxed.errors import OperatorError

__all__ = ["Group", "busy_seconds", "check_memory", "cpu_seconds", "network_counters", "tree"]

_TICKS = os.sysconf("SC_CLK_TCK")
# Positions in /proc/PID/stat after the command's name (proc(5)).
_PARENT, _CHILD_USER, _CHILD_SYSTEM = 1, 13, 14
# A process's clock by its id (the kernel's form of clock_getcpuclockid(3)): all its threads, those that ended too.
_CPU_CLOCK = 2
# Counters of /proc/net/snmp and netstat that say what a network namespace lost, repeated or cut to pieces.
_COUNTERS = {
    ("Udp", "RcvbufErrors"), ("Udp", "SndbufErrors"), ("Ip", "ReasmReqds"), ("Ip", "FragCreates"),
    ("Tcp", "RetransSegs"), ("TcpExt", "ListenOverflows"), ("TcpExt", "ListenDrops"),
}  # fmt: skip


# Of a file that is to be served, that are in memory at once: two while it is made, and the servers'.
_COPIES = 3


def check_memory(size: int) -> None:
    """Raises OperatorError when a file of `size` bytes, which clients compare with, would use up this host's memory."""
    most = _available() // _COPIES
    if size > most:
        raise OperatorError(f"A file of {size} bytes is too large for this host's memory; at most {most} now.")


def _available() -> int:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int | str) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(entry.name)):
            children.setdefault(int(stat[_PARENT]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with its ended threads, its descendants, and those that were waited for.

    The latter in whole ticks.
    """
    seconds = 0.0
    for one in tree(pid):
        with suppress(OSError):  # it has ended meanwhile
            seconds += time.clock_gettime(~one << 3 | _CPU_CLOCK)
        if stat := _stat(one):
            seconds += sum(map(int, stat[_CHILD_USER : _CHILD_SYSTEM + 1])) / _TICKS
    return seconds


def busy_seconds() -> float:
    """CPU seconds that all processors of this host have worked since its start (interrupts included)."""
    user, nice, system, _idle, _wait, hard, soft = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, hard, soft))) / _TICKS


def network_counters(pid: int | None = None) -> dict[str, int]:
    """What the network namespace of a process (None: of the calling thread) has lost or repeated so far."""
    directory = Path(f"/proc/{pid}/net" if pid else "/proc/thread-self/net")
    found = {}
    for table in ("snmp", "netstat"):
        lines = (directory / table).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            protocol = names.partition(":")[0]
            for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
                if (protocol, name) in _COUNTERS:
                    found[name] = int(value)
    return found


class Group:
    """A control group for one server, which knows the CPU time of all that ever ran in it, to the microsecond.

    /proc forgets children that a server does not wait for (tftpd-hpa). Raises OSError where no group can be made.
    """

    def __init__(self, name: str) -> None:
        root, self._reading = _accounting()
        for old in root.glob("pxed-bench-*"):
            if not Path("/proc", old.name.split("-")[2]).exists():  # that bench was killed
                with suppress(OSError):
                    old.rmdir()
        self._directory = root / f"pxed-bench-{os.getpid()}-{name}"
        self._directory.mkdir()
        self.entrance = self._directory / "cgroup.procs"  # a process id written here joins the group

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        if self._reading == "cpuacct.usage":
            return int((self._directory / self._reading).read_text()) / 1e9
        return int((self._directory / self._reading).read_text().split()[1]) / 1e6  # "usage_usec N" comes first

    def close(self) -> None:
        """Remove the group; its processes have ended."""
        with suppress(OSError):
            self._directory.rmdir()


def _accounting() -> tuple[Path, str]:
    """Where control groups count CPU time, and the file that says it: version 2, or the cpuacct of version 1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, place, kind, options, *_ = line.split()
        root = Path(place)
        if kind == "cgroup" and "cpuacct" in options.split(",") and (root / "cpuacct.usage").exists():
            return root, "cpuacct.usage"
        if kind == "cgroup2" and (root / "cpu.stat").exists():
            return root, "cpu.stat"
    raise OSError("no control groups that count CPU time")
