"""Each layer imports only what is below it; compiled code is checked too."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.meta

ROOT = Path(__file__).parents[2]
# Highest first. A module may import its own package and every line below its own, never a sibling on the same line.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("app", "control", "bench"),
    ("service", "api"),
    ("net", "store", "images", "environment", "agent"),
    ("boot", "work", "cast"),
    ("wire",),
    ("_ext",),
    ("config", "types", "errors", "log", "text"),
)
RANK = {name: len(LAYERS) - line for line, names in enumerate(LAYERS) for name in names}
# The agent runs in the imaging environment, which carries only these.
AGENT_MAY_IMPORT = {"agent", "wire", "images", "types", "errors", "_ext"}
SANS_IO = {"wire", "boot", "work", "cast"}
SANS_IO_COMPILED = {
    "dhcp", "dhcp_kind", "tftp", "tftp_sender", "tftp_admission", "tftp_control", "tftp_figures", "tftp_flow",
    "tftp_table", "tftp_tids", "lines", "pacer", "ring",
    "mtftp_groups", "mtftp_figures", "mtftp_pxe", "mtftp_members", "mtftp_table",
    "cast_sender", "cast_session", "cast_wants", "cast_jobs", "cast_intake", "cast_figures",
    "sender", "timers", "buf", "blocks", "cast", "parity",
    "cast_assembler", "cast_frames", "cast_image", "cast_reports", "cast_sequence",
}  # fmt: skip
BANNED = {
    "asyncio", "uvloop", "socket", "time", "datetime", "select", "threading", "random", "secrets", "os", "pathlib",
    "io", "subprocess", "tempfile", "shutil", "logging", "structlog", "http", "urllib.request",
}  # fmt: skip
# The same for C: of libc and posix a sans-I/O module takes memory and integer types, no file, clock, socket or random.
ALLOWED_C = {"libc.stdint", "libc.string", "libc.stddef", "libc.limits", "libc.errno"}
ALLOWED_STDLIB_H = {"malloc", "calloc", "realloc", "free", "abort", "qsort", "bsearch"}
# Shared by all on the lowest line.
LOWEST = {"config", "types", "errors", "log", "text"}
_CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]+)|c?import\s+([^\n]+))", re.M)


def _c_imports(text: str) -> set[str]:
    """What a .pyx or .pxd imports or cimports; `from pxed import a` and libc's and posix' names in full."""
    found = set()
    for stem, names, modules in _CIMPORT.findall(text):
        for name in (
            part.split("#")[0].split()[0] for part in (names or modules).strip("() ").split(",") if part.split()
        ):
            whole = stem == "pxed" or stem.partition(".")[0] in {"libc", "posix"}
            found.add(f"{stem}.{name}" if whole else stem or name)
    return found


def _imports(path: Path) -> set[str]:
    text = path.read_text()
    if path.suffix not in {".py", ".pyi"}:
        return _c_imports(text)
    package = ["pxed", *path.relative_to(ROOT / "src/pxed").parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # `from pxed import app` names a module in its second half
            found |= {f"{stem}.{alias.name}" for alias in node.names} if stem == "pxed" else {stem}
    return found


FILES = [
    path
    for top in ("src", "ext")
    for path in sorted((ROOT / top / "pxed").rglob("*"))
    if path.suffix in {".py", ".pyi", ".pyx", ".pxd"}
]


def violations(layer: str, stem: str, imports: set[str]) -> list[str]:
    """What a file of `layer` may not import."""
    wrong = []
    for name in sorted(imports):
        top, _, rest = name.partition(".")
        target = rest.split(".")[0] if top == "pxed" else None
        if target in RANK and target != layer:
            allowed = RANK[target] < RANK[layer] or {layer, target} <= LOWEST or (layer, target) == ("app", "control")
            if layer == "agent":
                allowed = target in AGENT_MAY_IMPORT
            if not allowed:
                wrong.append(f"{layer} imports {name}")
        sans_io = layer in SANS_IO or (layer == "_ext" and stem in SANS_IO_COMPILED)
        header, _, symbol = name.rpartition(".")
        c_io = top == "posix" or (
            top == "libc" and header not in ALLOWED_C and (header, symbol in ALLOWED_STDLIB_H) != ("libc.stdlib", True)
        )
        if sans_io and (top in BANNED or name in BANNED or c_io):
            wrong.append(f"sans-I/O {layer}.{stem} imports {name}")
    return wrong


def test_every_package_has_a_layer() -> None:
    packages = {
        path.relative_to(ROOT / "src/pxed").parts[0].removesuffix(".py") for path in FILES if "src" in path.parts
    }
    assert packages - {"__init__"} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layer(path: Path) -> None:
    parts = path.relative_to(ROOT).parts[2:]
    layer = parts[0].removesuffix(path.suffix)
    if layer != "__init__":
        assert violations(layer, path.stem, _imports(path)) == []


@pytest.mark.parametrize(
    ("layer", "imports"),
    [("_ext", {"pxed.wire.dhcp"}), ("work", {"socket"}), ("boot", {"pxed.work.jobs"}), ("agent", {"pxed.net.http"}),
     ("api", {"pxed.service.transactions"}), ("store", {"pxed.app"})],
)  # fmt: skip
def test_a_planted_violation_is_seen(layer: str, imports: set[str]) -> None:
    assert violations(layer, "planted", imports)


@pytest.mark.parametrize(
    "line",
    ["from pxed import net, service", "from libc.stdio cimport fopen", "from posix.time cimport clock_gettime",
     "from posix.unistd cimport read", "from libc.stdlib cimport free, rand", "import datetime",
     "from libc.stdlib cimport (\n    malloc,\n    rand,\n)"],
)  # fmt: skip
def test_a_planted_violation_in_a_sender_is_seen(line: str) -> None:
    assert violations("_ext", "tftp_sender", _c_imports(line + "\n"))


def test_the_names_of_sans_io_modules_exist() -> None:
    stems = {path.stem for path in FILES if path.suffix in {".pyx", ".pxd"}}
    assert stems >= SANS_IO_COMPILED
