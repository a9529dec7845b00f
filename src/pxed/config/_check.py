"""What is wrong with a configuration, in the words of the file.

msgspec stops at the first mistake and knows no lines, so the walk over the fields is ours: every key is converted on
its own by msgspec.
"""

import difflib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Struct

from ._keys import Config
from ._places import Key
from ._rules import rule_of
from ._text import dotted, shown


class Mistake(NamedTuple):
    """One of them, and the key that it is about."""

    key: Key
    text: str


def mistakes(tree: object) -> Iterator[Mistake]:
    """Everything wrong with a whole file, as tomllib reads it."""
    yield from _struct_mistakes(Config, tree, ())


def _struct_mistakes(struct: type[Struct], tree: object, at: Key) -> Iterator[Mistake]:
    """Everything wrong with `tree` as a table of `struct`'s fields."""
    if not isinstance(tree, dict):
        yield Mistake(at, f"section `{dotted(at)}`: expected a table; got {shown(tree)}")
        return
    known = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    missed = {name for name, f in known.items() if f.required and name not in tree}
    for name in tree:
        if name not in known:
            nearest = _nearest_key(at, name, [k for k in known if k not in tree], list(known))
            if nearest and nearest[:-1] == at:
                missed.discard(nearest[-1])  # one typing mistake is said once
            yield _unknown(at, name, list(known), nearest)
    for name in known:
        if name in missed:
            yield from _missing((*at, name), known[name].type)
        elif name in tree:
            yield from _field_mistakes(known[name].type, tree[name], (*at, name))


def _missing(key: Key, kind: Any) -> Iterator[Mistake]:
    """A required key is not there; of a section that is not there, its required keys."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        for f in msgspec.structs.fields(kind):
            if f.required:
                yield from _missing((*key, f.encode_name), f.type)
    else:
        yield Mistake(key[:-1], f"key `{dotted(key)}`: expected {_expected(key, kind)}; the key is missing")


def _field_mistakes(kind: Any, value: object, key: Key) -> Iterator[Mistake]:
    if isinstance(kind, type) and issubclass(kind, Struct):
        yield from _struct_mistakes(kind, value, key)
        return
    item = _item(kind)
    if item is not None and isinstance(value, list):
        for number, tree in enumerate(value, 1):
            yield from _struct_mistakes(item, tree, (*key[:-1], f"{key[-1]}[{number}]"))
    try:
        converted = msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        if item is not None and isinstance(value, list):
            return  # said of each
        yield Mistake(
            key, f"key `{dotted(key)}`: expected {_expected(key, kind)}; got {shown(value)}{_hint(kind, value)}"
        )
        return
    rule = rule_of(key)
    for got in rule.broken(converted) if rule else ():
        yield Mistake(key, f"key `{dotted(key)}`: expected {_expected(key, kind)}; got {got}")


def _item(kind: Any) -> type[Struct] | None:
    """The Struct of which there may be any number, as [[tables]]; None for all other kinds."""
    item = get_args(kind)[0] if get_origin(kind) is tuple else None
    return item if isinstance(item, type) and issubclass(item, Struct) else None


def _unknown(at: Key, name: str, known: list[str], nearest: Key) -> Mistake:
    what, shown = ("key", "`{}`") if at else ("section", "`[{}]`")
    hint = f"; did you mean {shown.format('.'.join(nearest))}?" if nearest else ""
    names = ", ".join(shown.format(k) for k in known)
    return Mistake((*at, name), f"{what} `{dotted((*at, name))}`: expected one of {names}{hint}")


def _nearest_key(at: Key, name: str, unused: list[str], here: list[str]) -> Key:
    """The key that was probably meant: an unused one of this table, any of it, or the same name elsewhere; else ()."""
    for candidates in (unused, here):
        near = difflib.get_close_matches(name.lower(), candidates, n=1)
        if near:
            return (*at, near[0])
    for section in msgspec.structs.fields(Config):
        if at and name in section.type.__struct_encode_fields__:
            return (section.encode_name, name)
    return ()


def _hint(kind: Any, value: object) -> str:
    """The nearest of the words that a key accepts, as the end of a sentence."""
    words = _words(kind)
    near = difflib.get_close_matches(value.lower(), words, n=1) if isinstance(value, str) else []
    return f'; did you mean `"{near[0]}"`?' if near else ""


def _words(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _expected(key: Key, kind: Any) -> str:
    """What a key's value must be, in the words of a person who writes TOML."""
    rule = rule_of(key)
    if rule:
        return rule.expected
    if _words(kind):
        return "one of " + ", ".join(f'"{word}"' for word in _words(kind))
    if type(None) in get_args(kind):  # beside what it is, for a key that may be left out
        kind = get_args(kind)[0]
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case _:
            return "text"
