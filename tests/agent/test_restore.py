"""The whole agent against a small server, writing a plain file."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from pxed.agent import board, fetcher, restore, session
from pxed.agent.plan import BACKUP_TABLE
from pxed.agent.progress import Tally
from pxed.agent.resume import RECORD_BEGIN
from pxed.agent.session import REBOOT, SHELL, run
from pxed.agent.target import Target
from pxed.images.manifest import Partition, PartitionTable
from pxed.types import Step
from support.agent_machine import MAC, FakeMachine, make_gpt
from support.image_server import TOKEN, Answer, Handler, ImageServer, StoredImage, store

CHUNK = 1 << 20


def dirt(size: int) -> bytes:
    """What lay on the disk before: nowhere zero."""
    return os.urandom(CHUNK).replace(b"\0", b"\1") * (size // CHUNK + 1)


def bootable(disk: bytes) -> bool:
    """Whether firmware would find a boot sector, a partition table or a backup of it."""
    return any(disk[:RECORD_BEGIN]) or any(disk[-BACKUP_TABLE * 512 :])


def test_a_dirty_disk_becomes_the_image(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path = machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    with ImageServer(image) as server:
        assert run(machine, machine.options(server)) == REBOOT
    assert path.read_bytes() == disk
    assert server.finish is not None
    assert server.finish.ok
    assert server.finish.bytes_fetched == len(image.data)
    steps = [report.step for report in server.reports]
    assert steps == sorted(steps, key=list(Step).index)
    assert {Step.TARGET, Step.RESTORE, Step.VERIFY, Step.BOOT_ENTRY} >= set(steps)
    assert server.reports[-1].percent == 100.0
    assert (server.reports[-1].done, server.reports[-1].total) == (len(disk), len(disk))


def test_the_claim_says_who_and_what_the_machine_is(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    machine.add_disk("vda", len(disk), device__model="Disk  of test", serial="S1")
    for name, value in (
        ("product_uuid", "AABB"),
        ("product_serial", "X 1"),
        ("sys_vendor", "ACME"),
        ("product_name", "P"),
    ):
        (machine.sys / "class/dmi/id" / name).write_text(value + "\n")
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    (claim,) = server.claims
    assert (claim.token, claim.firmware, claim.identity.mac) == (TOKEN, "bios", MAC)
    assert (claim.identity.uuid, claim.identity.serial, claim.identity.manufacturer) == ("aabb", "X 1", "ACME")
    (fact,) = claim.disks
    assert (fact.path, fact.size, fact.model, fact.serial) == ("/dev/vda", len(disk), "Disk of test", "S1")


def test_an_image_of_one_chunk(machine: FakeMachine) -> None:
    disk = os.urandom(5 * 512)
    path = machine.add_disk("vda", len(disk))
    with ImageServer(store(disk)) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk


def test_an_image_of_nothing_but_zeros(machine: FakeMachine) -> None:
    size = 3 * CHUNK + 512
    path = machine.add_disk("vda", size, content=dirt(size)[:size])
    with ImageServer(store(bytes(size))) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == bytes(size)


def test_a_refused_token_ends_in_a_restart_not_in_a_loop(machine: FakeMachine, image: StoredImage) -> None:
    with ImageServer(image) as server:
        assert run(machine, machine.options(server, token="an old one")) == REBOOT
    assert any("The token is not valid." in text for text in machine.said)
    assert machine.slept >= 10


# -- disks that do not fit ---------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_left_alone(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    before = dirt(len(disk))[: len(disk) - 512]
    path = machine.add_disk("vda", len(before), content=before)
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == before
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.TARGET)
    assert f"it has {len(before)} bytes, the image needs {len(disk)}" in server.finish.reason


def test_the_open_disk_is_measured_again(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path = machine.add_disk("vda", len(disk))
    path.write_bytes(b"short")
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == b"short"
    assert server.finish is not None
    assert server.finish.step == Step.TARGET


def test_another_sector_size_is_refused(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    machine.add_disk("vda", len(disk), queue__logical_block_size=4096)
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert "sectors of 4096 bytes" in server.finish.reason


def test_an_image_with_large_sectors(machine: FakeMachine) -> None:
    size = 3 * CHUNK + 4096 * 3
    disk = os.urandom(size)
    path = machine.add_disk("vda", size, queue__logical_block_size=4096)
    with ImageServer(store(disk, sector=4096)) as server:
        run(machine, machine.options(server))
    assert path.read_bytes() == disk


_PARTITION = Partition(1, 2048 * 512, (10000 - 2048 + 1) * 512, "8300")


def test_a_table_that_is_not_the_images_fails_and_leaves_no_disk_that_boots(
    machine: FakeMachine, tmp_path: Path
) -> None:
    """A damaged primary header: tools read the image from its backup, which they do not find on a larger disk."""
    source, size, larger = tmp_path / "source", 8 * CHUNK, 20 * CHUNK
    make_gpt(source, size, "1:2048:10000 8300")
    with source.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    path = machine.add_disk("vda", larger)
    with ImageServer(store(source.read_bytes(), table=PartitionTable("gpt", "", (_PARTITION,)))) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.VERIFY)
    assert not any(path.read_bytes()[:CHUNK])


def test_a_larger_disk_gets_its_backup_table_at_its_end(machine: FakeMachine, tmp_path: Path) -> None:
    source, size, larger = tmp_path / "source", 8 * CHUNK, 20 * CHUNK
    make_gpt(source, size, "1:2048:10000 8300")
    with source.open("r+b") as file:  # some BIOSes start a GPT disk only with an active entry in the protective MBR
        file.seek(446)
        file.write(b"\x80")
    image = store(source.read_bytes(), table=PartitionTable("gpt", "", (_PARTITION,)))
    path = machine.add_disk("vda", larger, content=dirt(larger)[:larger])
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes()[-512:-504] == b"EFI PART"
    assert path.read_bytes()[446] == 0x80
    checked = subprocess.run(["sgdisk", "-v", str(path)], capture_output=True, text=True, check=True).stdout
    assert "No problems found" in checked
    assert any("backup partition table was moved" in text for text in server.messages())


def test_a_table_that_nobody_recognises_fails_the_job(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    machine.add_disk("vda", len(disk))
    damaged = store(disk, table=PartitionTable("gpt", "", ()))  # says GPT; its bytes are none
    with ImageServer(damaged) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.VERIFY)


# -- damage and outages ------------------------------------------------------------------------------------------------


def damage(image: StoredImage, ordinal: int) -> bytes:
    """The image's data with one frame changed in its middle."""
    frames = list(image.frames)
    frame = bytearray(frames[ordinal])
    frame[len(frame) // 2] ^= 0x55
    frames[ordinal] = bytes(frame)
    return b"".join(frames)


def frame_range(image: StoredImage, ordinal: int) -> tuple[int, int]:
    """First and last byte of one frame in the image's data."""
    start = sum(map(len, image.frames[:ordinal]))
    return start, start + len(image.frames[ordinal]) - 1


def test_a_damaged_chunk_fails_the_job_and_leaves_nothing_bootable(
    machine: FakeMachine, image: StoredImage, disk: bytes
) -> None:
    path = machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    ordinal = 17
    index = image.manifest.indexes()[ordinal]
    with ImageServer(image, data=damage(image, ordinal)) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.RESTORE)
    assert f"Chunk {index} " in server.finish.reason
    assert image.manifest.digest(ordinal).hex() in server.finish.reason
    assert not bootable(path.read_bytes())
    assert server.ranges.count(frame_range(image, ordinal)) == fetcher.CHUNK_TRIES - 1


def test_a_damaged_table_is_found_before_the_old_one_is_gone(
    machine: FakeMachine, image: StoredImage, disk: bytes
) -> None:
    before = dirt(len(disk))[: len(disk)]
    path = machine.add_disk("vda", len(disk), content=before)
    with ImageServer(image, data=damage(image, 0)) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert "Chunk 0 " in server.finish.reason
    assert path.read_bytes() == before


def test_damage_on_the_way_is_healed(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path = machine.add_disk("vda", len(disk))
    server = ImageServer(image, data=damage(image, 17))

    def heal(url: str, handler: Handler) -> None:
        if frame_range(image, 17) in server.ranges:
            server.data = image.data

    server.before = heal
    with server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk


def test_a_server_that_is_killed_and_started_again(
    machine: FakeMachine, image: StoredImage, disk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "worker_count", lambda: 2)
    monkeypatch.setattr(board, "BATCH", 2)
    path = machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    server = ImageServer(image)
    reached, refused = threading.Event(), threading.Event()

    def middle(url: str, handler: Handler) -> None:
        if url.endswith("/data") and len(server.ranges) >= 5 and not reached.is_set():
            reached.set()
            refused.wait(30)  # this request dies with the server
            raise Answer(503)

    original = machine.say

    def say(text: str) -> None:
        original(text)
        if "does not answer" in text:
            refused.set()

    monkeypatch.setattr(machine, "say", say)
    server.before = middle
    server.start()
    result: list[int] = []
    agent = threading.Thread(target=lambda: result.append(run(machine, machine.options(server))))
    agent.start()
    assert reached.wait(30)
    server.kill()
    assert refused.wait(30)
    before = list(server.ranges)
    with server:
        agent.join(60)
    assert result == [REBOOT]
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk
    again = [wanted for wanted in server.ranges[len(before) :] if wanted in before]
    assert len(again) <= 2, "only what was under way may be fetched twice"
    assert any("answers again" in text for text in machine.said)


def test_answers_of_a_server_in_trouble_are_waited_out(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path = machine.add_disk("vda", len(disk))
    asked: dict[str, int] = {}

    def trouble(url: str, handler: Handler) -> None:
        asked[url] = asked.get(url, 0) + 1
        if asked[url] <= 2:
            handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            raise Answer(503, "Starting.")

    with ImageServer(image, before=trouble) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok
    assert path.read_bytes() == disk


def test_an_image_that_is_deleted_meanwhile(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    path = machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    server = ImageServer(image)

    def gone(url: str, handler: Handler) -> None:
        if url.endswith("/data") and len(server.ranges) >= 4:
            raise Answer(410, "The image is gone.")

    server.before = gone
    with server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.RESTORE)
    assert "The image is gone." in server.finish.reason
    assert not bootable(path.read_bytes())


def test_another_manifest_than_the_jobs_is_not_believed(machine: FakeMachine, image: StoredImage, disk: bytes) -> None:
    before = dirt(len(disk))[: len(disk)]
    path = machine.add_disk("vda", len(disk), content=before)
    other = store(os.urandom(2 * CHUNK))
    forged = StoredImage(other.manifest, other.frames)
    forged.id = image.id
    with ImageServer(forged) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert "not that of image" in server.finish.reason
    assert path.read_bytes() == before


# -- the end of a job --------------------------------------------------------------------------------------------------


def test_a_cancelled_job_ends_at_once(
    machine: FakeMachine, image: StoredImage, disk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    server = ImageServer(image)
    told, stop = threading.Event(), Tally.stop

    def note(tally: Tally, reason: str) -> None:
        stop(tally, reason)
        told.set()

    def cancel(url: str, handler: Handler) -> None:
        if url.endswith("/data") and len(server.ranges) >= 4:
            server.stop = "cancelled by the operator"
            told.wait(60)

    monkeypatch.setattr(Tally, "stop", note)
    server.before = cancel
    with server:
        assert run(machine, machine.options(server)) == REBOOT
    assert server.finish is None
    assert any("cancelled by the operator" in text for text in machine.said)
    assert not bootable(path.read_bytes())


def test_debug_asks_for_a_shell_after_a_failure(machine: FakeMachine, image: StoredImage) -> None:
    machine.add_disk("vda", 512)
    with ImageServer(image, debug=True) as server:
        assert run(machine, machine.options(server)) == SHELL


def test_a_failure_nobody_thought_of_is_told_too(
    machine: FakeMachine, image: StoredImage, disk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(session, "set_boot_entry", surprise)
    machine.add_disk("vda", len(disk))
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert (server.finish.ok, server.finish.step) == (False, Step.BOOT_ENTRY)
    assert "ZeroDivisionError: surprise" in server.finish.reason


# -- the order of writing ----------------------------------------------------------------------------------------------


def test_the_seal_comes_last_and_its_first_block_last_of_all(
    machine: FakeMachine, image: StoredImage, disk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[tuple[int, int]] = []
    write = Target.write

    def record(self: Target, offset: int, data: memoryview) -> None:
        writes.append((offset, len(data)))
        write(self, offset, data)

    monkeypatch.setattr(Target, "write", record)
    machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    tail = len(disk) // CHUNK * CHUNK
    assert writes[:2] == [(0, CHUNK), (len(disk) - CHUNK, CHUNK)], "both ends are emptied first"
    assert writes[-3:] == [(tail, len(disk) - tail), (4096, CHUNK - 4096), (0, 4096)]
    assert all(CHUNK <= offset < tail for offset, _ in writes[2:-3])
    assert max(length for _, length in writes) > CHUNK, "chunks that lie together are written together"


@pytest.mark.parametrize("cut_at", ["backup table", "rest of the first chunk", "first block"])
def test_a_power_cut_while_the_seal_is_written_leaves_no_half_bootable_disk(
    machine: FakeMachine, image: StoredImage, disk: bytes, monkeypatch: pytest.MonkeyPatch, cut_at: str
) -> None:
    path = machine.add_disk("vda", len(disk), content=dirt(len(disk))[: len(disk)])
    places = {"backup table": len(disk) // CHUNK * CHUNK, "rest of the first chunk": 4096, "first block": 0}
    write = Target.write

    def cut(self: Target, offset: int, data: memoryview) -> None:
        if offset == places[cut_at] and len(data) < CHUNK:
            raise OSError("power cut")
        write(self, offset, data)

    monkeypatch.setattr(Target, "write", cut)
    with ImageServer(image) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert not server.finish.ok
    assert not any(path.read_bytes()[:4096]), "no boot sector and no GPT header"
