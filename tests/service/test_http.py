"""Boot HTTP's routes over real sockets: names, agents' calls, image data."""

import http.client
import json
import os
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from pxed.agent.server import Connection, Patience, Refused
from pxed.config import Config, Dhcp, Environment, Server, Tftp
from pxed.errors import GoneError, OperatorError, RefusedError
from pxed.images.library import Library
from pxed.images.store import Store
from pxed.service.http import MachineHttp
from pxed.service.names import Names
from pxed.service.peers import Peers
from support.loop import LoopThread
from support.machines import RUN, TOKEN, Machines

MAC = "52:54:00:00:00:07"
MIB = 1 << 20


class House:
    """A `MachineHttp` on loopback, over a stand-in for the transactions and a real image library."""

    def __init__(self, directory: Path, library: Library) -> None:
        for name in ("root", "environment"):
            (directory / name).mkdir()
        self.root, self.environment = directory / "root", directory / "environment"
        self.machines = Machines()
        self.library = library
        self.told = threading.Event()
        note = self.machines.note
        self.machines.note = lambda event: (note(event), self.told.set())[0]  # type: ignore[method-assign, func-returns-value]
        config = Config(
            server=Server("127.0.0.1"),
            tftp=Tftp(str(self.root)),
            dhcp=Dhcp(boot_program_dir=str(directory / "none")),
            environment=Environment(dir=str(self.environment)),
        )
        self.peers = Peers()
        self.peers.learn("127.0.0.1", MAC)
        names = Names(config, cast(Any, self.machines), self.peers, lambda _peer: "127.0.0.1")
        self.server = MachineHttp(("127.0.0.1",), 0, names, cast(Any, self.machines), library)

    def curl(self, path: str, *arguments: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request."""
        url = f"http://127.0.0.1:{self.server.ports[0]}/{path}"
        command = ["curl", "-sS", "--include", "--path-as-is", "--max-time", "60", *arguments, url]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(status.split()[1]), headers, body

    def post(self, path: str, body: object, *arguments: str) -> tuple[int, Any]:
        """Status and JSON of an agent's call."""
        data = body if isinstance(body, str) else json.dumps(body)
        status, _, answer = self.curl(f"pxed/agent/{path}", "--data-binary", data, *arguments)
        return status, json.loads(answer)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """With one image of 4 MiB, 3 of them not zero."""
    directory = tmp_path_factory.mktemp("library")
    disk = directory / "disk.img"
    disk.write_bytes(os.urandom(2 * MIB) + bytes(MIB) + os.urandom(MIB))
    made = Library(directory / "images")
    made.import_image(disk, "demo")
    yield made
    made.close()


@pytest.fixture
def house(tmp_path: Path, library: Library) -> Iterator[House]:
    made = House(tmp_path, library)
    made.machines.image = library.get("demo").id
    with LoopThread() as loop:
        made.server.open()
        loop.call(made.server.start)
        yield made
        loop.run(made.server.stop())


BEARER = ("--header", f"Authorization: Bearer {RUN}")
CLAIM = {"token": TOKEN, "agent": "a1", "identity": {"mac": MAC}}


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("shim.efi", "application/efi"),
        ("x.ISO", "application/vnd.efi-iso"),
        ("disk.img", "application/vnd.efi-img"),
        ("menu.ipxe", "text/plain; charset=utf-8"),
        ("vmlinuz", "application/octet-stream"),
    ],
)
def test_a_file_and_its_type(house: House, name: str, kind: str) -> None:
    (house.root / name).write_bytes(b"0123456789")
    status, headers, body = house.curl(name)
    assert (status, headers["content-type"], headers["content-length"], body) == (200, kind, "10", b"0123456789")
    assert house.curl(name, "--range", "2-3")[::2] == (206, b"23")
    assert house.curl(name, "--head")[1]["content-length"] == "10"


@pytest.mark.parametrize(
    "path", ["../root/x", "a/../../secret", "%2e%2e/secret", "..%2fsecret", "..%5csecret", "link", "%00", "nothing"]
)
def test_what_leads_out_is_404(house: House, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (house.root / "link").symlink_to("../secret")
    status, _, body = house.curl(path)
    assert status == 404
    assert body == b"there is nothing under this name\n"


def test_a_boot_program_fetched_in_two_ranges_is_delivered_once(house: House) -> None:
    (house.root / "snponly.efi").write_bytes(bytes(1000))
    house.curl("snponly.efi", "--head")
    house.curl("snponly.efi", "--range", "0-499")
    assert house.machines.events == []
    house.curl("snponly.efi", "--range", "500-999")
    assert house.told.wait(60)
    (event,) = house.machines.events
    assert (event.kind, event.mac) == ("boot-program", MAC)
    assert event.text.startswith("snponly.efi fetched over HTTP (1 KB in ")


def test_the_check_over_http(house: House) -> None:
    for name in ("vmlinuz", "initramfs.cpio.zst"):
        (house.environment / name).write_bytes(b"x")
    path = "pxed/check/mac-52-54-00-00-00-07/uuid-/serial-a%2Fb/mfr-/product-"
    status, headers, body = house.curl(path)
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert headers["content-type"].startswith("text/plain")
    # The URL names the address that the client used, and the configured port.
    assert b"kernel http://127.0.0.1/pxed/environment/vmlinuz pxed.server=http://127.0.0.1 pxed.token=" in body
    assert house.machines.sightings[0][0].serial == "a/b"

    status, headers, body = house.curl(path, "--head")
    assert (status, body) == (200, b"")
    assert "content-length" not in headers
    assert house.machines.tickets == 1
    script = house.curl("pxed/boot.ipxe")[2]
    assert house.curl("pxed/boot.ipxe", "--head")[1]["content-length"] == str(len(script))


def test_names_are_only_read(house: House) -> None:
    status, headers, _ = house.curl("x", "--data", "x")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


# -- agents ------------------------------------------------------------------------------------------------------------


def test_the_agents_calls(house: House) -> None:
    status, answer = house.post("claim", CLAIM)
    assert (status, answer["run"], answer["job_id"]) == (200, RUN, 7)
    assert house.post("report", {"step": "restore", "percent": 5.5}, *BEARER) == (200, {"stop": ""})
    assert house.post("finish", {"ok": True, "step": "finish"}, *BEARER) == (200, {"then": "reboot"})


@pytest.mark.parametrize(
    ("call", "body", "arguments", "status", "words"),
    [
        ("claim", {**CLAIM, "token": "other"}, (), 409, "This token is of no job."),
        ("claim", "{", (), 400, "not what was expected"),
        ("claim", {"token": 1}, (), 400, "not what was expected"),
        ("claim", "[]", (), 400, "not what was expected"),
        ("report", {"step": "restore"}, (), 401, "bearer token is needed"),
        ("report", {"step": "restore"}, ("--header", "Authorization: Basic eDp5"), 401, "bearer token is needed"),
        ("report", {"step": "restore"}, ("--header", "Authorization: Bearer "), 401, "bearer token is needed"),
        ("finish", {"step": "x"}, BEARER, 400, "ok"),
        ("steal", {}, BEARER, 404, "not a call"),
    ],
)
def test_refused_calls(
    house: House, call: str, body: object, arguments: tuple[str, ...], status: int, words: str
) -> None:
    got, answer = house.post(call, body, *arguments)
    assert got == status
    assert words in answer["error"]


@pytest.mark.parametrize("body", [b'{"token": "\xff\xfe"}', b'{"x": ' + b"[" * 60000, b"", b"\xff"])
def test_a_body_that_is_no_json_is_400(house: House, tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "body"
    file.write_bytes(body)
    status, _, answer = house.curl("pxed/agent/claim", "--data-binary", f"@{file}")
    assert status == 400
    assert json.loads(answer)["error"]


def test_a_claim_is_a_post(house: House) -> None:
    status, headers, _ = house.curl("pxed/agent/claim")
    assert (status, headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("failure", "status"), [(OperatorError("The disk is full."), 503), (RefusedError("No."), 409), (KeyError("x"), 500)]
)
def test_failures_behind_a_call(house: House, failure: Exception, status: int) -> None:
    house.machines.failure = failure
    assert house.curl("pxed/agent/claim", "--data", json.dumps(CLAIM))[0] == status
    house.machines.failure = None
    assert house.post("claim", CLAIM)[0] == 200


# -- images ------------------------------------------------------------------------------------------------------------


def test_an_image_by_its_parts(house: House, library: Library) -> None:
    image = library.get("demo").id
    layout = house.curl(f"pxed/image/{image}/layout", *BEARER)[2]
    manifest = house.curl(f"pxed/image/{image}/manifest", *BEARER)[2]
    assert layout == library.layout(image)
    assert manifest == library.manifest_bytes(image)
    status, headers, data = house.curl(f"pxed/image/{image}/data", *BEARER)
    assert (status, int(headers["content-length"]), headers["cache-control"]) == (200, len(data), "no-store")
    assert len(data) == library.data_size(image)
    source = library.open_data(image)
    stored = b"".join(os.pread(fd, length, offset) for fd, offset, length in source.segments(0, source.size))
    source.close()
    assert data == stored
    for start, stop in ((0, 1), (MIB - 5, 2 * MIB + 5), (len(data) - 3, len(data))):
        status, headers, part = house.curl(f"pxed/image/{image}/data", *BEARER, "--range", f"{start}-{stop - 1}")
        assert (status, headers["content-range"]) == (206, f"bytes {start}-{stop - 1}/{len(data)}")
        assert part == data[start:stop]


def _ranges(*ranges: tuple[int, int]) -> tuple[str, ...]:
    return ("--data", json.dumps({"ranges": ranges}))


def test_many_ranges_of_an_image_in_one_answer(house: House, library: Library) -> None:
    name = f"pxed/image/{library.get('demo').id}/data"
    data = house.curl(name, *BEARER)[2]
    wanted = ((0, 1), (1, 5), (MIB - 5, 2 * MIB + 5), (len(data) - 3, len(data)))
    status, headers, body = house.curl(name, *BEARER, *_ranges(*wanted))
    assert (status, headers["content-length"]) == (200, str(len(body)))
    assert body == b"".join(data[start:stop] for start, stop in wanted)
    # A Range header is about GET only (RFC 9110 14.2).
    assert house.curl(name, *BEARER, *_ranges((5, 9)), "--header", "Range: bytes=0-0")[::2] == (200, data[5:9])
    most = tuple((at, at + 1) for at in range(0, 2048, 2))
    assert house.curl(name, *BEARER, *_ranges(*most))[2] == data[:2048:2]


@pytest.mark.parametrize(
    "ranges",
    [
        ((5, 5),),
        ((5, 4),),
        ((-1, 4),),
        ((0, 4), (3, 6)),
        ((8, 9), (0, 1)),
        ((0, 1 << 40),),
        ((0, 1 << 70),),
        (),
        tuple((at, at + 1) for at in range(1025)),
        ((0, 1, 2),),
        (("0", "1"),),
    ],
)
def test_ranges_that_are_none_are_400(house: House, library: Library, ranges: tuple[tuple[int, int], ...]) -> None:
    status, _, body = house.curl(f"pxed/image/{library.get('demo').id}/data", *BEARER, *_ranges(*ranges))
    assert status == 400
    assert "not what was expected" in json.loads(body)["error"]


def test_ranges_are_bounded_in_all(house: House, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxed.service.image_http.MOST_RANGE_BYTES", 1000)
    name = f"pxed/image/{library.get('demo').id}/data"
    assert house.curl(name, *BEARER, *_ranges((0, 500), (501, 1001)))[0] == 200
    assert house.curl(name, *BEARER, *_ranges((0, 500), (501, 1002)))[0] == 400


def test_public_images_need_no_job(house: House, library: Library) -> None:
    image = library.get("demo").id
    house.server.public_images = True
    for part, whole in (("manifest", library.manifest_bytes(image)), ("layout", library.layout(image))):
        assert house.curl(f"pxed/image/{image}/{part}")[::2] == (200, whole)
    assert len(house.curl(f"pxed/image/{image}/data", *_ranges((0, 9), (10, 11)))[2]) == 10
    # Who has a job is told when it is over.
    assert house.curl(f"pxed/image/{image}/data", "--header", "Authorization: Bearer other")[0] == 403


def test_which_image_a_name_is(house: House, library: Library) -> None:
    image = library.get("demo")
    facts = {
        "id": image.id,
        "name": "demo",
        "size": 4 * MIB,
        "sector": 512,
        "stored_chunks": 3,
        "data_size": library.data_size(image.id),
    }
    for key in ("demo", image.id, image.id[:8]):
        status, _, body = house.curl(f"pxed/image/{key}", *BEARER)
        assert (status, json.loads(body)) == (200, facts)
    assert house.curl("pxed/image/demo")[0] == 401
    assert house.curl("pxed/image/demo", "--header", "Authorization: Bearer other")[0] == 403
    house.server.public_images = True
    assert json.loads(house.curl("pxed/image/demo")[2]) == facts
    assert "did you mean demo" in json.loads(house.curl("pxed/image/dem")[2])["error"]
    assert house.curl("pxed/image/de%6do")[0] == 404
    assert house.curl("pxed/image/demo/")[0] == 404
    assert house.curl("pxed/image/demo", "--data", "x")[0] == 405


@pytest.mark.parametrize(
    ("part", "arguments", "status"),
    [
        ("data", (), 401),
        ("data", ("--header", "Authorization: Bearer other"), 403),
        ("manifest", (), 401),
        ("layout", ("--header", "Authorization: Bearer other"), 403),
        ("secrets", BEARER, 404),
        ("data", ("--data", '{"ranges": [[0, 1]]}'), 401),
        ("data", (*BEARER, "--data", "x"), 400),
        ("layout", (*BEARER, "--data", "x"), 405),
    ],
)
def test_images_are_for_their_jobs_only(
    house: House, library: Library, part: str, arguments: tuple[str, ...], status: int
) -> None:
    got, _, body = house.curl(f"pxed/image/{library.get('demo').id}/{part}", *arguments)
    assert got == status
    assert json.loads(body)["error"]


def test_another_image_than_the_jobs_is_refused(house: House) -> None:
    status, _, body = house.curl(f"pxed/image/{'0' * 64}/data", *BEARER)
    assert (status, json.loads(body)["error"]) == (403, "this run's job is about another image")


def test_an_image_that_was_deleted_is_404(house: House) -> None:
    house.machines.image = "0" * 64
    for part in ("manifest", "layout", "data"):
        status, _, body = house.curl(f"pxed/image/{'0' * 64}/{part}", *BEARER)
        assert status == 404
        assert "There is no image 0000" in json.loads(body)["error"]


def _lose(pack: Path) -> None:
    pack.rename(pack.with_name("aside"))


def _cut(pack: Path) -> None:
    shutil.copyfile(pack, pack.with_name("aside"))
    os.truncate(pack, 5)


@pytest.mark.parametrize(("harm", "words"), [(_lose, "is missing"), (_cut, "has been cut off")])
def test_a_pack_that_is_lost_is_410_and_the_agent_does_not_wait_for_it(
    house: House, library: Library, harm: Callable[[Path], None], words: str
) -> None:
    name = f"pxed/image/{library.get('demo').id}/data"
    (pack,) = (library.store.directory / "packs").iterdir()
    sentence = f"{pack} {words}, the image store is damaged: `pxed image verify` tells "
    into = memoryview(bytearray(10))
    harm(pack)
    try:
        status, headers, body = house.curl(name, *BEARER, "--range", "0-9")
        assert (status, headers["content-type"]) == (410, "application/json")
        assert json.loads(body)["error"].startswith(sentence)
        url = f"http://127.0.0.1:{house.server.ports[0]}"
        with Connection(url, RUN) as agent, pytest.raises(Refused, match=re.escape(sentence)) as refused:
            Patience(1e9, lambda: 0.0, lambda _: True, print).call(lambda: agent.fetch_range(name, 0, into))
        assert refused.value.status == 410
    finally:
        pack.with_name("aside").replace(pack)
    assert house.curl(name, *BEARER, "--range", "0-9")[0] == 206


def test_a_manifest_that_is_lost_is_410(house: House, library: Library) -> None:
    image = library.get("demo").id
    path = library.store.manifest_path(image)
    path.rename(path.with_name("aside"))
    try:
        status, _, body = house.curl(f"pxed/image/{image}/manifest", *BEARER)
        assert (status, json.loads(body)["error"]) == (410, f"{path} is missing, the image store is damaged.")
    finally:
        path.with_name("aside").rename(path)


def test_a_pack_that_cannot_be_opened_now_is_503(
    house: House, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks move while an image is being sent, or the process is out of descriptors: the agent asks again."""
    name = f"pxed/image/{library.get('demo').id}/data"
    (pack,) = (library.store.directory / "packs").iterdir()
    pack.rename(pack.with_name("aside"))
    pack.symlink_to(pack)  # ELOOP
    try:
        assert house.curl(name, *BEARER, "--range", "0-9")[0] == 503
        pack.unlink()
        monkeypatch.setattr(Store, "generation", 77)  # what was open is of another time
        data = library.open_data(library.get("demo").id)
        monkeypatch.setattr(Store, "generation", 78)
        with closing(data), pytest.raises(OperatorError, match="have just moved") as moved:
            data.segments(0, 10)
        assert not isinstance(moved.value, GoneError)
    finally:
        pack.unlink(missing_ok=True)
        pack.with_name("aside").rename(pack)
    monkeypatch.undo()
    assert house.curl(name, *BEARER, "--range", "0-9")[0] == 206


def test_a_flood_of_what_is_refused_leaves_a_few_lines(house: House) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", house.server.ports[0])) as client, capture_logs() as logs:
        for number in range(20):
            for method, path in (("POST", "/pxed/agent/claim"), ("GET", f"/..%2f{number}")):
                client.request(method, path, b"no JSON" if method == "POST" else None)
                assert client.getresponse().read()
    assert Counter(entry["event"] for entry in logs) == {"agent's request refused": 5, "not found": 5}


# -- multicast sessions ------------------------------------------------------------------------------------------------


def test_joining_where_nothing_is_sent_by_multicast_is_409(house: House, library: Library) -> None:
    wanted = {"image": library.get("demo").id, "receiver": "0123456789abcdef"}
    status, _, body = house.curl("pxed/cast/join", *BEARER, "--data", json.dumps(wanted))
    assert (status, json.loads(body)["error"]) == (409, "no image is sent by multicast here ([cast] enabled)")


@pytest.mark.parametrize(
    ("changed", "arguments", "status"),
    [
        ({}, (), 401),
        ({}, ("--header", "Authorization: Bearer other"), 403),
        ({"image": "0" * 64}, BEARER, 403),
        ({"image": "demo"}, BEARER, 400),
        ({"receiver": "x"}, BEARER, 400),
        ({"name": "n" * 65}, BEARER, 400),
    ],
)
def test_joins_that_are_none(
    house: House, library: Library, changed: dict[str, str], arguments: tuple[str, ...], status: int
) -> None:
    wanted = {"image": library.get("demo").id, "receiver": "0123456789abcdef", **changed}
    assert house.curl("pxed/cast/join", *arguments, "--data", json.dumps(wanted))[0] == status


def test_a_join_is_a_post(house: House) -> None:
    assert house.curl("pxed/cast/join", *BEARER)[0] == 405
