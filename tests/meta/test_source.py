"""The tree's habits: types, lint, stubs and the build's list of modules agree with the code."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.meta

ROOT = Path(__file__).parents[2]


def _passes(*argv: str) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_has_no_complaint() -> None:
    _passes("ruff", "check", ".")


def test_code_is_formatted() -> None:
    _passes("ruff", "format", "--check", ".")


def test_types_are_strict() -> None:
    _passes("mypy")


def test_stubs_match_the_compiled_modules() -> None:
    _passes("mypy.stubtest", "pxed._ext", "--allowlist", "tests/meta/stubtest.allow",
            "--ignore-unused-allowlist")  # fmt: skip


def test_cython_lint_has_no_complaint() -> None:
    tools = Path(sys.executable).parent
    # It runs pycodestyle by name.
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run([tools / "cython-lint", "ext"], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_cython_module_is_built_and_has_a_stub() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rows = project["tool"]["setuptools"]["ext-modules"]
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ext").rglob("*.pyx"))
    assert [row["sources"][0] for row in rows] == sources
    for source in sources:
        assert (ROOT / "src/pxed/_ext" / Path(source).with_suffix(".pyi").name).exists(), source


def test_files_stay_readable() -> None:
    """No file over 600 lines: a longer one holds more than one thing."""
    long = {}
    for top in ("src", "ext", "tests", "tools", "benchmarks"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in {".py", ".pyx", ".pxd", ".pyi"} and (lines := len(path.read_text().splitlines())) > 600:
                long[str(path.relative_to(ROOT))] = lines
    assert long == {}


def test_nothing_refers_to_the_workplace() -> None:
    """The project stands alone: no file names a path outside the checkout that only its authors have."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    needles = re.compile(r"(?<![\w.-])/wor[k]/|\.\./share[d]/|farm[-]\w+")
    for name in names:
        text = (ROOT / name).read_bytes().decode(errors="ignore")
        assert not needles.search(text), name
