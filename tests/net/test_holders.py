"""Who holds a port."""

import errno
import os
import socket
from pathlib import Path

import pytest

from pxed.net.holders import Protocol, bind_error, holders

KINDS: list[tuple[Protocol, int]] = [("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)]


@pytest.mark.parametrize(("protocol", "kind"), KINDS)
def test_our_own_socket_is_found(protocol: Protocol, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        address, port = sock.getsockname()
        name = Path("/proc/self/comm").read_text().strip()
        assert holders(protocol, port) == [f"{name} (pid {os.getpid()})"]
        with socket.socket(socket.AF_INET, kind) as second, pytest.raises(OSError, match="in use") as failure:
            second.bind((address, port))
        text = str(bind_error(protocol, address, port, failure.value, "Do this."))
        assert text == f"{protocol.upper()} port {port} of 127.0.0.1 is taken by {name} (pid {os.getpid()}). Do this."
    assert holders(protocol, port) == []


def test_a_connected_socket_does_not_hold_the_port_for_listening() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert holders("tcp", client.getsockname()[1]) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "not an address of this machine"),
        (errno.EADDRINUSE, "cannot be seen from here"),
        (errno.ENOBUFS, "No buffer space"),
    ],
)
def test_other_reasons(code: int, words: str) -> None:
    assert words in str(bind_error("udp", "10.0.0.1", 1, OSError(code, os.strerror(code))))
