"""Who holds a port: the sentence that an operator needs when a bind fails."""

import errno
from pathlib import Path
from typing import Literal

from pxed.errors import OperatorError

__all__ = ["Protocol", "bind_error", "holders"]

Protocol = Literal["udp", "tcp"]

_TCP_LISTEN = "0A"


def holders(protocol: Protocol, port: int, proc: str = "/proc") -> list[str]:
    """The processes of this network namespace that hold a port, as 'name (pid 42)', sorted.

    A process that we may not look into (not root), or one in another PID namespace, is missing from the list.
    """
    inodes = _socket_inodes(protocol, port, Path(proc))
    if not inodes:
        return []
    targets = {f"socket:[{inode}]" for inode in inodes}
    found: dict[int, str] = {}
    for process in Path(proc).iterdir():
        if process.name.isdecimal() and _has_descriptor(process, targets):
            found[int(process.name)] = f"{_command(process)} (pid {process.name})"
    return [found[pid] for pid in sorted(found)]


def bind_error(protocol: Protocol, address: str, port: int, error: OSError, hint: str = "") -> OperatorError:
    """The OperatorError for a failed bind; it names who holds the port, and ends with `hint`."""
    where = f"{protocol.upper()} port {port} of {address}"
    if error.errno == errno.EADDRINUSE:
        who = ", ".join(holders(protocol, port)) or "a process that cannot be seen from here"
        text = f"{where} is taken by {who}."
    elif error.errno == errno.EACCES:
        text = f"{where} may not be opened: pxed needs to be root or to have CAP_NET_BIND_SERVICE."
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{where} cannot be opened: {address} is not an address of this machine."
        if ":" in address:  # RFC 4862 5.4: nothing can be bound to it until the probes are over
            text = f"{text[:-1]}, or it is still being checked for duplicates: then try again in a moment."
    else:
        text = f"{where} cannot be opened: {error.strerror or error}."
    return OperatorError(f"{text} {hint}".rstrip())


def _socket_inodes(protocol: Protocol, port: int, proc: Path) -> set[str]:
    """Inodes of the sockets bound (TCP: listening) to a port, from /proc/self/net/{udp,udp6,tcp,tcp6}."""
    inodes: set[str] = set()
    for table in (protocol, protocol + "6"):
        try:
            lines = (proc / "self" / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6 in this kernel
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and (protocol == "udp" or fields[3] == _TCP_LISTEN):
                inodes.add(fields[9])
    return inodes


def _has_descriptor(process: Path, targets: set[str]) -> bool:
    """Whether a process has one of these sockets open."""
    try:
        return any(str(link.readlink()) in targets for link in (process / "fd").iterdir())
    except OSError:  # it ended meanwhile, or is not ours to look into
        return False


def _command(process: Path) -> str:
    """The short name of a process."""
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"
