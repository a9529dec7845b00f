"""Where a key stands in the text of a configuration."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Key = tuple[str, ...]  # a key's way from the top: ("server", "address")


def syntax_error(message: str, path: Path | str) -> str:
    """What tomllib said, with the file and the line first."""
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is None:  # "(at end of document)"
        return f"{path}: not valid TOML: {message}."
    return f"{path}:{place[1]}: not valid TOML: {message[: place.start()]} (column {place[2]})."


def lines_of(text: str) -> dict[Key, int]:
    """The line of every section and key; [[tables]] are numbered: "files[1]".

    `text` is valid TOML, so a statement ends where it first parses.
    """
    found: dict[Key, int] = {}
    numbers: Counter[Key] = Counter()
    section: Key = ()
    source = text.split("\n")
    first = 0
    while first < len(source):
        last, tree = first + 1, _statement(source[first : first + 1])
        while tree is None and last < len(source):
            last += 1
            tree = _statement(source[first:last])
        keys = list(_keys(tree or {}))
        if source[first].lstrip().startswith("["):
            section = max(keys, key=len, default=())
            found.setdefault(section, first + 1)
            if source[first].lstrip().startswith("[["):
                numbers[section] += 1
                section = (*section[:-1], f"{section[-1]}[{numbers[section]}]")
                found[section] = first + 1
        else:
            for key in keys:
                found.setdefault((*section, *key), first + 1)
        first = last
    return found


def _statement(lines: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _keys(tree: object) -> Iterator[Key]:
    if isinstance(tree, list) and len(tree) == 1:  # [[section]]
        tree = tree[0]
    for name, value in tree.items() if isinstance(tree, dict) else ():
        yield (name,)
        yield from ((name, *rest) for rest in _keys(value))


def line_of(lines: dict[Key, int], key: Key) -> int:
    """The line of `key`, or of the section around it; 0 when neither is in the file."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 0)
