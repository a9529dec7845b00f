"""Whatever is lost, doubled, out of order or mixed: a frame is right, or what it lacks is said exactly."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pxed._ext.cast_assembler import CastAssembler
from support.cast_sim import PARITIES, Image, wants

SYMBOL = 8
SIZES = st.lists(st.integers(1, SYMBOL * 450), min_size=1, max_size=4)


@st.composite
def losses(draw: st.DrawFn) -> tuple[Image, list[tuple[int, int]]]:
    """An image, and the (frame, symbol) that reach a receiver, in their order."""
    image = Image(draw(SIZES), symbol=SYMBOL)
    random = draw(st.randoms(use_true_random=False))
    lost = draw(st.sampled_from([0.0, 0.02, 0.3, 0.9]))
    spare = draw(st.sampled_from([0.0, 0.05, 0.5]))
    heard = []
    for ordinal in range(len(image.frames)):
        symbols, blocks = image.symbols(ordinal), image.blocks(ordinal)
        heard += [(ordinal, number) for number in range(symbols) if random.random() >= lost]
        heard += [(ordinal, symbols + p) for p in range(blocks * PARITIES) if random.random() < spare]
    heard += random.choices(heard, k=len(heard) // 5) if heard else []
    if draw(st.booleans()):
        random.shuffle(heard)
    return image, heard


def needed(image: Image, ordinal: int, numbers: set[int]) -> set[int]:
    """What a receiver that has these symbols of a frame needs yet, by the rule of the protocol."""
    symbols, blocks = image.symbols(ordinal), image.blocks(ordinal)
    found: set[int] = set()
    for block in range(blocks):
        missing = [number for number in range(block, symbols, blocks) if number not in numbers]
        parities = sum(number >= symbols and (number - symbols) % blocks == block for number in numbers)
        found |= set(missing[: max(0, len(missing) - parities)])
    return found


def in_symbols(ranges: list[tuple[int, int]]) -> set[int]:
    """Which symbols byte ranges cover."""
    return {number for start, stop in ranges for number in range(start // SYMBOL, -(-stop // SYMBOL))}


def take_all(assembler: CastAssembler, image: Image) -> set[int]:
    """Every complete frame is right; their ordinals."""
    found = set()
    while (taken := assembler.take()) is not None:
        assert memoryview(taken[1]) == image.frames[taken[0]]
        assembler.done(taken[0], True)
        found.add(taken[0])
    return found


@given(losses())
@settings(max_examples=30, deadline=None)
def test_a_frame_is_right_or_what_it_lacks_is_said(case: tuple[Image, list[tuple[int, int]]]) -> None:
    image, heard = case
    assembler = image.assembler()
    held: dict[int, set[int]] = {ordinal: set() for ordinal in range(len(image.frames))}
    for ordinal, number in heard:
        assembler.receive(image.data(ordinal, number), 1.0)
        block = (number - image.symbols(ordinal)) % image.blocks(ordinal)
        # Parity for a block that lacks nothing is not kept, which is the same.
        if number < image.symbols(ordinal) or needed(image, ordinal, held[ordinal]) & set(
            range(block, image.symbols(ordinal), image.blocks(ordinal))
        ):
            held[ordinal].add(number)
    lacking = {ordinal: needed(image, ordinal, numbers) for ordinal, numbers in held.items()}
    done = take_all(assembler, image)
    assert done == {ordinal for ordinal, numbers in lacking.items() if not numbers}

    asked = {}
    for report in image.reports(assembler, 3.0):
        asked |= wants(report)
    for ordinal, numbers in lacking.items():
        ranges = assembler.missing(ordinal)
        assert in_symbols(ranges) >= numbers
        assert not ranges or numbers
        assert all(0 <= start < stop <= len(image.frames[ordinal]) for start, stop in ranges)
        if ordinal in asked:
            want = asked.pop(ordinal)
            assert want == numbers or (want is None and len(held[ordinal]) * 16 < image.symbols(ordinal))
        else:
            assert not numbers
    assert not asked

    for ordinal in lacking:  # what is here and what is missing are the frame
        for start, stop in assembler.missing(ordinal):
            assembler.give(ordinal, start, image.frames[ordinal][start:stop])
    assert done | take_all(assembler, image) == set(range(len(image.frames)))
    assert assembler.left == 0
    figures = assembler.figures()
    assert (figures["memory"], figures["partials"], figures["queued"]) == (0, 0, 0)


@given(SIZES, st.data())
@settings(max_examples=60, deadline=None)
def test_transports_mix(sizes: list[int], data: st.DataObject) -> None:
    image = Image(sizes, symbol=SYMBOL)
    assembler = image.assembler()
    random = data.draw(st.randoms(use_true_random=False))
    done: set[int] = set()
    for _ in range(data.draw(st.integers(0, 40))):
        ordinal = random.randrange(len(sizes))
        frame = image.frames[ordinal]
        start = random.randrange(len(frame))
        stop = random.randrange(start, len(frame) + 1)
        match random.randrange(6):
            case 0 | 1:
                at = start
                while at < stop:
                    size = random.randrange(1, 300)
                    assembler.give(ordinal, at, frame[at : min(at + size, stop)])
                    at += size
            case 2:
                assembler.give(ordinal, start, frame[start:stop])
            case 3:
                number = random.randrange(image.symbols(ordinal) + image.blocks(ordinal) * PARITIES)
                assembler.receive(image.data(ordinal, number), 1.0)
            case 4:
                for number in range(start // SYMBOL, stop // SYMBOL):
                    assembler.receive(image.data(ordinal, number), 1.0)
            case _:
                done |= take_all(assembler, image)
    for ordinal in range(len(sizes)):
        for number in in_symbols(assembler.missing(ordinal)):
            assembler.receive(image.data(ordinal, number), 2.0)
    assert done | take_all(assembler, image) == set(range(len(sizes)))
    assert assembler.left == 0


@given(st.lists(st.integers(0, 3000), max_size=200), st.integers(0, 0xFFFFFFFF))
@settings(deadline=None)
def test_sequence_counts_each_datagram_once(numbers: list[int], first: int) -> None:
    image = Image([SYMBOL])
    assembler = image.assembler()
    seen: list[int] = []
    for number in numbers:
        highest = max(seen, default=number)
        if number not in seen and number > highest - 1024:
            seen.append(number)
        image.sequence = (first + number - 1) & 0xFFFFFFFF
        assembler.receive(image.data(0, 0), 1.0)
    report = image.reports(assembler, 3.0)[0]
    assert report.received == len(seen)
    assert report.expected == (max(seen) - min(seen) + 1 if seen else 0)
    if seen:
        assert report.highest == (first + max(seen)) & 0xFFFFFFFF
