"""Each fuzz target takes its seeds, what was once found, and a few hundred changed inputs: so that none of them rots.

Fuzzing proper is `tools/test --fuzz`. What it finds becomes a file in tests/vectors/fuzz, named TARGET-WHAT.
"""

import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.source import Source, exact
from fuzz.targets import TARGETS, load, strict_log

FOUND = sorted((Path(__file__).parents[1] / "vectors/fuzz").iterdir())


@pytest.fixture(autouse=True, scope="module")
def errors_in_the_log_are_errors() -> Iterator[None]:
    before = structlog.get_config()
    strict_log()
    yield
    structlog.configure(**before)


def changed(seed: bytes, words: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """The seed with some bytes replaced, words and noise put in, and cut."""
    place = st.integers(0, len(seed))
    edits = st.lists(st.tuples(place, st.integers(0, 8), st.sampled_from(words) | st.binary(max_size=8)), max_size=4)

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        data = seed
        for at, size, piece in edits:
            data = data[:at] + piece + data[at + size :]
        return data

    return edits.map(apply)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    target = load(name)
    assert target.seeds and target.words
    for data in target.seeds.values():
        target.one(data)


@pytest.mark.parametrize("path", FOUND, ids=[path.name for path in FOUND])
def test_what_was_found_stays_mended(path: Path) -> None:
    load(path.name.partition("-")[0]).one(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_input(name: str) -> None:
    target = load(name)
    seeds = st.sampled_from(sorted(target.seeds.values()))

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(seeds.flatmap(lambda seed: changed(seed, target.words)) | st.binary(max_size=200))
    def any_input(data: bytes) -> None:
        target.one(data)

    any_input()


def test_a_source_is_read_front_to_back_and_then_gives_nothing() -> None:
    source = Source(b"\x01\x02\x03\x02ab\x05xyz")
    assert (source.number(1), source.number(2), source.piece(), bool(source)) == (1, 0x203, b"ab", True)
    assert (source.piece(), bool(source), source.number(4), source.pick("ab"), source.rest()) == (
        b"xyz",
        False,
        0,
        "a",
        b"",
    )


def test_exact_memory_has_the_same_bytes() -> None:
    for data in (b"", b"a", b"abc", bytes(1000)):
        memory = exact(data)
        assert memory == data
        assert sys.getsizeof(memory.obj) - sys.getsizeof(array("B")) == len(data)
