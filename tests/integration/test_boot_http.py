"""One machine's way over boot HTTP, from the check to the end of its job, with real records and a real image."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blake3
import pytest
import zstandard

from pxed.config import Config, Dhcp, Environment, Server, Tftp, Transaction
from pxed.images.library import Library
from pxed.images.manifest import Manifest
from pxed.service.http import MachineHttp
from pxed.service.names import Names
from pxed.service.peers import Peers
from pxed.service.transactions import Transactions
from pxed.types import JobState
from support.loop import LoopThread

MAC = "52:54:00:00:00:07"
CHECK = f"pxed/check/mac-{MAC.replace(':', '-')}/uuid-/serial-/mfr-/product-"
MIB = 1 << 20


class House:
    """Boot HTTP on loopback over real records and a real library."""

    def __init__(self, directory: Path, loop: LoopThread) -> None:
        self.loop = loop
        environment = directory / "environment"
        for path in (directory / "root", environment):
            path.mkdir()
        (environment / "vmlinuz").write_bytes(b"kernel")
        (environment / "initramfs.cpio.zst").write_bytes(b"initramfs")
        self.disk = directory / "disk.img"
        self.disk.write_bytes(b"A" * MIB + bytes(2 * MIB) + b"B" * MIB)
        self.library = Library(directory / "images")
        self.image = self.library.import_image(self.disk, "demo").image
        config = Config(
            server=Server("127.0.0.1", state_dir=str(directory)),
            tftp=Tftp(str(directory / "root")),
            dhcp=Dhcp(boot_program_dir="/nonexistent"),
            environment=Environment(dir=str(environment)),
            transaction=Transaction(unknown_machines="boot"),
        )
        self.transactions = loop.run(Transactions.open(config))
        names = Names(config, self.transactions, Peers(), lambda _peer: "127.0.0.1")
        self.server = MachineHttp(("127.0.0.1",), 0, names, self.transactions, self.library)
        self.server.open()
        loop.call(self.server.start)

    def close(self) -> None:
        self.loop.run(self.server.stop())
        self.loop.run(self.transactions.close())
        self.library.close()

    def get(self, path: str, *arguments: str) -> bytes:
        url = f"http://127.0.0.1:{self.server.ports[0]}/{path}"
        done = subprocess.run(["curl", "-sS", "--fail", "--max-time", "60", *arguments, url], capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def post(self, call: str, body: dict[str, Any], *arguments: str) -> Any:
        return json.loads(self.get(f"pxed/agent/{call}", "--data", json.dumps(body), *arguments))

    def timeline(self) -> list[tuple[str, str]]:
        machine = self.transactions.find_machine(MAC)
        return [(event.kind, event.text) for event in self.loop.run(self.transactions.history(machine.id))]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with LoopThread() as loop:
        made = House(tmp_path, loop)
        yield made
        made.close()


def test_from_the_check_to_the_end(house: House) -> None:
    script = house.get(CHECK).decode()
    assert "sanboot" in script, "a new machine without a job boots its disk"

    machine = house.transactions.find_machine(MAC)
    job = house.loop.run(house.transactions.create_job(machine, house.image.id, "demo"))
    script = house.get(CHECK).decode()
    found = re.search(r"pxed\.token=(\S+)", script)
    assert found
    assert house.get(CHECK).decode() == script, "the token stays the same until it is claimed"
    for name in ("vmlinuz", "initramfs.cpio.zst"):
        house.get(f"pxed/environment/{name}")

    identity = {"mac": MAC, "uuid": "", "serial": "", "manufacturer": "", "product": ""}
    answer = house.post("claim", {"token": found[1], "agent": "a1", "identity": identity})
    assert answer["image"] == house.image.id
    bearer = ("--header", f"Authorization: Bearer {answer['run']}")
    assert house.post("report", {"step": "restore", "percent": 10.0}, *bearer) == {"stop": ""}

    path = f"pxed/image/{house.image.id}"
    manifest = Manifest.decode(house.get(f"{path}/manifest", *bearer), house.image.id)
    layout = memoryview(house.get(f"{path}/layout", *bearer)).cast("I")
    data = house.get(f"{path}/data", *bearer, "--range", f"0-{sum(layout) - 1}")
    pieces, at = [], 0
    for length in layout:
        pieces.append(zstandard.ZstdDecompressor().decompress(data[at : at + length]))
        at += length
    assert b"".join(pieces) == b"A" * MIB + b"B" * MIB
    assert blake3.blake3(pieces[0]).digest() in house.get(f"{path}/manifest", *bearer)
    assert manifest.size == 4 * MIB

    assert house.post("finish", {"ok": True, "step": "finish"}, *bearer) == {"then": "reboot"}
    assert house.transactions.job(job.id).state is JobState.SUCCEEDED
    assert "sanboot" in house.get(CHECK).decode(), "done exactly once"
    told = house.timeline()
    kinds = [kind for kind, _ in told]
    assert kinds.index("check") < kinds.index("claim")
    texts = [text for _, text in told]
    assert any(text.startswith("kernel fetched over HTTP") for text in texts)
    assert any(text.startswith("initramfs fetched completely over HTTP") for text in texts)
    assert sum(text.endswith("Boots its own disk.") for text in texts) == 2


def test_a_hundred_checks_at_once(house: House) -> None:
    """A rack asks at the same moment: every machine has its answer, and its own."""
    urls = [
        f"http://127.0.0.1:{house.server.ports[0]}/pxed/check/mac-52-54-00-00-01-{i:02x}/uuid-/serial-S{i}/mfr-/product-"
        for i in range(100)
    ]
    command = ["curl", "-sS", "--fail", "--parallel", "--parallel-max", "100", *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("#!ipxe") == 100
    assert len(house.transactions.machines()) == 100
