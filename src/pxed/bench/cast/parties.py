"""Who sends and receives in a room: pxed, and the programs that others use for it."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pxed.bench.cast.plan import Plan, Role
from pxed.bench.cast.room import INTERFACE, SERVER, Room
from pxed.bench.lab import own_version
from pxed.bench.peers import MULTICAST, find_package
from pxed.images.library import Library

__all__ = ["PARTIES", "Disk", "Launch", "Party"]

_IMAGE = "room"
_MAIN = "from pxed.cli import main; main()"
_PXED = (sys.executable, "-c", _MAIN)


class Disk(NamedTuple):
    """Where a receiver's files are."""

    directory: Path
    rate: int  # bytes/s that it takes; 0: as fast as it can

    @property
    def file(self) -> Path:
        """What is received."""
        return self.directory / "data.bin"


class Launch(NamedTuple):
    """A program, and another that takes what it prints. done: whether it has all; None: when it ends."""

    command: list[str]
    into: list[str] | None = None
    done: Callable[[], bool] | None = None


class Party(ABC):
    """How one of them is used. A party is made once, and opened for each play."""

    title: str
    version: str
    ready = ""  # what a daemon says when it can be asked; other senders begin when the first receivers are there

    def __init__(self, plan: Plan, content: Path, note: Callable[[str], None]) -> None:
        """content: the file that is sent."""
        self.plan, self.content = plan, content

    def refusal(self, role: Role) -> str:
        """Why this cannot happen to it; empty where it can."""
        return ""

    @abstractmethod
    def sender(self, room: Room, work: Path, wanted: list[int]) -> list[str]:
        """What runs at the server; `wanted`: the receivers that are there when it begins."""

    @abstractmethod
    def receiver(self, disk: Disk) -> Launch:
        """What runs at a receiver."""

    def again(self, log: str) -> float | None:
        """What a receiver that was started a second time fetched, as a share of the image, from what it said."""
        return None


class Pxed(Party):
    """`pxed serve` and `pxed agent fetch`."""

    title = "pxed"
    ready = "is ready"

    def __init__(self, plan: Plan, content: Path, note: Callable[[str], None]) -> None:
        super().__init__(plan, content, note)
        self.version = own_version()
        self._images = content.parent / "images"
        note("importing the image")
        with Library(str(self._images)) as library:
            library.import_image(content, _IMAGE, image_format="raw")

    def sender(self, room: Room, work: Path, wanted: list[int]) -> list[str]:
        """The server; who is there does not matter to it."""
        config = work / "pxed.toml"
        config.write_text(
            f'[server]\naddress = "{SERVER}"\nstate_dir = "{work}/state"\nsocket = "{work}/pxed.sock"\n'
            f'[server.rates]\n{INTERFACE} = "{self.plan.line / 1e6:g}Mbit"\n'
            f'[log]\nlevel = "warning"\n[tftp]\nroot = "{work}"\n[dhcp]\nenabled = false\n'
            f'[images]\ndir = "{self._images}"\n[cast]\nrate = "{self.plan.rate / 1e6:g}Mbit"\n'
        )
        return [*_PXED, "--config", str(config), "serve"]

    def receiver(self, disk: Disk) -> Launch:
        """It ends when every byte is verified and on the disk."""
        fetch = ["agent", "fetch", _IMAGE, "--server", SERVER, "--to", str(disk.file), "--json"]
        if disk.rate:
            slow = f"from pxed.bench.cast.slow import slow_agent; slow_agent({disk.rate}); {_MAIN}"
            return Launch([sys.executable, "-c", slow, *fetch])
        return Launch([*_PXED, *fetch])

    def again(self, log: str) -> float | None:
        """Chunks that it had not on its disk."""
        with suppress(msgspec.DecodeError, IndexError):
            result = msgspec.json.decode(log.splitlines()[-1], type=_Last).result
            return 1 - result.chunks_resumed / result.chunks
        return None


class _Result(Struct):
    """Of what `pxed agent fetch --json` says at its end."""

    chunks: int
    chunks_resumed: int


class _Last(Struct):
    """Its last line."""

    result: _Result


class Udpcast(Party):
    """`udp-sender` and `udp-receiver`. It is told how many receivers to wait for, as rollouts do."""

    title = "udpcast"

    def __init__(self, plan: Plan, content: Path, note: Callable[[str], None]) -> None:
        super().__init__(plan, content, note)
        self._sender, self._receiver = (find_package(one, self.title, note=note) for one in MULTICAST[self.title])
        self.version = self._sender.version

    def sender(self, room: Room, work: Path, wanted: list[int]) -> list[str]:
        """It begins when all that are wanted are there."""
        return [
            *self._sender.command, "--file", str(self.content), "--interface", INTERFACE, "--nokbd", "--no-progress",
            "--max-bitrate", f"{self.plan.rate / 1e6:g}m", "--min-receivers", str(len(wanted)),
        ]  # fmt: skip

    def receiver(self, disk: Disk) -> Launch:
        """A slow disk is a slow reader of its pipe."""
        command = [*self._receiver.command, "--interface", INTERFACE, "--nokbd", "--no-progress"]
        if not disk.rate:
            return Launch([*command, "--file", str(disk.file)])
        drain = [sys.executable, "-m", "pxed.bench.cast.slow", str(disk.rate), str(disk.file)]
        return Launch(command, into=drain)


class Uftp(Party):
    """`uftp` and `uftpd`, at a fixed rate. It is told who the receivers are, and begins when all have answered."""

    title = "uftp"

    def __init__(self, plan: Plan, content: Path, note: Callable[[str], None]) -> None:
        super().__init__(plan, content, note)
        self._sender, self._receiver = (find_package(one, self.title, note=note) for one in MULTICAST[self.title])
        self.version = self._sender.version

    def refusal(self, role: Role) -> str:
        """It writes its files itself."""
        return "its disk cannot be slowed down here" if role.disk else ""

    def sender(self, room: Room, work: Path, wanted: list[int]) -> list[str]:
        """A receiver's id is its address."""
        ids = ["0x" + "".join(f"{int(part):02X}" for part in room.address(number).split(".")) for number in wanted]
        return [
            *self._sender.command, "-R", f"{self.plan.rate / 1e3:.0f}", "-I", INTERFACE, "-H", ",".join(ids),
            str(self.content),
        ]  # fmt: skip

    def receiver(self, disk: Disk) -> Launch:
        """A daemon; a file that is whole gets its name."""
        command = [*self._receiver.command, "-d", "-q", "-t", "-I", INTERFACE, "-D", str(disk.directory)]
        return Launch(command, done=disk.file.exists)


PARTIES: dict[str, type[Party]] = {party.title: party for party in (Pxed, Udpcast, Uftp)}
