"""TFTP between network namespaces: links that Ethernet's usual frame does not fit."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netns import Namespace, Net
from support.tftp_service import Running

pytestmark = pytest.mark.root

DATA = random.Random(6).randbytes(300_001)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[Namespace, Running]]:
    """A client behind a link of 1000 bytes' MTU, and a server that believes in 1500."""
    with Net() as net:
        server, client = net.namespace("server"), net.namespace("client")
        net.link(server, "eth0", client, "eth0")
        server.address("eth0", "10.1.0.1/24")
        client.address("eth0", "10.1.0.2/24")
        for side in (server, client):
            side.run("ip", "link", "set", "dev", "eth0", "mtu", "1000")
        (tmp_path / "file").write_bytes(DATA)
        with server:
            running = Running(tmp_path, ("10.1.0.1",))
        try:
            yield client, running
        finally:
            running.stop()


@pytest.mark.parametrize("window", [1, 16])
def test_blocks_above_the_mtu_arrive_in_fragments(
    client: tuple[Namespace, Running], tmp_path: Path, window: int
) -> None:
    """DF is not set; and a run that the kernel will not cut (segments above the MTU) goes out block by block."""
    namespace, running = client
    options = ["--option", "blksize 1468", "--option", f"windowsize {window}"]
    command = ["atftp", *options, "-g", "-r", "file", "-l", "out", "10.1.0.1", str(running.port)]
    subprocess.run([*namespace.prefix, *command], cwd=tmp_path, check=True, timeout=120, stdin=subprocess.DEVNULL)
    assert (tmp_path / "out").read_bytes() == DATA
    figures = running.wait_until(lambda now: now["outcome.ok"] == 1)
    assert figures["send_errors"] == 0
