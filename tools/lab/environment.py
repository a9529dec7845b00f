"""The imaging environment for demos and tests: built once per state of the sources, kept in the checkout's .cache."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".cache"
PXED = Path(sys.executable).with_name("pxed")


def _state_of_sources() -> str:
    """A hash of what goes into the environment from this checkout."""
    digest = hashlib.sha256()
    for part in ("src/pxed/agent", "src/pxed/environment", "src/pxed/images", "src/pxed/wire", "ext"):
        for path in sorted((CHECKOUT / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes())
    for name in ("types.py", "errors.py"):
        digest.update((CHECKOUT / "src/pxed" / name).read_bytes())
    return digest.hexdigest()


def ensure() -> Path:
    """The directory with vmlinuz and initramfs.cpio.zst, built anew when it is missing or old."""
    directory, stamp = CACHE / "environment", CACHE / "environment.stamp"
    state = _state_of_sources()
    if not (stamp.exists() and stamp.read_text() == state and (directory / "vmlinuz").exists()):
        CACHE.mkdir(exist_ok=True)
        config = CACHE / "environment.toml"
        config.write_text(
            f'[server]\naddress = "127.0.0.1"\nstate_dir = "{CACHE}/state"\n'
            f'[tftp]\nroot = "{CACHE}"\n[environment]\ndir = "{directory}"\n'
        )
        subprocess.run([PXED, "--config", config, "environment", "build"], check=True, env={**os.environ})
        stamp.write_text(state)
    return directory
