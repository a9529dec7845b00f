"""What users install: a wheel built from the sdist alone, which carries all that it needs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.meta

ROOT = Path(__file__).parents[2]


def _run(*argv: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, argv)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the wheel is installed, built from the unpacked sdist in a place of its own."""
    work = tmp_path_factory.mktemp("dist")
    # The tools of this environment build it (no isolation): the network is not what is tested.
    _run("-m", "build", "--no-isolation", "--sdist", "--outdir", work, cwd=ROOT)
    (sdist,) = work.glob("*.tar.gz")
    shutil.unpack_archive(sdist, work / "unpacked")
    (tree,) = (work / "unpacked").iterdir()
    _run("-m", "build", "--no-isolation", "--wheel", "--outdir", work, cwd=tree)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "site")
    return work / "site"


def _as_installed(site: Path, code: str) -> str:
    return _run("-c", code, cwd=site, PYTHONPATH=str(site))


def test_the_wheel_works_without_the_checkout(installed: Path) -> None:
    where = _as_installed(installed, "import pxed._ext.engine as e; print(e.__file__)").strip()
    assert Path(where).is_relative_to(installed)
    _as_installed(installed, "from pxed.cli import main; main(['--help'], standalone_mode=False)")


def test_the_wheel_carries_its_data(installed: Path) -> None:
    in_tree = {
        path.relative_to(ROOT / "src")
        for path in (ROOT / "src/pxed").rglob("*")
        if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts
    }
    assert sorted(map(str, in_tree)) == sorted(
        str(path.relative_to(installed))
        for path in (installed / "pxed").rglob("*")
        if path.is_file() and path.suffix != ".so"
    )


def test_the_database_is_made_from_the_installed_migrations(installed: Path, tmp_path: Path) -> None:
    code = f"""
import asyncio
from pxed.store import Store
async def main():
    store = await Store.open({str(tmp_path / "pxed.db")!r})
    await store.close()
asyncio.run(main())
"""
    _as_installed(installed, code)
    assert (tmp_path / "pxed.db").exists()


def test_every_module_imports_on_its_own() -> None:
    """No module works only because another one was imported before it."""
    modules = sorted(
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "src/pxed").rglob("*.py")
        if path.name != "__main__.py" and "migrations" not in path.parts
    )
    code = """
import os, sys, importlib
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(name)
"""
    _run("-c", code, *modules, cwd=ROOT)
