"""The timelines of all machines, in memory: what happened and why, one line per decision.

A machine that asks the same thing ten times gets one line with a count, not ten: a repetition within MERGE_WINDOW of a
line among the last few is added to it. A machine that makes more lines than a person would read in a minute is cut off
for the rest of that minute, and one line says so. No I/O, clock or randomness.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from pxed.types import Event

__all__ = ["KEPT", "Line", "Timeline"]

KEPT = 100  # lines per machine in memory, about five imagings; the database has the rest
MAX_STRANGERS = 1000  # MACs with lines of their own though no machine is recorded for them
MERGE_WINDOW = 60.0  # seconds since the last repetition; longer ago it is a new occasion, worth its own line
MERGE_DEPTH = 8  # lines looked back: firmware's tries repeat a pattern of a few lines (seen, check, offer)
MAX_PER_MINUTE = 120  # lines; a boot with an imaging makes about 25


class Line(Struct):
    """A line as it is kept and stored: the event, how often it happened, and when last."""

    id: int
    event: Event
    count: int = 1
    last: float = 0.0

    def shown(self) -> Event:
        """The event as a person reads it, with the repetitions in the text."""
        if self.count == 1:
            return self.event
        seconds = self.last - self.event.time
        return replace(self.event, text=f"{self.event.text} ({self.count} times in {seconds:.0f} s)")


class _Track(Struct):
    """One machine's lines, and how many it made in the present minute."""

    lines: deque[Line]
    minute: int = 0
    made: int = 0


class Timeline:
    """Lines by machine id; by MAC where no machine is recorded."""

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}
        self._strangers: OrderedDict[str, _Track] = OrderedDict()
        self._next_id = 1

    def load(self, lines: Iterable[Line], next_id: int) -> None:
        """Take over stored lines, oldest first."""
        for line in lines:
            self._track(line.event).lines.append(line)
        self._next_id = max(self._next_id, next_id)

    def of(self, machine_id: int) -> list[Event]:
        """A machine's newest lines, oldest first."""
        return [line.shown() for line in self.lines(machine_id)]

    def lines(self, machine_id: int) -> list[Line]:
        """The lines behind `of`."""
        track = self._tracks.get(machine_id)
        return list(track.lines) if track else []

    def strangers(self, mac: str) -> list[Event]:
        """The lines of a MAC that no machine is recorded for."""
        track = self._strangers.get(mac)
        return [line.shown() for line in track.lines] if track else []

    def repeated(self, event: Event) -> Line | None:
        """The line that this event, of a recorded machine, repeats; it is counted there. None when it is a new one."""
        track = self._tracks.get(event.machine_id or 0)
        return _repeated(track, event) if track else None

    def note(self, event: Event) -> tuple[Line | None, bool]:
        """Add an event. Returns its line and whether that is a new one; (None, False) when it was cut off."""
        track = self._track(event)
        line = _repeated(track, event)
        if line is not None:
            return line, False
        minute = int(event.time // 60)
        if track.minute != minute:
            track.minute, track.made = minute, 0
        track.made += 1
        if track.made > MAX_PER_MINUTE:
            return None, False
        if track.made == MAX_PER_MINUTE:
            event = replace(event, text="Too many lines in one minute; the rest of this minute is left out.")
        line = self.line(event)
        track.lines.append(line)
        return line, True

    def line(self, event: Event) -> Line:
        """A new line, not yet part of the timeline: for events that are saved before they count (see `insert`)."""
        line = Line(self._next_id, event, 1, event.time)
        self._next_id += 1
        return line

    def insert(self, line: Line) -> None:
        """Add a line that `line` made."""
        self._track(line.event).lines.append(line)

    def forget(self, machine_id: int) -> None:
        """Drop a removed machine's lines."""
        self._tracks.pop(machine_id, None)

    def move(self, old: int, new: int) -> list[Line]:
        """A machine turned out to be another one: its lines become the other's. Returns them, changed."""
        track = self._tracks.pop(old, None)
        if track is None:
            return []
        for line in track.lines:
            line.event = replace(line.event, machine_id=new)
        mine = self._tracks.get(new)
        both = sorted((*track.lines, *(mine.lines if mine else ())), key=lambda line: line.id)
        self._tracks[new] = _Track(deque(both, maxlen=KEPT))
        return list(track.lines)

    def _track(self, event: Event) -> _Track:
        if event.machine_id is not None:
            track = self._tracks.get(event.machine_id)
            if track is None:
                track = self._tracks[event.machine_id] = _Track(deque(maxlen=KEPT))
            return track
        track = self._strangers.get(event.mac)
        if track is None:
            if len(self._strangers) >= MAX_STRANGERS:
                self._strangers.popitem(last=False)
            track = self._strangers[event.mac] = _Track(deque(maxlen=MERGE_DEPTH))
        self._strangers.move_to_end(event.mac)
        return track


def _repeated(track: _Track, event: Event) -> Line | None:
    lines = track.lines
    newest = len(lines)
    for index in range(newest - 1, max(-1, newest - 1 - MERGE_DEPTH), -1):
        line = lines[index]
        if _same(line.event, event) and 0 <= event.time - line.last <= MERGE_WINDOW:
            line.count += 1
            line.last = event.time
            return line
    return None


def _same(one: Event, other: Event) -> bool:
    return one.kind == other.kind and one.text == other.text and one.job_id == other.job_id
