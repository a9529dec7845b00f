"""Fuzz the codecs and handlers (`tools/test --fuzz`) in a sanitized, instrumented copy, two targets at a time.

    tools/test --fuzz                   every target for a minute
    tools/test --fuzz 600 dhcp tftp     these for ten minutes each
    tools/test --fuzz FILE              run one input again: a reproducer, named TARGET-crash-...

Corpora grow in build/fuzz/corpus and are used again; reproducers are left in build/fuzz/found. Exit status 1: found.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build/fuzz"
PARTS = ("src", "ext", "tests", "tools", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
AT_ONCE = 2
SECONDS = 60
# A short run goes the same way each time, so that what lands is not a matter of luck; a longer one is to find new ways.
SEED = 1
# An input that takes this long is a hang. Generous: a busy machine is no mistake of the code.
HANG = 60
# libFuzzer stops above this much memory; AddressSanitizer's own part of it is about 700 MB.
MEMORY_MB = 2048
_STATUS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) .*?rss: (\d+)Mb")
_REPORT = re.compile(r"Uncaught Python exception|ERROR: |runtime error: ")

sys.path[:0] = [str(ROOT / "tests")]


def main() -> int:
    """Build, then fuzz or run again; returns the exit status."""
    arguments = sys.argv[1:]
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        return again(Path(arguments[0]).resolve())
    seconds, names = chosen(arguments)
    build()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda name: fuzz(name, seconds), names))
    return 0 if all(results) else 1


def chosen(arguments: list[str]) -> tuple[int, list[str]]:
    """Seconds and targets of the command line. Exits with a sentence for a target that is none."""
    from fuzz.targets import TARGETS

    seconds = SECONDS
    if arguments and arguments[0].isdecimal():
        seconds = int(arguments.pop(0))
    unknown = [name for name in arguments if name not in TARGETS]
    if unknown:
        table = "\n".join(f"  {name:8} {what}" for name, what in TARGETS.items())
        raise SystemExit(f"{unknown[0]} is no target and no file. Targets:\n{table}")
    return seconds, arguments or list(TARGETS)


def build() -> None:
    """The copy, with compiled modules that report coverage and mistakes; the tree's own build stays as it is."""
    COPY.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        old, new = COPY / part, ROOT / part
        if new.is_dir():
            fresh = old.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(new, fresh, symlinks=True, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            for library in old.rglob("*.so"):  # compiled here: only what changed is compiled again
                shutil.move(library, fresh / library.relative_to(old))
            shutil.rmtree(old, ignore_errors=True)
            fresh.rename(old)
        else:
            shutil.copy2(new, old)
    compiler = "clang-14"
    environment = {
        **os.environ,
        "PXED_FUZZ": "1",
        "PXED_WERROR": "0",  # the flags are gcc's
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",
    }
    subprocess.run([sys.executable, "tools/build_inplace.py"], cwd=COPY, env=environment, check=True)


def process(name: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A fuzzing process of one target."""
    spec = find_spec("atheris")
    if spec is None or spec.origin is None:
        raise SystemExit("atheris is not installed: tools/setup --test")
    # libFuzzer and the sanitizers must be one library, there before Python: atheris brings it.
    library = Path(spec.origin).parents[1] / "asan_with_fuzzer.so"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": str(COPY / "src"),
        "PYTHONMALLOC": "malloc",  # so that each of Python's buffers has an end that the sanitizer knows
        "PYTHONUNBUFFERED": "1",
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=32:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, COPY / "tests/fuzz/run.py", name, *arguments]
    return subprocess.Popen(
        command, cwd=COPY, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target; False when something was found, which is shown with how to see it again."""
    from fuzz.targets import load

    found, corpus, seeds = COPY / "found", COPY / "corpus" / name, COPY / "seeds" / name
    for directory in (found, corpus, seeds):
        directory.mkdir(parents=True, exist_ok=True)
    target = load(name)
    for number, data in enumerate(target.seeds.values()):
        (seeds / str(number)).write_bytes(data)
    words = COPY / "seeds" / f"{name}.dict"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
    arguments = (
        f"-max_total_time={seconds}", f"-artifact_prefix={found}/{name}-", f"-dict={words}", f"-timeout={HANG}",
        f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=0", "-verbosity=1",
        f"-seed={SEED if seconds <= SECONDS else 0}", corpus, seeds,
    )  # fmt: skip
    began, before = time.monotonic(), set(found.iterdir())
    running = process(name, *arguments)
    # libFuzzer looks at its clock between two inputs; this is for the case that it never gets there.
    guard = threading.Timer(seconds + 2 * HANG + 60, running.kill)
    guard.start()
    output, status = _follow(running)
    guard.cancel()
    inputs, places, memory = status
    line = f"{inputs:>9} inputs  {places:>6} places  {memory:>5} MB  {time.monotonic() - began:4.0f} s"
    if running.returncode == 0:
        print(f"fuzz {name:8} {line}  nothing found", flush=True)
        return True
    print(f"fuzz {name:8} {line}  FOUND", flush=True)
    first = next((at for at, text in enumerate(output) if _REPORT.search(text)), len(output) - 30)
    print("".join(f"    {text}" for text in output[max(first, 0) :][:30]), flush=True)
    for path in sorted(set(found.glob(f"{name}-*")) - before):
        print(f"  again: tools/test --fuzz {path.relative_to(ROOT)}", flush=True)
    return False


def _follow(running: subprocess.Popen[str]) -> tuple[list[str], tuple[str, ...]]:
    """Read a process to its end: its last lines, and inputs, covered places and megabytes."""
    output: list[str] = []
    status: tuple[str, ...] = ("0", "0", "0")
    assert running.stdout is not None
    for text in running.stdout:
        if match := _STATUS.match(text):
            status = match.groups()
        output.append(text)
        del output[:-400]
    running.wait()
    return output, status


def again(path: Path) -> int:
    """Run one input; its name begins with its target's."""
    _, names = chosen([path.name.partition("-")[0]])
    build()
    running = process(names[0], f"-timeout={HANG}", path)
    output, _ = _follow(running)
    print("".join(output))
    return running.returncode


if __name__ == "__main__":
    sys.exit(main())
