"""What a transfer costs in memory beside the file that all share, measured in a fresh process."""

import subprocess
import sys
import textwrap

import pytest

TRANSFERS = 10_000
# Bytes of resident memory each, what the control plane remembers of the request included.
ALLOWED = 1024

SCRIPT = """
    import gc, os, sys
    from pxed._ext.blob import Blob
    from pxed._ext.tftp_virtual import VirtualTftp
    server, blob = VirtualTftp(places={places}), Blob(bytes(60_000))
    request = b"\\0\\1boot/file.efi\\0octet\\0blksize\\x001468\\0tsize\\x000\\0windowsize\\x004\\0"
    def begin(first, count):
        for i in range(first, first + count):
            peer = (f"10.{{i >> 16}}.{{i >> 8 & 255}}.{{i & 255}}", 2070)
            server.receive(request, peer, 0.0)
            for event in server.events():
                server.send(event.id, blob, 0.0)
            server.drain(0.0)
            server.receive(b"\\0\\4\\0\\0", peer, 0.001)
            server.drain(0.001)
    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    begin(0, 100)
    before = resident()
    begin(1 << 20, {transfers})
    print(resident() - before)
    assert server.statistics()["running"] == {transfers} + 100
"""


@pytest.mark.parametrize("places", [0, 100])
def test_a_transfer_takes_less_than_a_kibibyte(places: int) -> None:
    """Under way, and waiting for a place."""
    script = textwrap.dedent(SCRIPT.format(places=places, transfers=TRANSFERS))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) / TRANSFERS < ALLOWED
