"""A server with an image and machines that fetch it, on one bridge of network namespaces; all with real sockets."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from pxed.images.library import Library
from support.netns import Daemon, Namespace, Net

SERVER = "10.79.0.1"
MAIN = "from pxed.cli import main; main()"


class CastSite:
    """`pxed serve` on 10.79.0.1; `fetch` starts machines."""

    def __init__(self, net: Net, work: Path, disk: Path, machines: int, rate: str = "80Mbit") -> None:
        self.work = work
        self._switch = net.namespace("switch")
        self.server = net.namespace("server")
        self.machines = [net.namespace(f"machine {number}") for number in range(machines)]
        ports = []
        for number, namespace in enumerate([self.server, *self.machines]):
            ports.append(f"port{number}")
            net.link(self._switch, ports[-1], namespace, "eth0")
            namespace.address("eth0", f"10.79.0.{number + 1}/24")
        net.bridge(self._switch, "bridge0", *ports)
        with Library(work / "images") as library:
            self.image = library.import_image(disk, "room", image_format="raw").image.id
        (work / "tftp").mkdir()
        self._config = work / "pxed.toml"
        self._config.write_text(
            f'[server]\naddress = "{SERVER}"\nstate_dir = "{work}/state"\nsocket = "{work}/pxed.sock"\n'
            f'[tftp]\nroot = "{work}/tftp"\n[dhcp]\nenabled = false\n[images]\ndir = "{work}/images"\n'
            f'[cast]\nrate = "{rate}"\n'
        )
        self.daemon = self.start()

    def start(self) -> Daemon:
        """The server, ready to serve."""
        self.daemon = self.server.daemon(sys.executable, "-c", MAIN, "--config", str(self._config), "serve")
        self.daemon.wait_for("is ready")
        return self.daemon

    def fetch(self, number: int, path: Path, *options: str, around: tuple[str, ...] = ()) -> "Fetching":
        """A machine begins to fetch the image. `around`: the command in which it does."""
        return Fetching(self.machines[number], path, options, around)


class Fetching:
    """`pxed agent fetch --json` on one machine."""

    def __init__(self, machine: Namespace, path: Path, options: tuple[str, ...], around: tuple[str, ...]) -> None:
        self.path = path
        self.messages: list[str] = []
        words = ["agent", "fetch", "room", "--server", SERVER, "--to", str(path), "--json", *options]
        self.daemon = machine.daemon(*around, sys.executable, "-c", MAIN, *words)

    def next(self) -> tuple[str, Any]:
        """What it says next, as kind and value."""
        while not (line := self.daemon.line()).startswith("{"):
            pass
        ((kind, value),) = json.loads(line).items()
        if kind == "message":
            self.messages.append(value)
        return kind, value

    def wait_for(self, pattern: str) -> str:
        """The first message from now on that matches."""
        while True:
            kind, value = self.next()
            if kind == "message" and re.search(pattern, value):
                return str(value)
            assert kind != "result", f"it ended: {value}; {self.messages}"

    def wait_until(self, share: float) -> None:
        """Until so much of the disk is laid down."""
        while True:
            kind, value = self.next()
            if kind == "progress" and value["total"] and value["done"] >= share * value["total"]:
                return
            assert kind != "result", f"it ended: {value}"

    def result(self) -> dict[str, Any]:
        """The end."""
        while True:
            kind, value = self.next()
            if kind == "result":
                return dict(value)
