"""The builder's parts that need no packages: what is kept, where archives come from, what a host lacks."""

import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from pxed import environment
from pxed.environment import contents, fetch, host
from pxed.environment._build import Built, is_signed
from pxed.errors import NotFoundError, OperatorError

TARGETS = """\
Debian|http://deb.example/debian/|bookworm|main
Debian|http://deb.example/debian/|bookworm|contrib
Debian|http://deb.example/debian/|bookworm-updates|main
Debian|http://deb.example/debian-security/|bookworm-security|main
Debian|http://deb.example/debian/|trixie|main
Debian Backports|http://deb.example/debian/|bookworm-backports|main
. nodistro|https://other.example/|bookworm|main
"""


# -- the host ----------------------------------------------------------------------------------------------------------


def test_the_archives_are_those_of_the_hosts_apt() -> None:
    found = host.sources("bookworm", TARGETS)
    assert [source.line(("main", "x")) for source in found] == [
        "deb http://deb.example/debian/ bookworm main x",
        "deb http://deb.example/debian/ bookworm-updates main x",
        "deb http://deb.example/debian-security/ bookworm-security main x",
    ]


@pytest.mark.parametrize("targets", ["", "Debian|http://deb.example/debian/|bookworm-updates|main\n"])
def test_a_host_that_never_asked_its_archives_is_told_to(targets: str) -> None:
    with pytest.raises(OperatorError, match="apt-get update"):
        host.sources("bookworm", targets)


def test_the_release_is_the_hosts() -> None:
    assert host.release('PRETTY_NAME="Debian 12"\nID=debian\nVERSION_CODENAME="bookworm"\n# x\n') == "bookworm"


@pytest.mark.parametrize("text", ["", "ID=fedora\nPRETTY_NAME='Fedora 42'\n", "ID=debian\n"])
def test_another_distribution_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(OperatorError, match="on a Debian host; this one calls itself"):
        host.release(text)


def test_every_missing_tool_is_named_with_its_package() -> None:
    sentences = host.missing_tools(lambda tool: None)
    assert any("mksquashfs is missing: apt-get install squashfs-tools" in sentence for sentence in sentences)
    assert len(sentences) >= len(host.TOOLS)
    assert host.missing_tools(lambda tool: "/usr/bin/" + tool) == []


def test_a_host_that_cannot_build_says_all_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "missing_tools", lambda: ["The first is missing.", "The second is missing."])
    with pytest.raises(OperatorError, match=r"cannot be built on this host(.|\n)*first(.|\n)*second"):
        environment.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_python_than_debians_is_refused(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    for name in ("python3.99", "python3.7"):
        (tmp_path / "usr/bin" / name).touch()
    with pytest.raises(OperatorError, match=r"Python 3\.\d+ here, but the Debian packages have Python 3\."):
        host.suite_python(tmp_path)
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "usr/bin" / f"python{ours}").touch()
    assert host.suite_python(tmp_path) == ours


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(OperatorError, match=r"sh failed \(exit code 3\):\n  the reason"):
        host.run(["sh", "-c", "echo the reason >&2; exit 3"])


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_paths_are_merged_into_usr() -> None:
    assert fetch.merged("./bin/kmod") == "usr/bin/kmod"
    assert fetch.merged("./lib/modules/6/x.ko") == "usr/lib/modules/6/x.ko"
    assert fetch.merged("./usr/sbin/sfdisk") == "usr/sbin/sfdisk"
    assert fetch.merged("./boot/vmlinuz-6") == "boot/vmlinuz-6"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/bin/busybox", True),
        ("usr/bin/python3.11", True),
        ("usr/bin/perl", False),
        ("usr/lib/python3.11/json/decoder.py", True),
        ("usr/lib/python3.11/test/support/os_helper.py", False),
        ("usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", False),
        ("usr/lib/python3.11/lib-dynload/mmap.cpython-311-x86_64-linux-gnu.so", True),
        ("usr/lib/modules/6.1/kernel/drivers/net/ethernet/intel/e1000/e1000.ko", True),
        ("usr/lib/modules/6.1/kernel/drivers/net/ethernet/intel/e1000/e1000.ko.xz", True),
        ("usr/lib/modules/6.1/kernel/drivers/gpu/drm/i915/i915.ko", False),
        ("usr/lib/modules/6.1/modules.builtin", True),
        ("usr/lib/firmware/rtl_nic/rtl8168h-2.fw", True),
        ("usr/lib/firmware/netronome/nic.nffw", False),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", True),
        ("usr/lib/x86_64-linux-gnu/gconv.txt", False),
        ("usr/share/doc/kmod/copyright", False),
        ("boot/vmlinuz-6.1", True),
        ("boot/System.map-6.1", False),
    ],
)
def test_what_is_wanted_of_a_package(path: str, kept: bool) -> None:
    assert fetch.wanted(path) is kept


def test_lists_are_sorted_and_say_things_once() -> None:
    for rows in (contents.MODULES, contents.MODULES_LEFT_OUT, contents.FIRMWARE_PACKAGES, contents.AGENT_MODULES):
        assert list(rows) == sorted(set(rows))


def test_the_agent_needs_no_more_of_pxed_than_the_environment_carries(tmp_path: Path) -> None:
    package = Path(environment.__file__).parents[1]
    for pattern in contents.AGENT_MODULES:
        found = list(package.glob(pattern))
        assert found, pattern
        for path in found:
            target = tmp_path / "pxed" / path.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    # Beside pxed, only the distributions that are copied, and none of the modules that are pruned from the library.
    code = f"""
import sys, importlib.abc, pathlib
class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("ssl", "_ssl", "_hashlib", "sqlite3", "asyncio", "unittest", "typing_extensions"):
            raise ImportError(name)
sys.meta_path.insert(0, Forbid())
sys.path.insert(0, {str(tmp_path)!r})
for path in [*pathlib.Path({str(tmp_path)!r}).rglob("*.py"), *pathlib.Path({str(tmp_path)!r}).rglob("*.so")]:
    __import__(".".join([*path.relative_to({str(tmp_path)!r}).parts[:-1], path.name.partition(".")[0]]))
roots = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
print(*sorted(name for name in roots if getattr(sys.modules[name], "__file__", None)))
"""
    paths = {str(Path(find_spec(name).origin).parents[1]) for name in contents.AGENT_DISTRIBUTIONS}
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sorted(paths)!r}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {
        "pxed",
        "__main__",
        *contents.AGENT_DISTRIBUTIONS,
        "_cython_runtime",
        "_cyutility",
    }


@pytest.mark.parametrize("name", ["init", "start", "lease"])
def test_scripts_are_valid_for_the_environments_shell(name: str) -> None:
    script = Path(environment.__file__).parent / "data" / name
    subprocess.run(["busybox", "sh", "-n", str(script)], check=True)


# -- the record --------------------------------------------------------------------------------------------------------


def pe(certificates: int) -> bytes:
    """The beginning of a PE image."""
    head = bytearray(4096)
    struct.pack_into("<I", head, 0x3C, 0x80)
    head[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<II", head, 0x80 + 24 + 112 + 32, 0x1000 if certificates else 0, certificates)
    return bytes(head)


def test_a_signed_kernel_is_told_from_an_unsigned_one(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    for content, signed in ((pe(1400), True), (pe(0), False), (bytes(4096), False)):
        kernel.write_bytes(content)
        assert is_signed(kernel) is signed


def test_what_was_built_can_be_shown_and_damage_is_seen(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="pxed environment build"):
        environment.show(tmp_path)
    sizes = dict.fromkeys(environment.FILES, 3)
    built = Built("bookworm", "6.1", True, True, "3.11", "0.1", 1, ("a 1",), dict.fromkeys(sizes, "00"), sizes, 1)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(built))
    with pytest.raises(NotFoundError, match="missing or damaged"):
        environment.show(tmp_path)
    for name in environment.FILES:
        (tmp_path / name).write_bytes(b"abc")
    assert environment.show(tmp_path) == built
    assert built.size == 6
    (tmp_path / "vmlinuz").write_bytes(b"ab")
    with pytest.raises(NotFoundError, match="vmlinuz is missing or damaged"):
        environment.show(tmp_path)
