"""The same names over TFTP and over boot HTTP, asked by curl on both; and the check of a client that has only TFTP."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pxed.config import Config, Dhcp, Environment, Server, Tftp
from pxed.service.http import MachineHttp
from pxed.service.names import Names
from pxed.service.peers import Peers
from pxed.service.tftp import TftpService
from pxed.types import Event
from support.loop import LoopThread
from support.machines import TOKEN, Machines

MAC = "52:54:00:00:00:07"
CHECK = "pxed/check/mac-52-54-00-00-00-07/uuid-/serial-S12X/mfr-Acme/product-Box"


class House:
    """TFTP and HTTP on loopback over one `Names`."""

    def __init__(self, directory: Path, loop: LoopThread) -> None:
        self.root, self.environment = directory / "root", directory / "environment"
        for path in (self.root / "efi", self.environment, directory / "programs"):
            path.mkdir(parents=True)
        (self.environment / "vmlinuz").write_bytes(b"kernel" * 1000)
        (self.environment / "initramfs.cpio.zst").write_bytes(b"initramfs" * 10_000)
        (self.root / "efi/shim.efi").write_bytes(b"shim" * 5000)
        (directory / "programs/undionly.kpxe").write_bytes(b"undi" * 2000)
        (directory / "secret").write_bytes(b"secret")
        (self.root / "out").symlink_to("../secret")
        self.machines = Machines()
        self.machines.note = self._note  # type: ignore[method-assign]
        self._changed = threading.Condition()
        config = Config(
            server=Server("127.0.0.1"),
            tftp=Tftp(str(self.root)),
            dhcp=Dhcp(boot_program_dir=str(directory / "programs")),
            environment=Environment(dir=str(self.environment)),
        )
        peers = Peers()
        peers.learn("127.0.0.1", MAC)
        machines = cast(Any, self.machines)
        names = Names(config, machines, peers, lambda _peer: "127.0.0.1")
        self._http = MachineHttp(("127.0.0.1",), 0, names, machines, cast(Any, None))
        self._tftp = TftpService(("127.0.0.1",), 0, names)
        self._loop = loop
        for service in (self._http, self._tftp):
            service.open()
            loop.call(service.start)

    def close(self) -> None:
        async def stop() -> None:
            await asyncio.gather(self._http.stop(), self._tftp.stop())

        self._loop.run(stop())

    def _note(self, event: Event) -> None:
        with self._changed:
            self.machines.events.append(event)
            self._changed.notify_all()

    def told(self, start: str) -> str:
        """Wait for a line of the timeline that begins so."""
        with self._changed:
            texts = lambda: [event.text for event in self.machines.events if event.text.startswith(start)]  # noqa: E731
            assert self._changed.wait_for(texts, 60), self.machines.events
            return texts()[-1]

    def get(self, via: str, path: str) -> bytes | None:
        """What is under a name; None when there is nothing."""
        if via == "http":
            url = f"http://127.0.0.1:{self._http.ports[0]}/{path}"
        else:
            url = f"tftp://127.0.0.1:{self._tftp.bound[0][1]}/{path}"
        command = ["curl", "-sS", "--fail", "--path-as-is", "--max-time", "60", url]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode in (0, 22, 68), done.stderr  # 22: HTTP's error, 68: TFTP's "not found"
        return done.stdout if done.returncode == 0 else None


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with LoopThread() as loop:
        made = House(tmp_path, loop)
        yield made
        made.close()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("efi/shim.efi", b"shim" * 5000),
        ("/efi//shim.efi", b"shim" * 5000),
        (r"efi\shim.efi", b"shim" * 5000),
        ("undionly.kpxe", b"undi" * 2000),
        ("pxed/environment/vmlinuz", b"kernel" * 1000),
        ("pxed/environment/initramfs.cpio.zst", b"initramfs" * 10_000),
        ("../secret", None),
        ("efi/../../secret", None),
        ("out", None),
        ("nothing", None),
        ("pxed/environment/nothing", None),
    ],
)
def test_a_name_is_the_same_both_ways(house: House, name: str, wanted: bytes | None) -> None:
    assert house.get("http", name) == wanted
    assert house.get("tftp", name) == wanted


def test_scripts_stay_with_the_protocol_that_they_came_by(house: House) -> None:
    for via in ("http", "tftp"):
        first = house.get(via, "pxed/boot.ipxe")
        assert first is not None
        assert f" {via}://127.0.0.1/pxed/check/".encode() in first
        work = house.get(via, CHECK)
        assert work is not None
        assert f"kernel {via}://127.0.0.1/pxed/environment/vmlinuz pxed.server=http://127.0.0.1 ".encode() in work
        assert f"pxed.token={TOKEN} ".encode() in work
    assert {identity.serial for identity, _ in house.machines.sightings} == {"S12X"}


def test_each_download_is_one_line_of_the_timeline(house: House) -> None:
    for via in ("http", "tftp"):
        for name, start in (
            ("undionly.kpxe", "undionly.kpxe fetched over"),
            ("pxed/environment/vmlinuz", "kernel fetched over"),
            ("pxed/environment/initramfs.cpio.zst", "initramfs fetched completely over"),
        ):
            house.get(via, name)
            house.told(f"{start} {via.upper()}")
    assert len(house.machines.events) == 6
