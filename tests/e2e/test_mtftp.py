"""iPXE's own clients of multicast in virtual machines: `mtftp://` takes one stream for all, `tftm://` gets its file."""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import Hardware, Machine
from lab.network import Segment
from lab.server import Server
from support.site import BOOT, SOON

IPXE = Path("/usr/lib/ipxe/ipxe.lkrn")
US = "10.78.0.1"
CONFIG = "[dhcp]\nenabled = false\n[mtftp]\nenabled = true\n"
LINES = 25_000

# Polls for a file, so that all machines begin at the same moment; `chain` runs what it loaded, and comes back.
SCRIPT = """\
#!ipxe
set net0/ip 10.78.0.{number}
set net0/netmask 255.255.255.0
ifopen net0
echo lab: ready
:wait
imgfetch --name go tftp://{us}/go || goto wait
imgfree
chain --autofree {url} || echo lab: failed
"""


def counting(say: str) -> bytes:
    """A large iPXE script that counts some of its lines, and says how many there were: it has to be there as a whole,
    and in order."""
    words = random.Random(5)
    lines = [f"# {words.randbytes(24).hex()}" if i % 100 else "inc lines" for i in range(LINES)]
    return "\n".join(["#!ipxe", "set lines:int32 0", *lines, f"echo lab: {say} ${{lines}} lines", ""]).encode()


class Room:
    """A server without DHCP, and machines that run iPXE with a script from their own disk drawer."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self._segment = stack.enter_context(Segment())
        environment = directory / "environment"
        environment.mkdir()
        self.kernel = counting("mtftp:")
        (environment / "vmlinuz").write_bytes(self.kernel)
        self.server = Server(self._segment.host("pxed", f"{US}/24"), directory, US, environment, CONFIG)
        self.root = directory / "tftp"
        stack.callback(self.server.close)
        self.server.start()
        self.machines: list[Machine] = []

    def machine(self, url: str) -> Machine:
        """One that is on, and will load `url`."""
        number = 101 + len(self.machines)
        script = self._directory / f"script{number}"
        script.write_text(SCRIPT.format(number=number, us=US, url=url))
        disk = self._directory / f"disk{number}"
        disk.write_bytes(bytes(1 << 20))
        hardware = Hardware(
            name=f"ipxe{number}", firmware="bios", mac=f"52:54:00:78:02:{number - 100:02x}", disk=disk, memory=128,
            uuid=f"5d7c1f0e-0000-4000-8000-{number:012d}", serial="",
            extra=("-kernel", str(IPXE), "-initrd", str(script)),
        )  # fmt: skip
        machine = Machine(hardware, self._segment, self._directory)
        self._stack.callback(machine.power_off)
        self.machines.append(machine)
        machine.power_on()
        return machine

    def begin(self) -> None:
        """Now that all are ready."""
        for machine in self.machines:
            machine.wait_for("lab: ready", BOOT)
        (self.root / "go").write_bytes(b"go")

    def sent(self) -> int:
        """Bytes that left the server."""
        (link,) = json.loads(self.server.host.run("ip", "-json", "-statistics", "link", "show", "dev", "eth0"))
        return int(link["stats64"]["tx"]["bytes"])

    def show(self) -> None:
        for machine in self.machines:
            print(f"== {machine.hardware.name}\n{machine.tail(60)}")
        print(f"== pxed\n{self.server.tail(100)}")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with contextlib.ExitStack() as stack:
        room = Room(tmp_path, stack)
        yield room
        room.show()


def test_ipxe_loads_by_multicast(room: Room) -> None:
    """Two machines take one stream by `mtftp://`; `tftm://`, which takes no multicast, gets its file too: two of
    them at once, the first as the master of its group, the other while it is found out beside it."""
    (room.root / "file").write_bytes(counting("tftm:"))
    both = [room.machine(f"mtftp://{US}:1760/pxed/environment/vmlinuz") for _ in range(2)]
    room.begin()
    before = room.sent()
    for machine in both:
        machine.wait_for(r"lab: mtftp: 250 lines", SOON)
    sent = room.sent() - before
    assert sent < 1.6 * len(room.kernel)
    assert room.server.counters()["tftp.mtftp.unicast_bytes"] == 0
    deaf = [room.machine(f"tftm://{US}/file") for _ in range(2)]
    for machine in deaf:
        machine.wait_for(r"lab: tftm: 250 lines", BOOT)
    counters = room.server.counters()
    assert (counters["tftp.multicast.outcome.ok"], counters["tftp.multicast.deaf"]) == (2, 2)
