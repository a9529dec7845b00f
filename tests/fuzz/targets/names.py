"""Names that machines ask for: nothing outside of what is served, scripts where scripts are due, facts on one line."""

import asyncio
import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from fuzz.source import Source
from pxed.agent import options, uefi
from pxed.agent.failure import AgentFailure
from pxed.boot import scripts
from pxed.config import Config, Dhcp, Environment, Server, Tftp
from pxed.service.names import BytesContent, FileContent, Names, NotFound, Via
from pxed.service.peers import Peers
from pxed.types import Verdict
from pxed.work.identity import clean, mac_text, uuid_text
from support.machines import Machines

CHECK = (
    b"pxed/check/mac-52-54-00-12-34-56/uuid-12345678-9abc-def0-1234-56789abcdef0/serial-S%2f1/mfr-ACME/product-P%20x"
)
COMMAND_LINE = b"pxed.server=http://10.78.0.1 pxed.token=t BOOTIF=01-52-54-00-12-34-56 pxed.debug=1 quiet"
ENTRIES = b"BootCurrent: 0003\nBootOrder: 0003,0000\nBoot0000* disk\tHD(1,GPT)\nBoot0003* UEFI PXEv4\tPciRoot(0x0)"
WORDS = (
    b"pxed/check/", b"mac-", b"uuid-", b"serial-", b"mfr-", b"product-", b"pxed/environment/", b"pxed/boot.ipxe",
    b"../", b"%2e%2e%2f", b"..\\", b"undionly.kpxe", b"folder/inside.efi", b"secret", b"link-out", b"%00", b"%ff",
    b"pxed.server=http://", b"BOOTIF=01-",
)  # fmt: skip
TFTP, HTTP, COMMANDS = range(3)


class House:
    """A folder that is served, one that is not, and the resolver over a stand-in for machines and jobs."""

    def __init__(self) -> None:
        top = Path(tempfile.mkdtemp(prefix="pxed-fuzz-"))
        atexit.register(shutil.rmtree, top, ignore_errors=True)
        for name in ("root/folder", "environment", "programs"):
            (top / name).mkdir(parents=True)
        served = ("root/a.efi", "root/folder/inside.efi", "environment/vmlinuz", "environment/initramfs.cpio.zst",
                  "programs/undionly.kpxe")  # fmt: skip
        for name in (*served, "secret", "programs/not-configured"):
            (top / name).write_text(name)
        (top / "root/link-out").symlink_to("../secret")
        (top / "root/link-in").symlink_to("a.efi")
        self.served = {(top / name).stat().st_ino for name in served}
        config = Config(
            server=Server("10.78.0.1"),
            tftp=Tftp(str(top / "root")),
            dhcp=Dhcp(boot_program_dir=str(top / "programs")),
            environment=Environment(dir=str(top / "environment")),
        )
        self.machines = Machines(Verdict.HOLD, "Held for an operator.")
        self.loop = asyncio.new_event_loop()
        atexit.register(self.loop.close)
        machines = cast(Any, self.machines)
        self.names = Names(config, machines, Peers(), lambda _peer: "10.78.0.1", clock=lambda: 1e9)

    def ask(self, name: bytes, via: Via, probe: bool) -> None:
        """One name; what comes of it must be of this house."""
        asked: str | bytes = os.fsdecode(name) if via == "tftp" else name.decode("latin-1")
        content = self.loop.run_until_complete(self.names.open(asked, via=via, peer="10.78.0.50", probe=probe))
        if isinstance(content, FileContent):
            inode, size = os.fstat(content.fd).st_ino, content.size
            os.close(content.fd)
            assert inode in self.served
            self.names.delivered(asked, via=via, peer="10.78.0.50", size=size, seconds=0.1)
        elif isinstance(content, BytesContent):
            assert content.data.startswith(b"#!ipxe\n") or probe
        else:
            assert isinstance(content, NotFound) and content.reason
        for event in self.machines.events:
            assert event.text.isprintable(), event
        self.machines.events.clear()
        self.machines.sightings.clear()


_house: list[House] = []


def seeds() -> dict[str, bytes]:
    """Names in every protocol, the agent's command line, what efibootmgr prints."""
    names = (CHECK, b"/pxed/boot.ipxe", b"pxed/environment/vmlinuz", b"a.efi", b"folder\\inside.efi", b"//./link-out",
             b"../secret", b"undionly.kpxe", b"not-configured", b"pxed/check/mac-/uuid-/x")  # fmt: skip
    found = {f"{via}-{n}": bytes((via, n & 1)) + name for via in (TFTP, HTTP) for n, name in enumerate(names)}
    found |= {"command-line": bytes((COMMANDS,)) + COMMAND_LINE, "entries": bytes((COMMANDS,)) + ENTRIES}
    return found


def one(data: bytes) -> None:
    """A name over TFTP or HTTP, or text that the agent reads."""
    source = Source(data)
    kind = source.pick((TFTP, HTTP, COMMANDS))
    if kind == COMMANDS:
        _agent_text(source.rest().decode("utf-8", "replace"))
        return
    if not _house:
        _house.append(House())
    probe = bool(source.number(1) & 1)
    name = source.rest()
    _house[0].ask(name, "tftp" if kind == TFTP else "http", probe)
    _check_name(os.fsdecode(name))


def _check_name(name: str) -> None:
    identity = scripts.parse_check_name(name)
    if identity is None:
        return
    known = clean(identity)
    assert clean(known) == known
    assert all(text.isprintable() and len(text) <= 64 for text in (known.serial, known.manufacturer, known.product))
    assert scripts.parse_check_name(scripts.check_name(known)) == known


def _agent_text(text: str) -> None:
    try:
        found = options.parse(text)
        assert found.server.startswith("http://") and found.token
        assert found.mac == "" or len(found.mac) == 17
    except AgentFailure as failure:
        assert str(failure)
    order = uefi.parse_entries(text)
    assert all(len(number) == 4 for number in order.entries)
    mac, uuid = mac_text(text), uuid_text(text)
    assert mac_text(mac) == mac and uuid_text(uuid) == uuid
