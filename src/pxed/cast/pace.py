"""The rate of a session: additive increase, multiplicative decrease, between a floor and a cap.

It starts at the cap: a site says what its network carries. Loss makes it slower, unless being slower does not help:
what is lost at any rate (a bad cable, a radio link) is noise, which repairs are for and no rate.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

CLEAN = 0.005  # loss that no rate is lowered for
STEP = 0.05  # of the cap, up, for each clean look
MILDEST, HARDEST = 0.95, 0.7  # factors down
ANSWER = 3.0  # times the loss, down: enough to see whether less is lost then
NOISE_MARGIN = 1.25  # loss varies by this around what is known to be noise
FORGET = 0.1  # of the difference, when there is less noise than before


class _Trial(Struct, frozen=True):
    """The rate was lowered from `rate`, at which `loss` was lost."""

    rate: float
    loss: float


class Pace:
    """The rate of one session."""

    def __init__(self, floor: float, cap: float) -> None:
        self._floor, self._cap = min(floor, cap), cap
        self._rate = cap
        self._trial: _Trial | None = None
        self.noise = 0.0
        """Loss that does not depend on the rate."""

    @property
    def rate(self) -> int:
        """Bytes of data per second."""
        return round(self._rate)

    def limit(self, floor: float, cap: float) -> None:
        """The bounds are others from now on. Who was at the old cap is at the new one."""
        if cap == self._cap and min(floor, cap) == self._floor:
            return
        at_cap = self._rate >= self._cap
        self._floor, self._cap = min(floor, cap), cap
        self._rate = cap if at_cap else max(self._floor, min(self._rate, cap))
        self._trial = None

    def look(self, loss: float) -> bool:
        """What was lost at the present rate. True: it is lowered or back up, so wait for figures of the new one."""
        trial, self._trial = self._trial, None
        if trial is not None and self._is_noise(trial, loss):
            self.noise = max(self.noise, loss)
            self._rate = max(self._floor, min(trial.rate, self._cap))
            return True
        if loss - self.noise * NOISE_MARGIN > CLEAN:
            return self._lower(loss)
        self.noise += min(0.0, loss - self.noise) * FORGET
        self._rate = min(self._cap, self._rate + STEP * self._cap)
        return False

    def _lower(self, loss: float) -> bool:
        if self._rate <= self._floor:
            return False
        self._trial = _Trial(self._rate, loss)
        self._rate = max(self._floor, self._rate * max(HARDEST, min(1.0 - ANSWER * loss, MILDEST)))
        return True

    def _is_noise(self, trial: _Trial, loss: float) -> bool:
        """Whether the loss stayed nearer to what it was than to what a full line would lose now."""
        carried = trial.rate * (1.0 - trial.loss)
        by_line = max(0.0, 1.0 - carried / self._rate) if self._rate else 0.0
        return loss > CLEAN and loss > (trial.loss + by_line) / 2


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
