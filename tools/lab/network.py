"""One Ethernet segment: a switch namespace with a bridge, host namespaces on it, taps for virtual machines.

All namespaces are anonymous (`unshare -n`, entered by pid): they vanish with the processes that hold them.
"""

import contextlib
import json
import subprocess
from pathlib import Path

from lab.proc import run, spawn, stop

_HOLD = ["sh", "-c", "echo ready; exec sleep infinity"]


class Namespace:
    """An anonymous network namespace, held open by a sleeping process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = spawn(["unshare", "-n", "--", *_HOLD], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        self._holder.stdout.readline()  # the namespace exists once the holder speaks
        self.pid = self._holder.pid
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *argv: str | Path) -> str:
        """Run a command inside, to its end."""
        return run(argv, netns_pid=self.pid)

    def close(self) -> None:
        """Let the namespace go, with every interface in it."""
        stop(self._holder)


class Segment:
    """A bridge and the hosts on it. Use as a context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.switch = self._namespace("switch")
        self.switch.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        self.switch.run("ip", "link", "set", "br0", "up")
        self._ports = 0
        self._port_of: dict[Namespace, str] = {}

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._stack.callback(namespace.close)
        return namespace

    def host(self, name: str, address: str) -> Namespace:
        """A host with one interface `eth0` on the segment; `address` is ADDR/PREFIX."""
        host = self._namespace(name)
        self._ports += 1
        port = self._port_of[host] = f"port{self._ports}"
        self.switch.run(
            "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)
        )  # fmt: skip
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "address", "add", address, "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def sent(self, host: Namespace) -> int:
        """Bytes that a host has put on the wire, headers included."""
        (link,) = json.loads(self.switch.run("ip", "-json", "-statistics", "link", "show", "dev", self._port_of[host]))
        return int(link["stats64"]["rx"]["bytes"])

    def tap(self) -> str:
        """A tap interface on the bridge, for a virtual machine that is started in `switch`."""
        self._ports += 1
        tap = f"tap{self._ports}"
        self.switch.run("ip", "tuntap", "add", tap, "mode", "tap")
        self.switch.run("ip", "link", "set", tap, "master", "br0", "up")
        return tap


class SiteDhcp:
    """The site's own DHCP server: dnsmasq as plain DHCP, without boot options."""

    def __init__(self, host: Namespace, directory: Path, first: str, last: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "dnsmasq.log"
        self._process = spawn(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
                "--bind-interfaces", f"--dhcp-range={first},{last},1h", "--dhcp-authoritative", "--no-ping",
                f"--dhcp-leasefile={directory}/leases", f"--pid-file={directory}/dnsmasq.pid", "--user=root",
                "--log-dhcp", f"--log-facility={self.log}",
            ],
            netns_pid=host.pid, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def close(self) -> None:
        """Stop the DHCP server."""
        stop(self._process)
