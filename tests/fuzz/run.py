"""One fuzzing process: `run.py TARGET [libFuzzer's arguments]`. `tools/test --fuzz` starts it with what it needs.

atheris gives coverage of Python's byte code, clang that of the compiled modules; libFuzzer, inside the preloaded
sanitizer library, is led by both.
"""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[1])]

from fuzz.targets import load, strict_log  # noqa: E402


def main() -> None:
    """Run until libFuzzer ends the process."""
    name = sys.argv.pop(1)
    strict_log()
    with atheris.instrument_imports(include=["pxed"]):
        target = load(name)
    atheris.Setup(sys.argv, target.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
