"""Bit sets of the compiled core against Python's sets."""

from hypothesis import given
from hypothesis import strategies as st

from pxed._ext.blocks import Bits

sizes = st.integers(0, 300)


@st.composite
def edits(draw: st.DrawFn) -> tuple[int, list[tuple[bool, int, int]]]:
    size = draw(sizes)
    place = st.integers(0, size)
    return size, draw(st.lists(st.tuples(st.booleans(), place, place), max_size=12))


def build(size: int, steps: list[tuple[bool, int, int]]) -> tuple[Bits, set[int]]:
    bits, model = Bits(size), set()
    for add, begin, stop in steps:
        if add:
            bits.add(begin, stop)
            model |= set(range(begin, stop))
        else:
            bits.discard(begin, stop)
            model -= set(range(begin, stop))
    return bits, model


@given(edits())
def test_runs_are_added_taken_out_and_found_as_in_a_set(case: tuple[int, list[tuple[bool, int, int]]]) -> None:
    size, steps = case
    bits, model = build(size, steps)
    assert len(bits) == len(model)
    assert {i for begin, stop in bits.runs() for i in range(begin, stop)} == model
    assert all(b[0] > a[1] for a, b in zip(bits.runs(), bits.runs()[1:], strict=False))
    for at in range(size + 1):
        assert (at in bits) == (at in model)
        assert bits.next(at) == min((i for i in model if i >= at), default=size)
        assert bits.next_clear(at) == min((i for i in range(at, size) if i not in model), default=size)


@given(edits(), edits(), st.integers(0, 300))
def test_octets_carry_the_set(
    case: tuple[int, list[tuple[bool, int, int]]], other: tuple[int, list[tuple[bool, int, int]]], bits: int
) -> None:
    source, model = build(*case)
    octets = source.octets()
    assert octets == sum(1 << i for i in model).to_bytes((case[0] + 7) // 8, "little")
    target, held = build(*other)
    bits = min(bits, 8 * len(octets))
    target.add_octets(octets, bits)
    wanted = held | {i for i in model if i < min(bits, other[0])}
    assert {i for begin, stop in target.runs() for i in range(begin, stop)} == wanted
