"""Debian packages, resolved by apt and unpacked by mmdebstrap, reduced to what `contents` lists."""

import shlex
import tarfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from pxed.environment import contents
from pxed.environment.host import Source, run
from pxed.errors import OperatorError

__all__ = ["fetch", "merged", "unpack", "wanted"]

# Left in the tree by a hook: what apt resolved, one "Inst NAME (VERSION …)" line each.
RESOLVED = "pxed-resolved"


def fetch(suite: str, sources: list[Source], cache: Path, tar: Path, progress: Callable[[str], None]) -> bool:
    """Leave the unpacked packages in `tar`; True when the firmware of network cards is among them.

    Downloaded packages are kept in `cache`. Raises OperatorError when apt cannot resolve or download.
    """
    cache.mkdir(parents=True, exist_ok=True)
    try:
        _mmdebstrap(suite, sources, ("main", "non-free-firmware"), cache, tar)
        return True
    except OperatorError as error:
        progress(f"The archive component non-free-firmware is not usable: {str(error).splitlines()[-1].strip()}")
        progress("Going on without it: network cards that need firmware will not work in this environment.")
    _mmdebstrap(suite, sources, ("main",), cache, tar)
    return False


def _mmdebstrap(suite: str, sources: list[Source], components: tuple[str, ...], cache: Path, tar: Path) -> None:
    packages: tuple[str, ...] = contents.PACKAGES
    if "non-free-firmware" in components:
        packages += contents.FIRMWARE_PACKAGES
    archives, place = "/var/cache/apt/archives", shlex.quote(str(cache))
    simulate = "apt-get -q -s -o APT::Install-Recommends=false install " + " ".join(packages)
    run(
        [
            "mmdebstrap",
            "--variant=extract",
            "--format=tar",
            "--quiet",
            "--skip=essential/unlink",
            "--aptopt=Apt::Install-Recommends false",
            "--dpkgopt=path-exclude=/usr/share/*",
            f"--include={','.join(packages)}",
            f'--setup-hook=mkdir -p "$1"{archives}',
            f"--setup-hook=sync-in {place} {archives}",
            f'--extract-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {simulate} | grep ^Inst >"$1"/{RESOLVED}',
            f"--extract-hook=sync-out {archives} {place}",
            suite,
            str(tar),
            *(source.line(components) for source in sources),
        ]
    )


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
        return kernel_module(path) or "/kernel/" not in path
    if path.startswith("usr/lib/firmware/"):
        inside = path.removeprefix("usr/lib/firmware/")
        return not any(fnmatchcase(inside, pattern) for pattern in contents.FIRMWARE_LEFT_OUT)
    if path.startswith(("usr/lib/x86_64-linux-gnu/", "usr/lib64/")):
        return ".so" in path
    return path.startswith("boot/vmlinuz-") or any(fnmatchcase(path, pattern) for pattern in contents.PROGRAMS)


def kernel_module(path: str) -> bool:
    """Whether a path is a loadable module of the kernel, compressed or not."""
    return fnmatchcase(path, "usr/lib/modules/*/kernel/*.ko*")


def unpack(tar: Path, tree: Path) -> list[str]:
    """Unpack what is wanted below `tree`, merged into /usr; returns the packages as "name version", sorted.

    Raises OperatorError when the tar holds no resolved list, so that a manifest never lacks its packages.
    """
    packages: list[str] = []
    with tarfile.open(tar) as archive:
        # Python 3.14 refuses absolute links by default ("data"); packages have them, and apt has checked signatures.
        archive.extraction_filter = lambda member, _: member
        for member in archive:
            if member.name.endswith(RESOLVED):
                stream = archive.extractfile(member)
                assert stream is not None
                words = [line.split() for line in stream.read().decode().splitlines()]
                packages = sorted(f"{name} {version.lstrip('(')}" for _, name, version, *_ in words)
                continue
            member.name = merged(member.name)
            if member.islnk():
                member.linkname = merged(member.linkname)
            if (member.isreg() or member.issym() or member.islnk()) and wanted(member.name):
                archive.extract(member, tree)
    if not packages:
        raise OperatorError("mmdebstrap left no list of packages: apt could not resolve them.")
    return packages


def forget_old(cache: Path, packages: list[str]) -> None:
    """Remove packages from the cache that the last build did not use (older versions)."""
    used = {tuple(line.split()) for line in packages}
    for path in cache.glob("*.deb"):
        name, version, _ = path.name.split("_", 2)
        if (name, version.replace("%3a", ":")) not in used:
            path.unlink()
