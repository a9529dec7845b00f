"""An import that dies at any point leaves no image, and a store that the next import completes; so does a full disk."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pxed.images.library import Library
from support.disks import MIB, noise, write_disk

# The child counts everything that changes the store and kills itself (SIGKILL) at the given step; it prints how many
# steps there were when it got to the end.
CHILD = """
import os, signal, sys
from pathlib import Path
from pxed.images import library, store
store.BATCH, store.PACK_LIMIT = 1 << 20, 3 << 20
at, steps = int(sys.argv[3]), 0
def step():
    global steps
    steps += 1
    if steps == at:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(function):
    def call(*arguments, **named):
        step()
        result = function(*arguments, **named)
        step()
        return result
    return call
for name in ("pwrite", "fsync", "ftruncate"):
    setattr(os, name, counted(getattr(os, name)))
Path.replace = counted(Path.replace)
Path.unlink = counted(Path.unlink)
transaction = store.Store.transaction
def counted_transaction(self):
    step()
    return transaction(self)
store.Store.transaction = counted_transaction
found = library.Library(sys.argv[1])
if sys.argv[2] == "--remove":
    found.remove("big")
else:
    found.import_image(sys.argv[2], "disk")
print(steps)
"""


def run_child(*arguments: object, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [*prefix, sys.executable, "-c", CHILD, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_import_killed_at_every_stage(tmp_path: Path) -> None:
    disk = write_disk(tmp_path / "disk", 10 * MIB, [(MIB, noise(7 * MIB, 1))])
    done = run_child(tmp_path / "whole", disk, 0)
    steps = int(done.stdout)
    assert steps > 20
    for at in range(1, steps + 1, 2):
        directory = tmp_path / f"store{at}"
        killed = run_child(directory, disk, at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        library = Library(directory)
        assert [image.name for image in library.list()] in ([], ["disk"])
        assert library.verify().bad == ()
        kept = library.store.row("SELECT count(*) FROM chunk")
        again = library.import_image(disk, "disk", replace=True)
        assert kept is not None and again.new_chunks == 7 - kept[0]  # what was committed is used
        assert library.verify("disk").bad == ()
        library.export("disk", tmp_path / "out", replace=True)
        assert (tmp_path / "out").read_bytes() == disk.read_bytes()
        library.close()


def test_removal_killed_at_every_stage(tmp_path: Path) -> None:
    big = write_disk(tmp_path / "big", 10 * MIB, [(MIB, noise(7 * MIB, 1))])
    small = write_disk(tmp_path / "small", 10 * MIB, [(2 * MIB, noise(7 * MIB, 1)[MIB : 2 * MIB])])

    def prepare(directory: Path) -> None:
        library = Library(directory)
        library.import_image(big, "big")
        library.import_image(small, "small")
        library.close()

    prepare(tmp_path / "whole")
    steps = int(run_child(tmp_path / "whole", "--remove", 0).stdout)
    assert steps > 5
    for at in range(1, steps + 1):
        directory = tmp_path / f"store{at}"
        prepare(directory)
        assert run_child(directory, "--remove", at).returncode == -signal.SIGKILL
        library = Library(directory)
        assert [image.name for image in library.list()] in (["big", "small"], ["small"])
        assert library.verify().bad == ()
        if len(library.list()) == 2:
            library.remove("big")
        library.reclaim()
        used = sum(path.stat().st_size for path in (directory / "packs").iterdir())
        assert used == library.get("small").data_size  # nothing is left behind
        assert library.verify().bad == ()
        library.close()


@pytest.mark.root
def test_full_disk(tmp_path: Path) -> None:
    """A sentence, no image, the room given back, and the chunks that fitted are used when there is room."""
    disk = write_disk(tmp_path / "disk", 20 * MIB, [(MIB, noise(16 * MIB, 1))])
    (tmp_path / "store").mkdir()
    script = f"""
        mount -t tmpfs -o size=10m pxed-test {tmp_path}/store
        "$@"
        echo "exit $?"
        {sys.executable} -c 'from pxed.images.library import Library; found = Library("{tmp_path}/store"); print(
            found.list(), found.verify().bad, found.store.row("SELECT count(*) FROM chunk"))'
        mount -o remount,size=60m {tmp_path}/store
        "$@"
        echo "exit $?"
        {sys.executable} -c 'from pxed.images.library import Library; found = Library("{tmp_path}/store"); print(
            len(found.list()), found.verify().bad)'
    """
    done = run_child(tmp_path / "store", disk, 0, prefix=("unshare", "-m", "sh", "-c", script, "sh"))
    lines = done.stdout.splitlines()
    assert lines[0] == "exit 1"
    assert "OperatorError" in done.stderr and "No space left on device" in done.stderr
    images, bad, count = lines[1].split(maxsplit=2)
    assert (images, bad) == ("[]", "()") and int(count.strip("(,)")) >= 4
    assert lines[3:] == ["exit 0", "1 ()"], done.stderr
