"""Debian packages, resolved by apt and unpacked by mmdebstrap, reduced to what `contents` lists.

What is kept of them lies in a cache as one tar, named by the packages' versions and the lists: a second build asks
apt for the versions of today, finds them there and unpacks nothing.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import zstandard
from msgspec import Struct

from pxed.environment import contents
from pxed.environment.host import Source, run, run_failed
from pxed.errors import OperatorError

__all__ = ["Packages", "fetch", "kernel_module", "merged", "resolve", "unpack", "wanted"]

NONFREE = "non-free-firmware"
LISTS = (contents.PROGRAMS, contents.STDLIB_LEFT_OUT, contents.FIRMWARE_LEFT_OUT, contents.MODULE_TREES_LEFT_OUT)


class Packages(Struct, frozen=True):
    """What apt chose, and from where."""

    suite: str
    sources: tuple[Source, ...]
    components: tuple[str, ...]
    names: tuple[str, ...] = ()  # "name version", sorted

    @property
    def firmware(self) -> bool:
        """Whether the firmware of network cards is among them."""
        return NONFREE in self.components

    @property
    def key(self) -> str:
        """Names the tar that these packages give."""
        return hashlib.sha256(repr((self.names, LISTS)).encode()).hexdigest()[:16]

    def command(self, target: str, *options: str) -> list[str]:
        """The call of mmdebstrap that unpacks them to `target`."""
        packages: tuple[str, ...] = contents.PACKAGES
        if self.firmware:
            packages += contents.FIRMWARE_PACKAGES
        lines = [source.line(self.components) for source in self.sources]
        include = f"--include={','.join(packages)}"
        return ["mmdebstrap", "--variant=extract", *options, include, self.suite, target, *lines]


def resolve(suite: str, sources: list[Source], progress: Callable[[str], None]) -> Packages:
    """The packages in the versions of today. Raises OperatorError when apt cannot resolve them."""
    try:
        return _resolve(Packages(suite, tuple(sources), ("main", NONFREE)))
    except OperatorError as error:
        progress(f"The archive component {NONFREE} is not usable: {str(error).splitlines()[-1].strip()}")
        progress("Going on without it: network cards that need firmware will not work in this environment.")
    return _resolve(Packages(suite, tuple(sources), ("main",)))


def _resolve(packages: Packages) -> Packages:
    said = run(packages.command("/dev/null", "--simulate", "--verbose"), stderr=True).decode()
    words = [line.split() for line in said.splitlines() if line.startswith("Inst ")]
    if not words:
        raise OperatorError("mmdebstrap resolved no packages.")
    names = tuple(sorted(f"{name} {version.lstrip('(')}" for _, name, version, *_ in words))
    return Packages(packages.suite, packages.sources, packages.components, names)


def fetch(packages: Packages, cache: Path, progress: Callable[[str], None]) -> Path:
    """The tar of what is wanted of the packages, from the cache or downloaded into it. Raises OperatorError."""
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"unpacked-{packages.key}.tar.zst"
    if kept.exists():
        return kept
    progress(f"Downloading and unpacking {len(packages.names)} packages.")
    beside = cache / f".{kept.name}.{os.getpid()}"
    command = packages.command("-", "--quiet", "--format=tar")
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                _filter(process.stdout, beside)
            except tarfile.TarError:
                process.kill()
            errors = process.stderr.read()
        if process.returncode:
            raise run_failed("mmdebstrap", process.returncode, errors)
        beside.replace(kept)
    finally:
        beside.unlink(missing_ok=True)
    for old in cache.glob("unpacked-*.tar.zst"):
        if old != kept:
            old.unlink()
    return kept


def _filter(stream: IO[bytes], target: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as source, _open(target, "w") as kept:
        for member in source:
            member.name = merged(member.name)
            member.pax_headers = {}  # the long form of the old name would win
            if member.islnk():
                member.linkname = merged(member.linkname)
            if (member.isreg() or member.issym() or member.islnk()) and wanted(member.name):
                kept.addfile(member, source.extractfile(member) if member.isreg() else None)
    shutil.copyfileobj(stream, _Nowhere())


@contextmanager
def _open(path: Path, mode: Literal["r", "w"]) -> Iterator[tarfile.TarFile]:
    """A tar compressed with zstd, lightly: half a gigabyte of drivers becomes a fifth of that in two seconds."""
    with (
        zstandard.open(path, f"{mode}b") as stream,
        tarfile.open(fileobj=stream, mode=f"{mode}|") as archive,  # type: ignore[call-overload]
    ):
        yield archive


class _Nowhere:
    """Takes what follows a tar's end, so that the program that writes it does not die of a closed pipe."""

    def write(self, data: bytes) -> int:
        return len(data)


def merged(name: str) -> str:
    """A path of a package with /bin, /sbin, /lib and /lib64 inside /usr, without a leading './'."""
    path = PurePosixPath(name.removeprefix("./"))
    if path.parts and path.parts[0] in ("bin", "sbin", "lib", "lib64"):
        path = "usr" / path
    return str(path)


def wanted(path: str) -> bool:
    """Whether a merged path may end in the environment; libraries and modules are thinned out later."""
    if path.startswith("usr/lib/python3"):
        inside = "/".join(path.split("/")[3:])
        parents = [inside, *(str(parent) for parent in PurePosixPath(inside).parents)]
        return not any(fnmatchcase(parent, pattern) for parent in parents for pattern in contents.STDLIB_LEFT_OUT)
    if path.startswith("usr/lib/modules/"):
        inside = path.partition("/kernel/")[2]
        return not inside or (kernel_module(path) and not inside.startswith(contents.MODULE_TREES_LEFT_OUT))
    if path.startswith("usr/lib/firmware/"):
        inside = path.removeprefix("usr/lib/firmware/")
        return not any(fnmatchcase(inside, pattern) for pattern in contents.FIRMWARE_LEFT_OUT)
    if path.startswith(("usr/lib/x86_64-linux-gnu/", "usr/lib64/")):
        return ".so" in path
    return path.startswith("boot/vmlinuz-") or any(fnmatchcase(path, pattern) for pattern in contents.PROGRAMS)


def kernel_module(path: str) -> bool:
    """Whether a path is a loadable module of the kernel, compressed or not."""
    return fnmatchcase(path, "usr/lib/modules/*/kernel/*.ko*")


def unpack(tar: Path, tree: Path) -> None:
    """Unpack what `fetch` kept."""
    with _open(tar, "r") as archive:
        # Python 3.14 refuses absolute links by default; packages have them, and apt has checked who made them.
        archive.extraction_filter = lambda member, _: member
        for member in archive:
            archive.extract(member, tree, set_attrs=not member.issym())
