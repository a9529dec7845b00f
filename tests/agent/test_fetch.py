"""`pxed agent fetch`: an image to a file, and every way in which that cannot be."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pxed.agent import fetch
from pxed.agent.fetch import base_url
from pxed.agent.target import Target
from pxed.cli import main
from support.image_server import Answer, Handler, ImageServer, StoredImage

from .test_restore import damage
from .test_resume import fetched


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def call(server: ImageServer | str, to: Path, *options: str, image: str = "golden") -> Result:
    address = server if isinstance(server, str) else f"127.0.0.1:{server.port}"
    words = ["agent", "fetch", image, "--server", address, "--to", str(to), "--transport", "http", *options]
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.mark.parametrize("by_id", [False, True])
def test_a_file_is_the_disk_and_sparse_where_it_is_zero(
    image: StoredImage, disk: bytes, place: Path, by_id: bool
) -> None:
    with ImageServer(image, public=True) as server:
        done = call(server, place, image=image.id if by_id else "golden")
    assert done.exit_code == 0, done.output
    assert place.read_bytes() == disk
    assert place.stat().st_blocks * 512 < len(disk) - (3 << 20)
    assert not place.with_name("disk.img.part").exists()
    assert "image golden" in done.output


def test_json_has_an_object_a_line_and_the_result_last(image: StoredImage, place: Path) -> None:
    with ImageServer(image, public=True) as server:
        done = call(server, place, "--json")
    *_, last = map(json.loads, done.stdout.splitlines())
    result = last["result"]
    assert result["ok"] is True
    assert (result["image"], result["by_http"], result["by_cast"]) == (image.id, len(image.data), 0)
    assert (result["chunks"], result["chunks_resumed"], result["receiver"]) == (len(image.frames), 0, {})


def test_an_image_that_nobody_knows_and_one_that_is_not_for_everybody(image: StoredImage, place: Path) -> None:
    with ImageServer(image, public=True) as server:
        unknown = call(server, place, image="silver")
    with ImageServer(image) as server:
        private = call(server, place)
    assert (unknown.exit_code, private.exit_code) == (1, 1)
    assert "has no image silver" in unknown.output
    assert "public is off" in private.output
    assert list(place.parent.iterdir()) == []


def test_a_server_that_is_not_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FIRST_PATIENCE", 0.1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = call(f"127.0.0.1:{closed.getsockname()[1]}", place)
    assert done.exit_code == 3
    assert "does not answer" in done.output


def test_a_file_that_exists_is_replaced_only_when_that_is_said(image: StoredImage, disk: bytes, place: Path) -> None:
    place.write_bytes(b"precious")
    with ImageServer(image, public=True) as server:
        refused = call(server, place)
        assert place.read_bytes() == b"precious"
        done = call(server, place, "--replace")
    assert (refused.exit_code, done.exit_code) == (1, 0)
    assert "--replace" in refused.output
    assert place.read_bytes() == disk


@pytest.mark.parametrize("what", ["directory", "pipe", "nowhere"])
def test_what_no_image_can_be_written_to(image: StoredImage, tmp_path: Path, what: str) -> None:
    place = tmp_path / "place" if what != "nowhere" else tmp_path / "no" / "place"
    if what == "directory":
        place.mkdir()
    elif what == "pipe":
        os.mkfifo(place)
    with ImageServer(image, public=True) as server:
        done = call(server, place)
    assert done.exit_code == 1
    assert "neither a file nor" in done.output or "no directory" in done.output


def test_what_is_asked_before_the_data_goes_over_one_connection(image: StoredImage, place: Path) -> None:
    seen: list[tuple[str, int]] = []

    def note(url: str, handler: Handler) -> None:
        seen.append((url.rpartition("/")[2], handler.client_address[1]))

    with ImageServer(image, public=True, before=note) as server:
        assert call(server, place, "--transport", "auto").exit_code == 0
    first = seen[:4]
    assert [name for name, _ in first] == ["golden", "manifest", "layout", "join"]
    assert len({port for _, port in first}) == 1


def test_two_at_once_do_not_write_one_file(image: StoredImage, place: Path) -> None:
    part = place.with_name("disk.img.part")
    part.touch()
    other = Target(part)
    with ImageServer(image, public=True) as server:
        done = call(server, place)
    other.close()
    assert done.exit_code == 1
    assert "written by another process" in done.output


def test_a_filesystem_without_room_is_told_before_anything_is_fetched(
    image: StoredImage, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "room", 1 << 20)
    with ImageServer(image, public=True) as server:
        done = call(server, place)
    assert done.exit_code == 1
    assert "no room" in done.output
    assert server.ranges == []
    assert list(place.parent.iterdir()) == []


def test_what_an_interrupted_fetch_left_is_gone_on_with(image: StoredImage, disk: bytes, place: Path) -> None:
    server = ImageServer(image, public=True)

    def gone(url: str, handler: Handler) -> None:
        if url.endswith("/data") and len(server.ranges) >= 4:
            raise Answer(410, "The image is gone.")

    server.before = gone
    with server:
        assert call(server, place).exit_code == 1
    assert not place.exists()
    before = fetched(server)
    with ImageServer(image, public=True) as server:
        done = call(server, place, "--json")
    assert place.read_bytes() == disk
    assert fetched(server) <= len(image.data) - before / 2
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    assert result["chunks_resumed"] > 0
    assert result["by_http"] == fetched(server)


def test_the_part_of_another_image_is_not_mixed_with_this_one(image: StoredImage, disk: bytes, place: Path) -> None:
    place.with_name("disk.img.part").write_bytes(os.urandom(len(disk) + 5000))
    with ImageServer(image, public=True) as server:
        assert call(server, place).exit_code == 0
    assert place.read_bytes() == disk
    assert place.stat().st_blocks * 512 < len(disk) - (3 << 20)


def test_a_chunk_that_is_damaged_on_the_server_is_named(image: StoredImage, place: Path) -> None:
    with ImageServer(image, public=True, data=damage(image, 9)) as server:
        done = call(server, place, "--json")
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    assert result["ok"] is False
    assert f"Chunk {image.manifest.indexes()[9]} " in result["reason"]
    assert not place.exists()


def test_control_c_stops_it_and_says_what_to_do(image: StoredImage, place: Path) -> None:
    """In a process of its own, with a real signal."""
    asked = threading.Event()

    def busy(url: str, handler: Handler) -> None:
        if url.endswith("/data"):
            asked.set()
            raise Answer(503, "Busy.")

    with ImageServer(image, public=True, before=busy) as server:
        words = ["agent", "fetch", "golden", "--server", f"127.0.0.1:{server.port}", "--to", str(place)]
        command = [sys.executable, "-c", "from pxed.cli import main; main()", *words, "--transport", "http"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as fetching:
            assert asked.wait(30)
            fetching.send_signal(signal.SIGINT)
            _, said = fetching.communicate(timeout=30)
    assert fetching.returncode == 130, said
    assert said.splitlines()[-1] == "pxed: Interrupted; the same command goes on with what is there."


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("10.1.2.3", "http://10.1.2.3:80"),
        ("pxe.site:8080", "http://pxe.site:8080"),
        ("[fd00::1]", "http://[fd00::1]:80"),
        ("[fd00::1]:81", "http://[fd00::1]:81"),
        ("fd00::1", "http://[fd00::1]:80"),
    ],
)
def test_how_a_server_is_named(server: str, url: str) -> None:
    assert base_url(server, 80) == url


@pytest.mark.parametrize("server", ["", ":80", "a:", "a:x", "a:0", "a:65536", "a/b", "[fd00::1]80", "http://a"])
def test_what_names_no_server(server: str, place: Path) -> None:
    with pytest.raises(ValueError, match="is no server"):
        base_url(server, 80)
    assert call(server, place).exit_code == 2


def test_an_interface_that_is_not_there(place: Path) -> None:
    done = call("127.0.0.1:1", place, "--interface", "no-such-0")
    assert done.exit_code == 2
    assert "no-such-0" in done.output
