"""The builder: packages in, `vmlinuz`, `initramfs.cpio.zst` and `manifest.json` out."""

import hashlib
import importlib.metadata
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pxed.environment import fetch, host, pack
from pxed.environment.tree import Tree
from pxed.errors import NotFoundError, OperatorError

__all__ = ["FILES", "Built", "build", "show"]

FILES = ("vmlinuz", "initramfs.cpio.zst")


class Built(msgspec.Struct, frozen=True):
    """A built environment, as `manifest.json` records it. Equal inputs give an equal record, `seconds` aside."""

    suite: str
    kernel: str  # release, as `uname -r` will say
    signed: bool  # the kernel carries a signature for Secure Boot
    firmware: bool  # firmware files for network cards are in it
    python: str
    pxed: str  # version of the agent
    modules: int
    packages: tuple[str, ...]  # "name version"
    sha256: dict[str, str]  # file name -> hash
    bytes: dict[str, int]  # file name -> size
    epoch: int  # every file's time
    seconds: float = 0.0

    @property
    def size(self) -> int:
        """Bytes that a machine loads: kernel and initramfs."""
        return sum(self.bytes.values())


def build(out_dir: Path | str, progress: Callable[[str], None] = lambda _: None, cache: Path | None = None) -> Built:
    """Build the environment into `out_dir`, whose old files stay in use until the new ones are complete.

    `progress` gets one sentence per step; `cache` keeps what was unpacked (default: `cache` beside `out_dir`).
    Raises OperatorError with a sentence for everything that this host lacks.
    """
    began = time.monotonic()
    if missing := host.missing_tools():
        raise OperatorError("The imaging environment cannot be built on this host.\n" + "\n".join(missing))
    out = Path(out_dir).absolute()
    suite = host.release(Path("/etc/os-release").read_text())
    sources = host.sources(suite)
    if not out.is_dir():
        out.mkdir(parents=True)
        out.chmod(0o755)  # whatever the umask: the server reads it as a user of its own
    # A gigabyte for a minute: /var/tmp is on disk where /tmp is often memory.
    place = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 (a private directory is made in it)
    with tempfile.TemporaryDirectory(prefix="pxed-environment-", dir=place) as scratch:
        work = Path(scratch)
        work.chmod(0o755)  # mmdebstrap in a user namespace has to reach it
        progress(f"Asking apt for the packages of Debian {suite}.")
        packages = fetch.resolve(suite, sources, progress)
        root = work / "root"
        fetch.unpack(fetch.fetch(packages, cache or out.parent / "cache", progress), root)
        python = host.suite_python(root)
        tree = Tree(root)
        kernel = _take_kernel(tree, work / "vmlinuz")
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or int(kernel.stat().st_mtime))
        progress(f"Choosing drivers of Linux {tree.kernel}, libraries and the agent.")
        modules, early = tree.choose_modules()
        tree.choose_firmware(modules)
        version = importlib.metadata.version("pxed")
        tree.add_agent(python, version)
        tree.choose_libraries()
        tree.link_python(python)
        tree.add_scripts()
        progress("Compressing.")
        pack.pack(tree, early, work, work / "initramfs.cpio.zst", epoch)
        built = Built(
            suite=suite,
            kernel=tree.kernel,
            signed=is_signed(kernel),
            firmware=packages.firmware,
            python=python,
            pxed=version,
            modules=len(modules),
            packages=packages.names,
            sha256={name: hashlib.sha256((work / name).read_bytes()).hexdigest() for name in FILES},
            bytes={name: (work / name).stat().st_size for name in FILES},
            epoch=epoch,
            seconds=round(time.monotonic() - began, 1),
        )
        _publish(work, out, built)
    return built


def show(out_dir: Path | str) -> Built:
    """The record of a built environment. Raises NotFoundError when there is none, or one of its files is missing."""
    out = Path(out_dir)
    try:
        built = msgspec.json.decode((out / "manifest.json").read_bytes(), type=Built)
    except (OSError, msgspec.MsgspecError) as error:
        raise NotFoundError(f"There is no imaging environment in {out}: run pxed environment build.") from error
    for name, size in built.bytes.items():
        if not (out / name).is_file() or (out / name).stat().st_size != size:
            raise NotFoundError(f"{out / name} is missing or damaged: run pxed environment build.")
    return built


def is_signed(kernel: Path) -> bool:
    """Whether a PE image (a kernel with EFI stub) carries a certificate table, as Secure Boot wants."""
    head = kernel.read_bytes()[:4096]
    (pe,) = struct.unpack_from("<I", head, 0x3C)
    if head[pe : pe + 4] != b"PE\0\0":
        return False
    # Optional header (PE32+): data directories begin at 112, the certificate table is the fifth, 8 bytes each.
    _, size = struct.unpack_from("<II", head, pe + 24 + 112 + 4 * 8)
    return bool(size)


def _take_kernel(tree: Tree, target: Path) -> Path:
    found = tree.root / "boot" / f"vmlinuz-{tree.kernel}"
    shutil.copy2(found, target)
    shutil.rmtree(tree.root / "boot")
    return target


def _publish(work: Path, out: Path, built: Built) -> None:
    """Move the files in place, the record last: a machine that boots meanwhile gets old or new files, never half."""
    (work / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(built), indent=2) + b"\n")
    for name in (*FILES, "manifest.json"):
        beside = out / f".{name}.new"
        shutil.copyfile(work / name, beside)
        beside.chmod(0o644)
        beside.replace(out / name)
