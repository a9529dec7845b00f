"""A TftpService on loopback ports in a thread of its own, serving one directory, for tests with real clients."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from pxed._ext.files import open_beneath
from pxed.service.names import BytesContent, Content, FileContent, NotFound
from pxed.service.tftp import TftpService
from support.tftp_sim import ack, is_data, number, rrq


class Directory:
    """Names of one directory. `made` holds content that is no file; `delivered_names` what went out whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, bytes] = {}
        self.delivered_names: list[tuple[str, str, int]] = []
        self.asked: list[tuple[str, str, str]] = []

    async def open(self, name: str, *, via: str, peer: str, local: str = "") -> Content:
        self.asked.append((name, peer, local))
        if name in self.made:
            return BytesContent(self.made[name])
        if name == "broken":
            raise RuntimeError("a bug in the names")
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        try:
            fd = open_beneath(root, name)
        except FileNotFoundError as error:
            return NotFound(str(error))
        finally:
            os.close(root)
        return FileContent(fd, 0, 0)

    def delivered(self, name: str, *, via: str, peer: str, size: int, seconds: float) -> None:
        self.delivered_names.append((name, peer, size))


class Running:
    """A running service. `call` runs something on its loop."""

    def __init__(self, root: Path, addresses: tuple[str, ...], threads: int = 1, port: int = 0, **more: Any) -> None:
        self.names = Directory(root)
        self.root = root
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.service = TftpService(addresses, port, self.names, threads=threads, **more)
        self.service.open()
        self.port = self.service.bound[0][1]
        self.loop.call_soon_threadsafe(self.service.start)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def statistics(self) -> dict[str, int]:
        async def read() -> dict[str, int]:
            return self.service.statistics

        return self.call(read())

    def wait_until(self, condition: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Poll the counters, for the little that no event tells; a minute at most."""

        async def poll() -> dict[str, int]:
            while not condition(figures := self.service.statistics):
                await asyncio.sleep(0.005)
            return figures

        return self.call(poll())

    def stop(self) -> None:
        try:
            self.call(self.service.stop())
            self.call(self.loop.shutdown_default_executor())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


class Socket:
    """A UDP socket that says packets by hand."""

    def __init__(self, address: str, port: int) -> None:
        self.server = (address, port)
        self.sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(30)

    def send(self, datagram: bytes) -> None:
        self.sock.sendto(datagram, self.server)

    def receive(self) -> bytes:
        """The next datagram, which must come from the address and port that were asked."""
        datagram, peer = self.sock.recvfrom(65536)
        assert peer[:2] == self.server
        return datagram

    def close(self) -> None:
        self.sock.close()


def fetch(sock: Socket, name: str, blocks: int) -> bytes:
    """The first blocks, lock-step at 512 bytes; the transfer stays open."""
    sock.send(rrq(name))
    received = b""
    for block in range(1, blocks + 1):
        datagram = sock.receive()
        assert is_data(datagram), datagram
        assert number(datagram) == block
        received += datagram[4:]
        if block < blocks:
            sock.send(ack(block))
    return received


def go_on(sock: Socket, block: int, last: int = 0) -> bytes:
    """The rest, from the block behind `block`; or only up to block `last`, which is not acknowledged then."""
    received = b""
    size = 0
    while True:
        sock.send(ack(block))
        datagram = sock.receive()
        while number(datagram) != (block + 1) % 65536:  # sent again while we were slow
            datagram = sock.receive()
        received += datagram[4:]
        size = max(size, len(datagram), 516)
        block += 1
        if block == last:
            return received
        if len(datagram) < size:
            sock.send(ack(block))
            return received
