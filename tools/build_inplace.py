"""Rebuild the compiled modules into src/ (after one `pip install -e .`)."""

import fcntl
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("PXED_WERROR", "1")
os.chdir(Path(__file__).parent.parent)
sys.path.insert(0, "tools")
sys.argv[1:] = ["-q", "build_ext", "--inplace", *sys.argv[1:]]
from setuptools import setup  # noqa: E402

warnings.filterwarnings("ignore", message=".*ext-modules.*experimental")  # known, and pinned by a test of the wheel

Path("build").mkdir(exist_ok=True)
with Path("build/lock").open("w") as lock:  # two builds at once would write the same files
    fcntl.flock(lock, fcntl.LOCK_EX)
    setup()
