"""A machine for the agent, in a directory: sysfs as files, disks as plain files, tools real or played."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pxed.agent.host import Host, ToolError
from pxed.agent.options import Options
from support.image_server import TOKEN, ImageServer

MAC = "52:54:00:12:34:56"
REAL_TOOLS = ("sgdisk", "sfdisk")


class FakeMachine(Host):
    """What it says and runs is kept; only the tools that work on plain files are really run."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.said: list[str] = []
        self.ran: list[tuple[str, ...]] = []
        self.slept = 0.0
        self.play: Callable[[tuple[str, ...]], str] = self._unknown_tool
        for directory in (self.sys / "block", self.sys / "class/dmi/id", self.sys / "class/net", self.dev, self.proc):
            directory.mkdir(parents=True)

    def add_disk(
        self,
        name: str,
        length: int,
        *,
        content: bytes = b"",
        where: str = "pci0000:00/0000:00:04.0/virtio1",
        **values: object,
    ) -> Path:
        """A disk of the machine; `values` are files of its sysfs directory, with '__' for '/'."""
        directory = self.sys / "devices" / where / "block" / name
        directory.mkdir(parents=True)
        (self.sys / "block" / name).symlink_to(directory)
        defaults = {
            "size": length // 512,
            "removable": 0,
            "ro": 0,
            "queue__logical_block_size": 512,
            "device__model": "",
        }
        for key, value in {**defaults, **values}.items():
            path = directory / key.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{value}\n")
        disk = self.dev / name
        disk.write_bytes(content)
        with disk.open("r+b") as stream:
            stream.truncate(length)
        return disk

    def make_uefi(self) -> None:
        """From now on firmware is UEFI."""
        (self.sys / "firmware/efi").mkdir(parents=True)

    def options(self, server: ImageServer, token: str = TOKEN) -> Options:
        return Options(server.url, token, MAC)

    def say(self, text: str) -> None:
        self.said.append(text)

    def run(self, *command: str) -> str:
        self.ran.append(command)
        return super().run(*command) if command[0] in REAL_TOOLS else self.play(command)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def now(self) -> float:
        return time.monotonic() + self.slept

    @staticmethod
    def _unknown_tool(command: tuple[str, ...]) -> str:
        raise ToolError(f"{command[0]}: not found")


def make_gpt(path: Path, size: int, *partitions: str) -> None:
    """A GPT on a new file; a partition is sgdisk's "NUMBER:FIRST:LAST TYPE"."""
    with path.open("wb") as stream:
        stream.truncate(size)
    words = [
        f"--set-alignment=1 -n {place} -t {place.split(':')[0]}:{kind}" for place, kind in map(str.split, partitions)
    ]
    subprocess.run(["sgdisk", "-o", *" ".join(words).split(), str(path)], check=True, capture_output=True)
