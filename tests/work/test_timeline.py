"""Timelines: one line per decision, repetitions counted, floods cut off."""

from msgspec.structs import replace

from pxed.types import Event
from pxed.work import timeline
from pxed.work.timeline import Line, Timeline

AT = 1_700_000_040.0  # the beginning of a minute


def event(text="Offered.", time=AT, machine_id=1, kind="offer", mac="52:54:00:00:00:01"):
    return Event(time=time, mac=mac, kind=kind, text=text, machine_id=machine_id)


def test_repetitions_are_counted_in_one_line():
    lines = Timeline()
    for second in range(0, 20, 2):
        lines.note(event("DISCOVER.", AT + second, kind="seen"))
        lines.note(event("Offered.", AT + second))
    assert [one.text for one in lines.of(1)] == ["DISCOVER. (10 times in 18 s)", "Offered. (10 times in 18 s)"]


def test_later_is_a_new_occasion():
    lines = Timeline()
    lines.note(event())
    line, new = lines.note(event(time=AT + timeline.MERGE_WINDOW))
    assert not new and line.count == 2
    _, new = lines.note(event(time=AT + 2 * timeline.MERGE_WINDOW + 1))
    assert new and len(lines.of(1)) == 2


def test_different_lines_are_not_merged():
    lines = Timeline()
    for one in (event(), event("Other."), event(kind="drop"), replace(event(), job_id=3), event(machine_id=2)):
        assert lines.note(one)[1]
    assert len(lines.of(1)) == 4 and len(lines.of(2)) == 1


def test_flood_is_cut_off_for_the_minute():
    lines = Timeline()
    for number in range(500):
        lines.note(event(f"Line {number}."))
    shown = lines.of(1)
    assert len(shown) == timeline.KEPT and shown[-1].text.startswith("Too many lines in one minute")
    assert lines.note(event("Another.")) == (None, False)
    assert lines.note(event("Next minute.", AT + 60))[1]


def test_only_the_newest_are_kept():
    lines = Timeline()
    for number in range(300):
        lines.note(event(f"Line {number}.", AT + 60.0 * number))
    assert [one.text for one in lines.of(1)] == [f"Line {n}." for n in range(200, 300)]


def test_strangers_are_bounded():
    lines = Timeline()
    for number in range(timeline.MAX_STRANGERS + 5):
        lines.note(event(machine_id=None, mac=f"mac{number}"))
    assert lines.strangers("mac0") == [] and len(lines.strangers("mac5")) == 1 and lines.of(1) == []


def test_a_line_that_was_saved_first():
    lines = Timeline()
    line = lines.line(event())
    assert lines.of(1) == []
    lines.insert(line)
    assert lines.of(1) == [event()] and lines.line(event()).id == line.id + 1


def test_moved_lines_keep_their_order():
    lines = Timeline()
    for number in range(6):
        lines.note(event(f"Line {number}.", AT + number, machine_id=1 + number % 2))
    moved = lines.move(1, 2)
    assert [line.event.machine_id for line in moved] == [2, 2, 2] and lines.of(1) == []
    assert [one.text for one in lines.of(2)] == [f"Line {n}." for n in range(6)]
    assert lines.move(7, 2) == []


def test_load_goes_on_with_fresh_ids():
    lines = Timeline()
    lines.load([Line(5, event(), 3, AT + 4)], 6)
    assert lines.of(1)[0].text == "Offered. (3 times in 4 s)"
    assert lines.note(event("New."))[0].id == 6
    lines.forget(1)
    assert lines.of(1) == []
