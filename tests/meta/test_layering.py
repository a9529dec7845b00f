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
    ("boot", "work"),
    ("wire",),
    ("_ext",),
    ("config", "types", "errors", "log"),
)
RANK = {name: len(LAYERS) - line for line, names in enumerate(LAYERS) for name in names}
# The agent runs in the imaging environment, which carries only these.
AGENT_MAY_IMPORT = {"agent", "wire", "images", "types", "errors", "_ext"}
SANS_IO = {"wire", "boot", "work"}
SANS_IO_COMPILED = {"dhcp", "tftp", "tftp_sender", "sender", "timers", "blocks", "pacer"}
BANNED = {"asyncio", "uvloop", "socket", "time", "select", "threading", "random", "secrets", "os", "pathlib", "io"}
# Shared by all on the lowest line.
LOWEST = {"config", "types", "errors", "log"}
_CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", re.M)


def _imports(path: Path) -> set[str]:
    text = path.read_text()
    if path.suffix not in {".py", ".pyi"}:
        return {a or b for a, b in _CIMPORT.findall(text)}
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
        if sans_io and top in BANNED:
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
