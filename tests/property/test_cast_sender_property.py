"""Whatever receivers say, true or not: the sender's counts are those of a recount, and it sends only what is wanted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pxed._ext import cast
from pxed._ext.cast_events import direct, hold
from support.cast_room import Talk

FRAMES, SYMBOLS = 9, 13
RECEIVERS = st.integers(1, 4)


@st.composite
def runs(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    """Runs of symbols, in order and apart."""
    edges = sorted(draw(st.sets(st.integers(0, SYMBOLS), min_size=2, max_size=6)))
    return tuple((a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=False))


@st.composite
def wants(draw: st.DrawFn) -> tuple[int, int, tuple[tuple[int, object], ...]]:
    """A window, and what is wanted in it, in order."""
    begin, stop = sorted((draw(st.integers(0, FRAMES)), draw(st.integers(0, FRAMES))))
    found: list[tuple[int, object]] = []
    at = begin
    while at < stop and draw(st.booleans()):
        at = draw(st.integers(at, stop - 1))
        if draw(st.booleans()):
            count = draw(st.integers(1, stop - at))
            found.append((at, count))
            at += count
        else:
            found.append((at, draw(runs())))
            at += 1
    return begin, stop, tuple(found)


REPORT = st.tuples(st.just("report"), RECEIVERS, wants(), st.integers(0, 400), st.sampled_from((0, 0, 0, 0, 1, 2, 4)))
OTHER = st.one_of(
    st.tuples(st.just("time"), st.floats(0.0, 3.0)),
    st.tuples(st.just("send"), st.integers(1, 3)),
    st.tuples(st.just("direct"), RECEIVERS, st.sampled_from(("http", "listen", "back"))),
    st.tuples(st.just("hold"), st.booleans()),
    st.tuples(st.just("bytes"), RECEIVERS, st.binary(max_size=120)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(REPORT, REPORT, OTHER), max_size=40))
def test_counts_of_wants_are_those_of_a_recount(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    talk = Talk(frames=FRAMES, symbols=SYMBOLS, rate=50_000)
    talk.admit(1, 2, 3)
    now = 10.0
    for action in actions:
        match action:
            case "report", receiver, (begin, stop, wanted), behind, flags:
                highest = max(0, talk.sequence - behind)
                talk.say(receiver, wanted, now=now, begin=begin, stop=stop, highest=highest, flags=flags)
            case "time", step:
                now += step
            case "send", batches:
                talk.sent(now, batches)
            case "direct", receiver, order:
                talk.post(direct(77, receiver, order), now)
            case "hold", held:
                talk.post(hold(77, held), now)
            case "bytes", receiver, data:
                talk.send(data, f"10.0.0.{receiver}", now)
        assert talk.sender.audit() == 0
        assert (talk.server.next_timer() or 0) < now + 11


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(RECEIVERS, wants()), max_size=12))
def test_what_is_sent_is_what_is_wanted(
    said: list[tuple[int, tuple[int, int, tuple[tuple[int, object], ...]]]],
) -> None:
    talk = Talk(frames=FRAMES, symbols=SYMBOLS, held=True)
    talk.admit(1, 2, 3, 4)
    wanted: dict[int, dict[int, set[int]]] = {}
    for receiver, (begin, stop, entries) in said:
        talk.say(receiver, entries, begin=begin, stop=stop)  # type: ignore[arg-type]
        chunks = wanted.setdefault(receiver, {})
        for chunk in range(begin, stop):
            chunks.pop(chunk, None)
        for first, what in entries:
            if isinstance(what, int):
                chunks.update({chunk: set(range(SYMBOLS)) for chunk in range(first, first + what)})
            else:
                chunks[first] = {n for at, count in what for n in range(at, at + count)}  # type: ignore[attr-defined]
    talk.post(hold(77, False))
    sent: dict[int, list[int]] = {}
    for one in talk.drain():
        if isinstance(one, cast.Data):
            sent.setdefault(one.chunk, []).append(one.number)
    for chunk in range(FRAMES):
        needs = [chunks[chunk] for chunks in wanted.values() if chunk in chunks]
        union, have = set().union(*needs), sent.get(chunk, [])
        much = {2 * len(need) > SYMBOLS for need in needs}
        if any(number >= SYMBOLS for number in have) and much == {False}:
            assert max(map(len, needs)) <= len(have) < len(union)  # parity: enough for who needs most
        elif much == {True, False}:
            assert union <= set(have)  # repair for one comes first, all for the other later
        else:
            assert sorted(have) == sorted(union)
