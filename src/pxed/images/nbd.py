"""Reading a virtual disk file (qcow2, vmdk, vhdx …) through qemu-nbd: no root, no temporary raw copy.

qemu-nbd of the qemu-utils package opens the file read-only and serves it over a unix socket that only this process
knows; it is given the listening socket (systemd's socket activation), so nothing is waited for and nothing is left
in the file system, and it ends by itself when the last connection closes, also when this process is killed.

The client is the small part of the NBD protocol that reading needs: fixed newstyle handshake, NBD_OPT_GO,
NBD_CMD_READ with simple replies (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
"""

import os
import queue
import re
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

from pxed.errors import OperatorError, PeerError

__all__ = ["NbdDisk", "qemu_reason"]

INIT_MAGIC = b"NBDMAGICIHAVEOPT"
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698
FLAGS = 1 | 2  # fixed newstyle, no 124 zero bytes
OPT_GO = 7
REP_ACK, REP_INFO = 1, 3
INFO_EXPORT = 0
CMD_READ = 0


class NbdDisk:
    """A disk file opened in a qemu-nbd of its own. Reads may come from as many threads as there are connections."""

    def __init__(self, path: Path, image_format: str, connections: int) -> None:
        self._path = path
        self._sockets: list[socket.socket] = []
        self._free: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        with tempfile.TemporaryDirectory(prefix="pxed-nbd-") as directory, socket.socket(socket.AF_UNIX) as listener:
            address = f"{directory}/socket"
            listener.bind(address)
            listener.listen(connections)
            # Connected before qemu-nbd exists: it takes them from the backlog, and were this process killed at any
            # point from here on, it would see their end and go.
            for _ in range(connections):
                connection = socket.socket(socket.AF_UNIX)
                self._sockets.append(connection)
                connection.connect(address)
            self._process = self._spawn(listener, image_format, connections)
        try:
            self.size = min(self._handshake(connection) for connection in self._sockets)
        except BaseException:
            self.close()
            raise
        for connection in self._sockets:
            self._free.put(connection)

    def _spawn(self, listener: socket.socket, image_format: str, connections: int) -> "subprocess.Popen[bytes]":
        # Socket activation wants the socket as descriptor 3 and the process's own id, which a shell can arrange.
        # It gets the socket as its standard input, because dash redirects no descriptor of two digits.
        activate = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null'
        command = ["qemu-nbd", "--read-only", f"--shared={connections}", f"--format={image_format}", str(self._path)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        return subprocess.Popen(
            ["/bin/sh", "-c", activate, "sh", *command],
            stdin=listener.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from the disk at `offset`. Raises OperatorError when the file cannot be read there."""
        connection = self._free.get()
        try:
            connection.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, CMD_READ, 0, offset, len(buffer)))
            magic, error, _cookie = struct.unpack(">IIQ", self._receive(connection, 16))
            if magic != REPLY_MAGIC:
                raise PeerError(f"qemu-nbd broke the NBD protocol while reading {self._path}.")
            if error:
                raise OperatorError(f"{self._path} cannot be read at byte {offset}: {os.strerror(error)}.")
            self._receive_into(connection, buffer)
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Close the connections, upon which qemu-nbd ends."""
        for connection in self._sockets:
            connection.close()
        self._process.wait()
        self._errors.close()

    def _handshake(self, connection: socket.socket) -> int:
        """Bring a connection to the transmission phase; the disk's size."""
        if self._receive(connection, 18)[:16] != INIT_MAGIC:
            raise PeerError(f"qemu-nbd broke the NBD protocol while opening {self._path}.")
        # The default export has the empty name, and no further information is asked for.
        connection.sendall(struct.pack(">IQIIIH", FLAGS, OPTION_MAGIC, OPT_GO, 6, 0, 0))
        size = None
        while True:
            magic, _option, kind, length = struct.unpack(">QIII", self._receive(connection, 20))
            data = self._receive(connection, length) if 0 < length <= 65536 else b""
            if magic == OPTION_REPLY_MAGIC and kind == REP_INFO and data[:2] == struct.pack(">H", INFO_EXPORT):
                size = int(struct.unpack_from(">Q", data, 2)[0])
            elif magic == OPTION_REPLY_MAGIC and kind == REP_ACK and size is not None:
                return size
            elif magic != OPTION_REPLY_MAGIC or kind != REP_INFO:
                raise PeerError(f"qemu-nbd broke the NBD protocol while opening {self._path}.")

    def _receive(self, connection: socket.socket, length: int) -> bytes:
        data = bytearray(length)
        self._receive_into(connection, memoryview(data))
        return bytes(data)

    def _receive_into(self, connection: socket.socket, buffer: memoryview) -> None:
        while buffer:
            try:
                count = connection.recv_into(buffer)
            except ConnectionError:
                count = 0
            if count == 0:
                raise OperatorError(f"{self._path} cannot be read: {self._last_words()}.")
            buffer = buffer[count:]

    def _last_words(self) -> str:
        """What qemu-nbd said before it went away."""
        self._process.wait()
        self._errors.seek(0)
        said = qemu_reason(self._errors.read().decode(errors="replace"), self._path)
        return said or f"qemu-nbd ended with exit code {self._process.returncode}"


def qemu_reason(said: str, path: Path) -> str:
    """Why a tool of qemu could not read a file, from what it printed: its first line without the tool's name, the
    file's name, which it may say twice, and the full stop."""
    line = next(iter(said.strip().splitlines()), "")
    name = re.escape(str(path))
    line = re.sub(r"^qemu-(img|nbd): ", "", line)
    line = re.sub(rf"Failed to blk_new_open '{name}': ", "", line)
    return re.sub(rf"(Could not open '{name}': )+", "", line).rstrip(".")
