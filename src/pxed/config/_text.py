"""Keys and values of a configuration as a person may read them."""

import json
from collections.abc import Iterable


def dotted(key: Iterable[str]) -> str:
    """A key as it is written in one word: server.address."""
    return ".".join(map(printable, key))


def printable(text: str, quoted: bool = False) -> str:
    """With everything escaped, as TOML does it, that could break a line or play with a terminal."""
    plain = (c.isprintable() and not (quoted and c in '"\\') for c in text)
    return "".join(c if ok else json.dumps(c)[1:-1] for c, ok in zip(text, plain, strict=True))


def shown(value: object) -> str:
    """A value as TOML writes it, cut short."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = f'"{printable(value, quoted=True)}"'
            return text if len(text) <= 60 else text[:56] + '…"'
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case int() if abs(value) >= 1 << 64:
            return "a number of more than 64 bits"
        case _:
            return str(value)
