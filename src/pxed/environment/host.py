"""What the building host offers: its Debian release, the archives that its apt uses, the tools that are needed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from pxed.errors import OperatorError

__all__ = ["Source", "missing_tools", "release", "run", "run_failed", "sources", "suite_python"]

# Program -> the Debian package that has it.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "cpio": "cpio",
}


class Source(Struct, frozen=True, order=True):
    """One suite of one Debian archive, as the host's apt knows it."""

    uri: str
    suite: str

    def line(self, components: tuple[str, ...]) -> str:
        """The one-line form that apt and mmdebstrap read."""
        return f"deb {self.uri} {self.suite} {' '.join(components)}"


def run(
    command: list[str], *, input: bytes | None = None, env: dict[str, str] | None = None, stderr: bool = False
) -> bytes:
    """Run a tool and return what it printed (with `stderr`: what it said there).

    Raises OperatorError with the tool's last words when it fails.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    done = subprocess.run(command, input=input, env=environment, capture_output=True)
    if done.returncode:
        raise run_failed(command[0], done.returncode, done.stderr)
    return done.stderr if stderr else done.stdout


def run_failed(program: str, code: int, errors: bytes) -> OperatorError:
    """The error for a tool that failed."""
    words = errors.decode(errors="replace").strip().splitlines()[-8:]
    return OperatorError(f"{program} failed (exit code {code}):\n  " + "\n  ".join(words))


def missing_tools(which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """One sentence for each thing that this host lacks for building; empty when it can build."""
    sentences = [
        f"The program {tool} is missing: apt-get install {package}"
        for tool, package in TOOLS.items()
        if which(tool) is None
    ]
    if os.geteuid() != 0 and which("newuidmap") is None:
        sentences.append("Unpacking Debian packages needs root, or newuidmap: apt-get install uidmap")
    return sentences


def release(os_release: str) -> str:
    """The host's Debian code name, from the text of /etc/os-release.

    Raises OperatorError on another distribution: the environment is made of the host's own release.
    """
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    fields = {key: value.strip("\"'") for key, value in fields.items()}
    if fields.get("ID") != "debian" or not fields.get("VERSION_CODENAME"):
        raise OperatorError(
            "The imaging environment is built from Debian packages on a Debian host; this one calls itself "
            f"{fields.get('PRETTY_NAME', 'something else')}."
        )
    return fields["VERSION_CODENAME"]


def sources(suite: str, index_targets: str | None = None) -> list[Source]:
    """The Debian archives that this host's apt uses for `suite` (with updates and security), in apt's order.

    `index_targets` is the output of `apt-get indextargets` in the format below; asked for when None.
    Raises OperatorError when apt knows none, as before the first `apt-get update`.
    """
    if index_targets is None:
        layout = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
        index_targets = run(["apt-get", "indextargets", "--format", layout, "Created-By: Packages"]).decode()
    found: list[Source] = []
    for line in index_targets.splitlines():
        origin, uri, name, component = line.split("|")
        source = Source(uri, name)
        ours = name == suite or name.startswith((f"{suite}-updates", f"{suite}-security"))
        if origin == "Debian" and component == "main" and ours and source not in found:
            found.append(source)
    if not any(source.suite == suite for source in found):
        raise OperatorError(f"apt on this host knows no Debian archive for {suite}: run apt-get update first.")
    return found


def suite_python(tree: Path) -> str:
    """The version ("3.11") of the Python in the unpacked packages; must be that of the interpreter that builds.

    The agent's compiled packages are copied from this interpreter. Raises OperatorError when they would not load.
    """
    found = sorted(path.name for path in (tree / "usr/bin").glob("python3.[0-9]*") if not path.is_symlink())
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if f"python{ours}" not in found:
        theirs = found[0].removeprefix("python") if found else "none"
        raise OperatorError(
            f"pxed runs on Python {ours} here, but the Debian packages have Python {theirs}: build the environment "
            f"with a pxed that is installed for Debian's own python{theirs}."
        )
    return ours
