"""When a session begins to send."""

from pxed.config import Start

_BACK = 720  # minutes between two looks from which on the clock is taken to have gone backwards


class Starting:
    """Waits for a start rule to hold. It began once and for all."""

    def __init__(self, rule: Start) -> None:
        self.rule = rule
        self.begun: float | None = None
        self._last: int | None = None  # minute of the day at the last look

    def look(self, now: float, minute: int, machines: int, first: float | None) -> bool:
        """Whether it has begun: with so many `machines` joined, the first at `first`, at a minute of the day."""
        before, self._last = self._last, minute
        if self.begun is None and machines and self._holds(now, minute, before, machines, first):
            self.begun = now
        return self.begun is not None

    def begin(self, now: float) -> None:
        """By hand."""
        if self.begun is None:
            self.begun = now

    def _holds(self, now: float, minute: int, before: int | None, machines: int, first: float | None) -> bool:
        rule = self.rule
        if rule.machines and machines >= rule.machines:
            return True
        if rule.seconds and first is not None and now - first >= rule.seconds:
            return True
        # The minute itself, or one that was passed since the last look.
        return rule.minute is not None and before is not None and _passed(before, minute, rule.minute)

    def words(self, machines: int, now: float, first: float | None) -> str:
        """What it waits for."""
        rule, waits = self.rule, []
        if rule.machines:
            waits.append(f"{machines} of {rule.machines} machines are there")
        if rule.seconds and first is not None:
            waits.append(f"begins in {max(0.0, first + rule.seconds - now):.0f} s")
        if rule.minute is not None:
            waits.append(f"begins at {rule.minute // 60:02}:{rule.minute % 60:02}")
        return ", or ".join(waits) or "waits for `pxed session start`"


def _passed(before: int, minute: int, wanted: int) -> bool:
    gone = (minute - before) % 1440
    if gone > _BACK:  # nearly a day, within a moment: the clock was set back, as it is once a year
        gone = 0
    return (wanted - before) % 1440 <= gone if gone else wanted == minute
