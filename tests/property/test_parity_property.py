"""Parity symbols against a slow GF(2^8): ISA-L computes the code of the specification, and any e repair any e."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxed._ext.parity import encode, repair

EXP = [1]
for _ in range(254):
    EXP.append(EXP[-1] << 1 ^ (0x11D if EXP[-1] & 0x80 else 0))
LOG = {value: i for i, value in enumerate(EXP)}


def times(a: int, b: int) -> int:
    return EXP[(LOG[a] + LOG[b]) % 255] if a and b else 0


def coefficient(p: int, j: int) -> int:
    return EXP[-LOG[(192 + p) ^ j] % 255]


def slow_parity(frame: bytes, symbol: int, block: int, p: int) -> bytes:
    symbols = -(-len(frame) // symbol)
    blocks = -(-symbols // 192)
    padded = frame.ljust(symbols * symbol, b"\0")
    out = [0] * symbol
    for j, i in enumerate(range(block, symbols, blocks)):
        factor = coefficient(p, j)
        for at, value in enumerate(padded[i * symbol : (i + 1) * symbol]):
            out[at] ^= times(factor, value)
    return bytes(out)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """A frame, its symbol length, a block of it."""
    symbol = draw(st.integers(1, 70))
    symbols = draw(st.integers(1, 12) | st.sampled_from([191, 192, 193, 400]))
    stored = (symbols - 1) * symbol + draw(st.integers(1, symbol))
    frame = random.Random(draw(st.integers(0, 1 << 30))).randbytes(stored)
    return frame, symbol, draw(st.integers(0, -(-symbols // 192) - 1))


@given(frames(), st.lists(st.integers(0, 63), max_size=10))
@settings(deadline=None)
def test_parity_is_what_the_specification_says(case: tuple[bytes, int, int], parities: list[int]) -> None:
    frame, symbol, block = case
    assert encode(frame, symbol, block, parities) == [slow_parity(frame, symbol, block, p) for p in parities]


@given(frames(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_parities_repair_as_many_losses(case: tuple[bytes, int, int], rng: random.Random) -> None:
    frame, symbol, block = case
    symbols = -(-len(frame) // symbol)
    own = range(block, symbols, -(-symbols // 192))
    lost = rng.sample(own, rng.randint(0, min(64, len(own))))
    parities = rng.sample(range(64), rng.randint(len(lost), 64))
    held = dict(zip(parities, encode(frame, symbol, block, parities), strict=True))
    damaged = bytearray(frame)
    for i in lost:
        place = slice(i * symbol, (i + 1) * symbol)
        damaged[place] = rng.randbytes(len(damaged[place]))
    others = [i for i in range(symbols) if i not in own][:3]
    assert repair(bytes(damaged), symbol, block, lost + others, held) == frame
    if lost:
        few = dict(list(held.items())[: len(lost) - 1])
        assert repair(bytes(damaged), symbol, block, lost, few) is None


@pytest.mark.parametrize("symbol", [1436, 1437, 8916])
def test_a_whole_chunk_that_lost_a_tenth(symbol: int) -> None:
    rng = random.Random(symbol)
    frame = rng.randbytes((1 << 20) - 333)
    symbols = -(-len(frame) // symbol)
    blocks = -(-symbols // 192)
    lost = rng.sample(range(symbols), symbols // 10)
    damaged = bytearray(frame)
    for i in lost:
        damaged[i * symbol : (i + 1) * symbol] = bytes(len(damaged[i * symbol : (i + 1) * symbol]))
    for block in range(blocks):
        parities = rng.sample(range(64), sum(i % blocks == block for i in lost))
        held = dict(zip(parities, encode(frame, symbol, block, parities), strict=True))
        damaged[:] = repair(bytes(damaged), symbol, block, lost, held) or b""
    assert bytes(damaged) == frame


def test_wrong_parity_makes_wrong_bytes_and_nothing_else() -> None:
    frame = bytes(range(150))
    (right,) = encode(frame, 100, 0, [5])
    assert repair(frame[:100] + bytes(50), 100, 0, [1], {5: right}) == frame
    wrong = repair(frame[:100] + bytes(50), 100, 0, [1], {5: bytes(100)})
    assert wrong is not None
    assert wrong[:100] == frame[:100]
    assert wrong[100:] != frame[100:]


def test_more_than_64_are_never_repaired() -> None:
    frame = bytes(range(100))
    held = dict(enumerate(encode(frame, 1, 0, list(range(64)))))
    assert repair(bytes(100), 1, 0, list(range(65)), held) is None
    assert repair(bytes(64) + frame[64:], 1, 0, list(range(64)), held) == frame
