"""Medians, percentiles and ratios."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["added", "median", "percentile", "ratio"]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank); 0.0 of none.

    Nearest rank names a value that was measured; with few values p99 is the maximum.
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value, the mean of the two middle ones of an even number; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """`ours` in units of `theirs`; None where there is nothing to compare, or nothing to compare with."""
    return ours / theirs if ours is not None and theirs else None


def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """How often each reason was counted in all."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
