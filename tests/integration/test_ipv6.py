"""`pxed serve` on an IPv6 address beside its IPv4 one, asked by curl on another host of the same segment."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.environment import PXED
from lab.network import Namespace, Segment
from lab.server import Server

pytestmark = pytest.mark.root

MAC = "52:54:00:78:06:01"
CHECK = f"pxed/check/mac-{MAC.replace(':', '-')}/uuid-/serial-X6/mfr-pxed/product-lab"
FILE = bytes(range(256)) * 5000


class Site:
    """A server with both families, and a host that asks it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        segment = stack.enter_context(Segment())
        host, self.client = _both(segment, "pxed", 1), _both(segment, "client", 2)
        environment = directory / "environment"
        environment.mkdir()
        for name in ("vmlinuz", "initramfs.cpio.zst"):  # served, never booted here
            (environment / name).write_bytes(name.encode() * 1000)
        self.server = Server(host, directory, ["10.78.0.1", "FD78:0::1"], environment)
        stack.callback(self.server.close)
        (directory / "tftp/file").write_bytes(FILE)

    def curl(self, url: str) -> bytes:
        """What the other host gets from a URL."""
        inside = ["nsenter", "-t", str(self.client.pid), "-n"]
        command = [*inside, "curl", "-sS", "--globoff", "--noproxy", "*", "--max-time", "60", "--fail", url]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def check(self) -> set[str]:
        """The kinds of what `pxed check` finds on the server's host."""
        inside = ["nsenter", "-t", str(self.server.host.pid), "-n"]
        command = [*inside, PXED, "--config", self.server.config, "check", "--no-probe", "--json"]
        done = subprocess.run(command, capture_output=True)
        return {finding["kind"] for finding in json.loads(done.stdout)["findings"]}


def _both(segment: Segment, name: str, number: int) -> Namespace:
    host = segment.host(name, f"10.78.0.{number}/24")
    host.run("ip", "address", "add", f"fd78::{number}/64", "dev", "eth0", "nodad")
    return host


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def test_a_machine_is_served_over_ipv6(site: Site) -> None:
    server = site.server
    assert not site.check() & {"config", "address", "port"}
    disk = server.directory / "golden.raw"
    disk.write_bytes(FILE[: 1 << 20])
    server.pxed("image", "import", disk, "--name", "golden", "--format", "raw")
    server.start()
    server.pxed("machine", "add", "--mac", MAC, "--name", "pc-6")
    for base in ("tftp://[fd78::1]", "http://[fd78::1]", "tftp://10.78.0.1", "http://10.78.0.1"):
        assert site.curl(f"{base}/file") == FILE
        assert f"{base}/pxed/check/".encode() in site.curl(f"{base}/pxed/boot.ipxe")
    server.pxed("job", "add", "--machine", "pc-6", "--image", "golden")
    for base in ("tftp://[fd78::1]", "http://[fd78::1]"):
        script = site.curl(f"{base}/{CHECK}").decode()
        assert f"kernel {base}/pxed/environment/vmlinuz " in script
        assert " pxed.server=http://10.78.0.1 " in script  # the environment has its address from DHCP
    assert site.curl("http://[fd78::1]/pxed/environment/vmlinuz") == b"vmlinuz" * 1000
    timeline = server.pxed("machine", "show", "pc-6")  # the check said whose the address is
    assert "kernel fetched over HTTP" in timeline
    assert '"peer": "fd78::2"' in server.log.read_text()
    assert not site.check() & {"config", "address", "port"}  # the ports' holder is known


def test_a_server_whose_ipv6_address_is_missing_says_so(site: Site) -> None:
    site.server.host.run("ip", "address", "del", "fd78::1/64", "dev", "eth0")
    assert "address" in site.check()
    with pytest.raises(RuntimeError, match=r"server\.address fd78::1 is not an address of this machine"):
        site.server.start()
