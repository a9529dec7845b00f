"""The unpacked packages made into the environment's root: libraries, kernel modules, firmware, Python, the agent.

Programs of the new tree (ld.so, depmod, modinfo, Python) do the work themselves, called through the tree's own
loader, so that nothing depends on the versions that the host happens to have.
"""

import importlib.metadata
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

from pxed.environment import contents
from pxed.environment.fetch import kernel_module
from pxed.environment.host import run
from pxed.errors import InternalError, OperatorError

__all__ = ["Tree"]

LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PACKAGES = "usr/lib/pxed"  # the agent and what it imports; our own scripts


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether any wildcard pattern fits; '*' also crosses '/'."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


class Tree:
    """The environment's root filesystem while it is built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loader = _inside(root, root / LOADER)
        kernels = sorted(path.name for path in (root / "usr/lib/modules").iterdir())
        if len(kernels) != 1:
            raise OperatorError(f"The packages hold {len(kernels)} kernels instead of one: {', '.join(kernels)}")
        self.kernel = kernels[0]
        self.modules = root / "usr/lib/modules" / self.kernel

    def call(self, program: str, *words: str, name: str = "", env: dict[str, str] | None = None) -> str:
        """Run a program of the tree with the tree's libraries; `name` is what it is called as (kmod, busybox)."""
        libraries = str(self.root / LIBRARIES)
        path = str(self.root / program)
        command = [str(self.loader), "--inhibit-cache", "--library-path", libraries]
        return run([*command, *(["--argv0", name] if name else []), path, *words], env=env).decode()

    # -- kernel modules and firmware --------------------------------------------------------------------------------

    def choose_modules(self) -> tuple[list[str], list[str]]:
        """Keep the listed modules and what they need.

        Returns all kept modules and, in loading order, those of the first stage, as paths below /usr/lib/modules/V.
        """
        self.call("usr/bin/kmod", "-b", str(self.root / "usr"), self.kernel, name="depmod")
        needs: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            module, _, needed = line.partition(":")
            needs[module] = needed.split()
        listed, left_out = _below_kernel(contents.MODULES), _below_kernel(contents.MODULES_LEFT_OUT)
        roots = [module for module in needs if matches(module, listed) and not matches(module, left_out)]
        early = [module for module in needs if matches(module, _below_kernel(contents.EARLY_MODULES))]
        keep = set(roots).union(*(needs[module] for module in roots))
        for path in list(self.root.rglob("*.ko*")):
            if kernel_module(str(path.relative_to(self.root))) and str(path.relative_to(self.modules)) not in keep:
                path.unlink()
        self.call("usr/bin/kmod", "-b", str(self.root / "usr"), self.kernel, name="depmod")
        order: list[str] = []
        for module in early:  # modules.dep lists the deepest need last
            order += [need for need in [*reversed(needs[module]), module] if need not in order]
        return sorted(keep), order

    def choose_firmware(self, modules: list[str]) -> list[str]:
        """Keep the firmware files that kept modules name; returns the names that no package has, for the record."""
        paths = [str(self.modules / module) for module in modules]
        named = set(self.call("usr/bin/kmod", "-F", "firmware", *paths, name="modinfo").split())
        place = self.root / "usr/lib/firmware"
        keep: set[Path] = set()
        for name in named:
            for path in place.glob(name) if place.is_dir() else ():
                keep.update((path, _inside(self.root, path)))
        for path in list(place.rglob("*")):
            if not path.is_dir() and path not in keep:
                path.unlink()
        return sorted(name for name in named if place.is_dir() and not any(place.glob(name)))

    # -- Python -----------------------------------------------------------------------------------------------------

    def add_agent(self, python: str, version: str) -> None:
        """Copy the agent, its part of pxed and its packages, and compile all of Python's modules.

        Compiled files carry no check of the source: under emulation that saves a stat and a read for each module.
        """
        place = self.root / PACKAGES
        package = Path(str(files("pxed")))
        for pattern in contents.AGENT_MODULES:
            for path in sorted(package.glob(pattern)):
                _copy(path, place / "pxed" / path.relative_to(package))
        (place / "pxed/agent/VERSION").write_text(version)
        for name in contents.AGENT_DISTRIBUTIONS:
            for file in importlib.metadata.files(name) or ():
                inside = file.parts[0] == name and not matches(str(file), contents.DISTRIBUTION_LEFT_OUT)
                if inside and file.suffix != ".pyc":
                    _copy(Path(str(file.locate())), place / str(file))
        self._compile(python)

    def _compile(self, python: str) -> None:
        library = self.root / f"usr/lib/python{python}"
        words = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(self.root), "-p", "/"]
        self.call(
            f"usr/bin/python{python}",
            "-S",
            "-s",
            "-B",
            "-m",
            "compileall",
            *words,
            str(library),
            str(self.root / PACKAGES),
            env={"PYTHONHOME": str(self.root / "usr"), "PYTHONHASHSEED": "0"},
        )

    # -- the rest ---------------------------------------------------------------------------------------------------

    def add_scripts(self) -> None:
        """Our own scripts, busybox applets as links, and the directories that are mounted over."""
        for name in ("start", "lease"):
            target = self.root / PACKAGES / name
            target.write_bytes(files("pxed.environment").joinpath("data", name).read_bytes())
            target.chmod(0o755)
        for applet in run([str(self.root / "usr/bin/busybox"), "--list"]).decode().split():
            link = self.root / "usr/bin" / applet
            if not link.exists() and not (self.root / "usr/sbin" / applet).exists():
                link.symlink_to("busybox")
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        for name in ("dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var"):
            (self.root / name).mkdir()
        (self.root / "var/run").symlink_to("/run")
        (self.root / "var/lock").symlink_to("/run/lock")
        (self.root / "etc/resolv.conf").symlink_to("/run/resolv.conf")
        (self.root / "etc/mtab").symlink_to("/proc/self/mounts")
        (self.root / "etc/passwd").write_text("root::0:0:root:/tmp:/bin/sh\n")
        (self.root / "etc/group").write_text("root::0:\n")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")

    def link_python(self, python: str) -> None:
        """`python3` is this Python."""
        (self.root / "usr/bin/python3").unlink(missing_ok=True)
        (self.root / "usr/bin/python3").symlink_to(f"python{python}")

    def choose_libraries(self) -> None:
        """Keep the shared libraries that some program or extension module needs, as the tree's own loader finds them.

        Raises OperatorError when one is missing, so that a broken list is seen here and not on a machine.
        """
        used = {self.root / LOADER, self.loader}
        for path in [*self.root.rglob("usr/bin/*"), *self.root.rglob("usr/sbin/*"), *self.root.rglob("*.so*")]:
            if path.is_symlink() or self.root / LIBRARIES in path.parents or not _is_elf(path):
                continue
            for library in self._needs(path):
                used.update((library, _inside(self.root, library)))
        for path in list((self.root / LIBRARIES).rglob("*")):
            if not path.is_dir() and path not in used:
                path.unlink()

    def _needs(self, path: Path) -> list[Path]:
        loader = [str(self.loader), "--inhibit-cache", "--library-path", str(self.root / LIBRARIES)]
        # The loader says 1 to a static program, which needs nothing (and which it cannot list).
        if subprocess.run([*loader, "--verify", str(path)], capture_output=True).returncode == 1:
            return []
        text = run([*loader, "--list", str(path)]).decode()
        if missing := re.findall(r"(\S+) => not found", text):
            raise OperatorError(f"{path.relative_to(self.root)} lacks {', '.join(missing)}: a package is not listed.")
        found = [Path(place) for place in re.findall(r"=> (/.+) \(0x[0-9a-f]+\)$", text, re.M)]
        if strangers := [place for place in found if self.root not in place.parents]:
            raise InternalError(f"{path.relative_to(self.root)} was linked with {strangers[0]} of the building host.")
        return found


def _below_kernel(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"kernel/{pattern}" for pattern in patterns)


def _is_elf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _inside(root: Path, path: Path) -> Path:
    """Follow links of the tree as the tree itself would, `/lib` meaning its own merged `/usr/lib`."""
    for _ in range(8):
        if not path.is_symlink():
            return path
        link = path.readlink()
        if link.is_absolute():
            inner = Path(*link.parts[1:])
            path = root / inner if inner.parts[0] == "usr" else root / "usr" / inner
        else:
            path = path.parent / link
    return path
