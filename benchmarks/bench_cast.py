"""What a symbol costs the receiver of a cast session: `pytest benchmarks/bench_cast.py --benchmark-only`.

Through the Python face of the assembler, which costs some 100 ns a datagram: an upper bound. Sockets come on top. Per
symbol: divide by `symbols` in the extra info. 10 Gbit/s are 870,000 symbols of 1436 bytes in a second, 1,150 ns each.
"""

import pytest

from pxed._ext.cast_assembler import CastAssembler
from support.cast_sim import PARITIES, Image

FRAMES = 8
SIZE = 1 << 20
SYMBOL = 1436


@pytest.fixture(scope="module")
def image() -> Image:
    return Image([SIZE] * FRAMES, symbol=SYMBOL)


def receive(image: Image, datagrams: list[bytes]) -> None:
    """All frames of the image, by a receiver that is new."""
    assembler = image.assembler(memory=64 << 20)
    for datagram in datagrams:
        assembler.receive(datagram, 1.0)
    while (taken := assembler.take()) is not None:
        assembler.done(taken[0], True)
    assert assembler.left == 0


def test_symbols(benchmark, image):
    datagrams = [datagram for ordinal in range(FRAMES) for datagram in image.whole(ordinal)]
    benchmark.extra_info["symbols"] = len(datagrams)
    benchmark(receive, image, datagrams)


@pytest.mark.parametrize("lost", [1, 5])
def test_symbols_of_which_some_percent_are_repaired_by_parity(benchmark, image, lost):
    datagrams = []
    for ordinal in range(FRAMES):
        blocks, symbols = image.blocks(ordinal), image.symbols(ordinal)
        least = [range(block, symbols, blocks)[:: 100 // lost] for block in range(blocks)]
        gone = {number for block in least for number in block}
        datagrams += [image.data(ordinal, number) for number in range(symbols) if number not in gone]
        for block, missing in enumerate(least):
            assert len(missing) <= PARITIES
            datagrams += [image.data(ordinal, symbols + index * blocks + block) for index in range(len(missing))]
    benchmark.extra_info["symbols"] = len(datagrams)
    benchmark(receive, image, datagrams)


def test_symbols_of_a_frame_that_is_here(benchmark, image):
    assembler: CastAssembler = image.assembler(memory=64 << 20)
    datagrams = image.whole(0)
    benchmark.extra_info["symbols"] = len(datagrams)

    def work() -> None:
        for datagram in datagrams:
            assembler.receive(datagram, 1.0)

    benchmark(work)


@pytest.mark.parametrize("partials", [0, 250])
def test_a_report_of_40_000_frames(benchmark, partials):
    image = Image([SYMBOL * 700] * (partials or 1), symbol=SYMBOL)
    image.frames *= 40_000 // len(image.frames)
    assembler = image.assembler(memory=1 << 30, keep=False)
    payload = bytes(SYMBOL)
    image.payload = lambda ordinal, number: payload
    for ordinal in range(partials):
        for number in range(0, 700, 2):
            assembler.receive(image.data(ordinal, number), 0.5)
    now = 1.0

    def work() -> list[bytes]:
        nonlocal now
        now += 2.0
        return assembler.reports(now)

    assert len(benchmark(work)) == (1 if partials == 0 else 18)
