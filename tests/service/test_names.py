"""The one resolver of names: what is a file, what is made, what is refused, and what the timeline says of it."""

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from pxed._ext import files
from pxed._ext.mtftp_pxe import LARGEST_FILE
from pxed.config import Config, Dhcp, Environment, Http, Mtftp, Server, Tftp
from pxed.errors import OperatorError, RefusedError
from pxed.service import names as names_module
from pxed.service.names import BytesContent, Content, FileContent, Names, NotFound, clean_name
from pxed.service.peers import Peers
from pxed.types import Identity, Verdict
from support.machines import TOKEN, Machines

MAC = "52:54:00:00:00:07"
UUID = "00010203-0405-4607-8809-0a0b0c0d0e0f"
CHECK = f"pxed/check/mac-{MAC.replace(':', '-')}/uuid-{UUID}/serial-S%201/mfr-Acme/product-Box"
CLIENT = "198.51.100.50"  # in nobody's neighbour table
SERVER = "10.1.0.1"


class House:
    """Names over directories of the test's own."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.root, self.programs, self.environment = (directory / name for name in ("root", "programs", "environment"))
        for path in (self.root, self.programs, self.environment):
            path.mkdir()
        self.machines = Machines()
        self.peers = Peers()
        self.config = Config(
            server=Server(SERVER),
            tftp=Tftp(str(self.root)),
            dhcp=Dhcp(boot_program_dir=str(self.programs)),
            environment=Environment(dir=str(self.environment), append="quiet", console=("ttyS0",)),
            **config,
        )
        self.images: set[str] | None = {self.machines.the_job.image}  # None: the index cannot be read
        self.names = Names(
            self.config, cast(Any, self.machines), self.peers, lambda _peer: SERVER, lambda: 1000.0, self._has_image
        )
        self._fds: list[int] = []

    def _has_image(self, image: str) -> bool:
        if self.images is None:
            raise OperatorError("The image index cannot be read.")
        return image in self.images

    def build_environment(self) -> None:
        (self.environment / "vmlinuz").write_bytes(b"kernel")
        (self.environment / "initramfs.cpio.zst").write_bytes(b"initramfs")

    def open(self, name: str | bytes, via: str = "http", probe: bool = False) -> Content:
        content = asyncio.run(self.names.open(name, via=cast(Any, via), peer=CLIENT, probe=probe))
        if isinstance(content, FileContent):
            self._fds.append(content.fd)
        return content

    def data(self, name: str | bytes, via: str = "http") -> bytes:
        """The bytes under a name, which must exist."""
        content = self.open(name, via)
        if isinstance(content, BytesContent):
            return content.data
        assert isinstance(content, FileContent), content
        return os.pread(content.fd, content.size, 0)

    def text(self, name: str, via: str = "http") -> str:
        return self.data(name, via).decode()

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["tftp", "http"])
@pytest.mark.parametrize("name", ["a/b.txt", "/a/b.txt", "//a//b.txt", r"a\b.txt", r"\a\\b.txt", "./a/./b.txt"])
def test_a_file_of_the_root_in_all_spellings(house: House, name: str, via: str) -> None:
    (house.root / "a").mkdir()
    (house.root / "a/b.txt").write_bytes(b"content")
    content = house.open(name, via)
    assert isinstance(content, FileContent)
    status = (house.root / "a/b.txt").stat()
    assert (content.size, content.mtime) == (7, status.st_mtime_ns)
    assert os.pread(content.fd, 9, 0) == b"content"


def test_http_names_are_percent_decoded_and_tftp_names_are_not(house: House) -> None:
    (house.root / "a b%20c").write_bytes(b"x")
    assert house.data("/a%20b%2520c", "http") == b"x"
    assert house.data("a b%20c", "tftp") == b"x"
    assert isinstance(house.open("/a%20b%2520c", "tftp"), NotFound)


def test_names_of_any_bytes(house: House) -> None:
    raw = b"\xff\xfe.bin"
    Path(os.fsdecode(os.fsencode(house.root) + b"/" + raw)).write_bytes(b"x")
    assert house.data("/%ff%fe.bin") == b"x"
    assert house.data(raw, "tftp") == b"x"


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "a/../../outside",
        r"..\outside",
        "/..%2foutside",
        "/%2e%2e/outside",
        "/..%5coutside",
        "link-out",
        "link-absolute",
        "dir-out/outside",
        "a",  # a directory
        "fifo",
        "nothing",
        "",
        "/",
        ".",
        "file%00.txt",
        "x" * 5000,
        "file/below",
        "pxed",
        "pxed/",
        "pxed/nothing",
        "pxed/environment",
        "pxed/environment/",
        "pxed/environment/../../etc/passwd",
        "pxed/environment/link-out",
        "pxed/check/",
        "pxed/check/nonsense",
        "pxed/check/mac-/uuid-",
        "pxed/check/mac-ff-ff-ff-ff-ff-ff/uuid-",
        "pxed/check/mac-zz/uuid-",
    ],
)
def test_what_is_not_served(house: House, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (house.root / "a").mkdir()
    (house.root / "file").write_bytes(b"x")
    (house.root / "link-out").symlink_to("../outside")
    (house.root / "link-absolute").symlink_to(tmp_path / "outside")
    (house.root / "dir-out").symlink_to("..")
    (house.environment / "link-out").symlink_to("../outside")
    (house.root / "pxed").mkdir()
    (house.root / "pxed/nothing").write_bytes(b"the prefix is reserved")
    os.mkfifo(house.root / "fifo")
    content = house.open(name)
    assert isinstance(content, NotFound)
    assert content.reason
    assert house.machines.events == []


def test_a_link_within_the_root_is_followed(house: House) -> None:
    (house.root / "real").write_bytes(b"x")
    (house.root / "link").symlink_to("real")
    assert house.data("link") == b"x"


def test_boot_programs_come_from_the_hosts_directory_when_the_root_has_none(house: House, tmp_path: Path) -> None:
    (house.programs / "undionly.kpxe").write_bytes(b"host's")
    (house.programs / "other.iso").write_bytes(b"not a boot program")
    assert house.data("undionly.kpxe", "tftp") == b"host's"
    assert isinstance(house.open("other.iso", "tftp"), NotFound)
    (tmp_path / "elsewhere").write_bytes(b"linked")
    (house.programs / "snponly.efi").symlink_to("../elsewhere")  # as Debian's ipxe.efi is one to /boot
    assert house.data("snponly.efi", "tftp") == b"linked"
    (house.root / "undionly.kpxe").write_bytes(b"site's")
    assert house.data("undionly.kpxe", "tftp") == b"site's"


def test_boot_programs_without_a_file_are_known(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "LOOK_AGAIN", 0.0)
    everything = {house.config.dhcp.boot_program(arch) for arch in (0, 6, 7, 10, 11)}
    assert house.names.missing_programs() == everything
    (house.programs / "undionly.kpxe").write_bytes(b"host's")
    (house.root / "snponly-arm64.efi").write_bytes(b"site's")
    (house.root / "snponly.efi").symlink_to("/etc/hostname")  # leads out of the root: would not be served
    (house.programs / "snponly-ia32.efi").mkdir()
    assert house.names.missing_programs() == everything - {"undionly.kpxe", "snponly-arm64.efi"}
    dhcp = Dhcp(boot_programs={"0": "/bios\\x.0", "27": "../x"}, boot_program_dir=str(house.programs))
    house.names.configure(replace(house.config, dhcp=dhcp))
    (house.root / "bios").mkdir()
    assert {"/bios\\x.0", "../x"} <= house.names.missing_programs()
    (house.root / "bios/x.0").write_bytes(b"x")
    assert "/bios\\x.0" not in house.names.missing_programs()


def test_boot_programs_are_not_looked_for_at_each_request(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "LOOK_AGAIN", 1e9)
    before = house.names.missing_programs()
    (house.root / "undionly.kpxe").write_bytes(b"site's")
    assert house.names.missing_programs() is before
    house.names.configure(house.config)
    assert house.names.missing_programs() == before - {"undionly.kpxe"}


def test_a_disk_is_asked_in_a_thread(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not know yet where a file is, looking for it may take as long as its disk likes."""
    (house.root / "cold.efi").write_bytes(b"program")
    threads = []

    def open_beneath(root: int, name: str, *, cached: bool = False) -> int:
        if cached:
            raise BlockingIOError(errno.EAGAIN, "not cached")
        threads.append(threading.current_thread())
        return files.open_beneath(root, name)

    monkeypatch.setattr(names_module, "open_beneath", open_beneath)
    assert house.data("cold.efi") == b"program"
    assert isinstance(house.open("missing.efi"), NotFound)
    assert threading.main_thread() not in threads
    assert len(threads) == 2


def test_a_missing_root_is_said(house: House) -> None:
    house.root.rmdir()
    content = house.open("x")
    assert isinstance(content, NotFound)
    assert "No such file" in content.reason


def test_clean_name() -> None:
    assert clean_name(b"/a/./b\\c") == "a/b/c"
    assert clean_name(b"a/..b/c..") == "a/..b/c.."
    assert clean_name(b"..") is clean_name(b"") is clean_name(b"a\0") is None


# -- what is made ------------------------------------------------------------------------------------------------------


def test_the_first_script_asks_the_way_it_was_fetched(house: House) -> None:
    assert f"http://{SERVER}/pxed/check/mac-${{mac:hexhyp}}/" in house.text("pxed/boot.ipxe", "http")
    assert f"tftp://{SERVER}/pxed/check/" in house.text("/pxed/boot.ipxe", "tftp")


def test_other_ports_are_in_the_urls(tmp_path: Path) -> None:
    house = House(tmp_path, http=Http(8080))
    house.build_environment()
    assert f"http://{SERVER}:8080/pxed/check/" in house.text("pxed/boot.ipxe")
    assert f"pxed.server=http://{SERVER}:8080 " in house.text(CHECK, "tftp")


def test_work(house: House) -> None:
    house.build_environment()
    for via, base, name in (
        ("http", f"http://{SERVER}", CHECK),
        ("tftp", f"tftp://{SERVER}", CHECK.replace("%20", " ")),
    ):
        script = house.text(name, via)
        assert script.startswith("#!ipxe\n")
        assert f"kernel {base}/pxed/environment/vmlinuz pxed.server=http://{SERVER} pxed.token={TOKEN} " in script
        assert f"initrd --name initramfs.cpio.zst {base}/pxed/environment/initramfs.cpio.zst" in script
        assert " BOOTIF=01-52-54-00-00-00-07 " in script
        assert " console=ttyS0 " in script
        assert " quiet" in script
        assert "pxed.debug" not in script
    assert [identity for identity, _ in house.machines.sightings] == [Identity(MAC, UUID, "S 1", "Acme", "Box")] * 2
    event = house.machines.events[0]
    assert (event.kind, event.mac, event.machine_id, event.job_id) == ("check", MAC, 1, 7)
    assert event.text == "Job 7 restores demo here. Gets the imaging environment."
    assert house.data("pxed/environment/vmlinuz") == b"kernel"
    assert house.data("/pxed/environment/initramfs.cpio.zst", "tftp") == b"initramfs"


def test_a_checks_fields_are_percent_decoded_over_http_and_not_over_tftp(house: House) -> None:
    """iPXE decodes the name before it asks TFTP for it: a '%' that is there then belongs to the serial number."""
    mac = CHECK.split("/")[2]
    house.text(f"/pxed/check/{mac}/serial-50%2541%20x/mfr-A%2FB", "http")
    house.text(f"pxed/check/{mac}/serial-50%41 x/mfr-A/B", "tftp")
    said = [identity for identity, _ in house.machines.sightings]
    assert said == [Identity(MAC, serial="50%41 x", manufacturer="A/B")] * 2


def test_debug_is_passed_on(house: House) -> None:
    house.build_environment()
    house.machines.the_job = replace(house.machines.the_job, debug=True)
    assert " pxed.debug=1 " in house.text(CHECK)


@pytest.mark.parametrize(
    ("mtftp", "via", "crowd", "wanted"),
    [
        (Mtftp(), "tftp", 4, False),
        (Mtftp(enabled=True), "tftp", 3, False),
        (Mtftp(enabled=True), "tftp", 4, True),
        (Mtftp(enabled=True), "http", 4, False),
        (Mtftp(enabled=True, ipxe="always"), "http", 1, True),
        (Mtftp(enabled=True, ipxe="never"), "tftp", 4, False),
        (Mtftp(enabled=True, machines={MAC: True}), "http", 1, True),
        (Mtftp(enabled=True, ipxe="always", machines={MAC: False}), "tftp", 4, False),
    ],
)
def test_kernel_by_multicast_where_it_helps(tmp_path: Path, mtftp: Mtftp, via: str, crowd: int, wanted: bool) -> None:
    """Of several machines at a time each further one costs nothing; a single one would only wait longer."""
    house = House(tmp_path, mtftp=mtftp)
    house.build_environment()
    script = [house.text(CHECK, via) for _ in range(crowd)][-1]
    assert (f"kernel mtftp://{SERVER}:1760/pxed/environment/vmlinuz pxed.server=" in script) is wanted
    assert f"kernel {'tftp' if via == 'tftp' else 'http'}://{SERVER}/pxed/environment/vmlinuz pxed.server=" in script


def test_a_kernel_that_mtftp_cannot_carry_is_not_tried(tmp_path: Path) -> None:
    house = House(tmp_path, mtftp=Mtftp(enabled=True, ipxe="always"))
    house.build_environment()
    os.truncate(house.environment / "vmlinuz", LARGEST_FILE + 1)
    assert "mtftp:" not in house.text(CHECK)


def test_boot_programs_that_mtftp_cannot_carry(house: House) -> None:
    (house.root / "snponly.efi").write_bytes(b"")
    os.truncate(house.root / "snponly.efi", LARGEST_FILE + 1)
    (house.programs / "undionly.kpxe").write_bytes(b"program")
    assert house.names.large_programs() == {"snponly.efi"}
    assert not {"snponly.efi", "undionly.kpxe"} & house.names.missing_programs()


@pytest.mark.parametrize("verdict", [Verdict.NO_WORK, Verdict.IGNORE])
def test_no_work_boots_the_local_disk(house: House, verdict: Verdict) -> None:
    house.machines.verdict, house.machines.reason = verdict, "No job waits for this machine."
    script = house.text(CHECK)
    assert "sanboot" in script
    assert "kernel" not in script
    assert house.machines.tickets == 0
    assert house.machines.events[0].text == "No job waits for this machine. Boots its own disk."


def test_hold_asks_again(house: House) -> None:
    house.machines.verdict, house.machines.reason = Verdict.HOLD, "Unknown machine."
    script = house.text(CHECK, "tftp")
    assert f"chain --replace --autofree tftp://{SERVER}/pxed/boot.ipxe" in script
    assert "sleep" in script
    assert house.machines.tickets == 0


def test_a_head_of_a_check_has_no_effect(house: House) -> None:
    assert house.open(CHECK, probe=True) == BytesContent(b"")
    assert house.machines.sightings == house.machines.events == []
    assert house.machines.tickets == 0


def test_without_an_environment_the_job_waits_and_the_timeline_says_why(house: House) -> None:
    (house.environment / "vmlinuz").write_bytes(b"kernel")
    script = house.text(CHECK)
    assert "the imaging environment has not been built" in script
    assert "sanboot" in script
    assert house.machines.tickets == 0, "the job stays pending"
    (event,) = house.machines.events
    assert "initramfs.cpio.zst missing" in event.text
    assert "run `pxed environment build`" in event.text
    assert "the job waits" in event.text


@pytest.mark.parametrize("via", ["tftp", "http"])
def test_a_job_whose_image_is_gone_fails_before_the_environment(house: House, via: str) -> None:
    house.build_environment()
    house.images = set()
    script = house.text(CHECK, via)
    assert "The image demo of job 7 is gone." in script
    assert "sanboot" in script and "kernel" not in script
    assert house.machines.failed == [(7, "boot", "The image demo of job 7 is gone.")]
    assert house.machines.tickets == 0
    (event,) = house.machines.events
    assert event.text == "The image demo of job 7 is gone. Boots its own disk."


def test_an_unreadable_image_index_fails_no_job(house: House) -> None:
    house.build_environment()
    house.images = None
    assert "job 7 cannot be looked at now: The image index cannot be read." in house.text(CHECK)
    assert house.machines.failed == []
    house.images = set()
    house.machines.failure = RefusedError("Job 7 has ended already: it is cancelled.")
    assert "Job 7 has ended a moment ago." in house.text(CHECK)
    assert house.machines.tickets == 0


def test_the_job_may_be_gone_between_check_and_ticket(house: House) -> None:
    house.build_environment()
    house.machines.ticket = lambda identity, now: None  # type: ignore[method-assign]
    assert "sanboot" in house.text(CHECK)


def test_a_new_configuration_is_taken_over(house: House, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/x").write_bytes(b"new")
    house.names.configure(Config(server=Server(SERVER), tftp=Tftp(str(tmp_path / "new"))))
    assert house.data("x") == b"new"


# -- what was delivered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("undionly.kpxe", "boot-program", "undionly.kpxe fetched over TFTP (74 KB in 0.2 s)"),
        (r"\EFI\BOOT\grubx64.EFI", "boot-program", "EFI/BOOT/grubx64.EFI fetched over TFTP (74 KB in 0.2 s)"),
        ("/pxed/boot.ipxe", "boot-program", "boot script fetched over TFTP (74 KB in 0.2 s)"),
        ("pxed/environment/vmlinuz", "environment", "kernel fetched over TFTP (74 KB in 0.2 s)"),
        (
            "pxed/environment/initramfs.cpio.zst",
            "environment",
            "initramfs fetched completely over TFTP (74 KB in 0.2 s)",
        ),
        ("menu.cfg", "", ""),
        (CHECK, "", ""),
        ("..", "", ""),
    ],
)
def test_deliveries_in_the_timeline(house: House, name: str, kind: str, text: str) -> None:
    house.peers.learn(CLIENT, MAC)
    house.names.delivered(name, via="tftp", peer=CLIENT, size=74_321, seconds=0.21)
    told = [(event.kind, event.text, event.mac) for event in house.machines.events]
    assert told == ([(kind, text, MAC)] if kind else [])


def test_a_delivery_to_nobody_known_is_only_logged(house: House) -> None:
    house.names.delivered("undionly.kpxe", via="tftp", peer=CLIENT, size=1, seconds=0.0)
    assert house.machines.events == []


def test_a_check_teaches_whose_the_address_is(house: House) -> None:
    house.build_environment()
    house.text(CHECK)
    house.names.delivered("/pxed/environment/vmlinuz", via="http", peer=CLIENT, size=57_300_000, seconds=1)
    assert house.machines.events[-1].text == "kernel fetched over HTTP (57.3 MB in 1.0 s)"
    assert house.machines.events[-1].mac == MAC


def test_peers_forget_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxed.service.peers._CAPACITY", 2)
    peers = Peers()
    for last in (1, 2, 1, 3):
        peers.learn(f"198.51.100.{last}", f"52:54:00:00:00:0{last}")
    peers.learn("0.0.0.0", MAC)
    peers.learn("198.51.100.9", "")
    assert [peers.mac(f"198.51.100.{last}") for last in (1, 2, 3, 9)] == [
        "52:54:00:00:00:01",
        "",
        "52:54:00:00:00:03",
        "",
    ]
    assert peers.mac("0.0.0.0") == ""
