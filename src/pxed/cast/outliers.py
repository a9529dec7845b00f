"""Who lags so far behind the others that sending on its account would cost them: to be moved, with the reason."""

from bisect import bisect_left
from collections.abc import Sequence

from pxed.cast.member import Member, Window
from pxed.types import CastWhy as Why

# Fewer datagrams than this say nothing about loss.
_ENOUGH = 300
# Lost so much more than the others that one report is proof.
_CLEAR_LOSS = 0.5
# Lost more than so many times the others' median, and so much beyond it, in two reports one after the other.
_TIMES, _BEYOND = 3.0, 0.02
# A share that a slow port loses: a bad cable loses less.
_PORT_LOSS = 0.2
# Refused by a full disk queue, in two reports one after the other, while the others' median is below a quarter of it.
_REFUSED = 0.2
_PROOF = 2  # reports
# Fares as the others do for so many reports, and no worse than this: it was a moment's trouble.
_WELL_REPORTS, _WELL = 3, 0.01


def outliers(fresh: Sequence[Member], active: Sequence[Member]) -> list[tuple[Member, Why]]:
    """Those of `fresh`, who have just reported, that lag behind the rest of `active`.

    They are fewer than half by nature: what most suffer from is not theirs, and lowers the rate instead.
    """
    usual = _Usual(active)
    found: list[tuple[Member, Why]] = []
    for member in fresh:
        if not _tells(member):
            continue
        why = _lags(member, usual)
        member.suspect = member.suspect + 1 if why is not Why.NONE else 0
        if why is not Why.NONE and (member.suspect >= _PROOF or _is_clear(member)):
            found.append((member, why))
    return found


def _tells(member: Member) -> bool:
    return member.window is not None and member.window.expected >= _ENOUGH


def _is_clear(member: Member) -> bool:
    return member.window is not None and member.window.loss >= _CLEAR_LOSS


class _Usual:
    """How most of the active receivers fare. Ordered once for all who are compared with it: there may be thousands."""

    def __init__(self, active: Sequence[Member]) -> None:
        windows = [member.window for member in active if member.window is not None and _tells(member)]
        self._losses = sorted(window.loss for window in windows)
        self._refused = sorted(window.refused for window in windows)

    def loss(self, window: Window) -> float | None:
        """The median of the others' loss, beside the receiver whose window it is; None: there are none."""
        return _median_beside(self._losses, window.loss)

    def refused(self, window: Window) -> float | None:
        """The same of what their disks refused."""
        return _median_beside(self._refused, window.refused)


def _median_beside(ordered: Sequence[float], value: float) -> float | None:
    """The median of the values without one that is `value`, if there is one."""
    place = bisect_left(ordered, value)
    left = len(ordered)
    if place < left and ordered[place] == value:
        left -= 1
    else:
        place = left
    if not left:
        return None
    middle = [(ordered[n] if n < place else ordered[n + 1]) for n in ((left - 1) // 2, left // 2)]
    return sum(middle) / 2


def _lags(member: Member, usual: _Usual) -> Why:
    """In what it lags behind the others."""
    window = member.window
    assert window is not None
    loss, refused = usual.loss(window), usual.refused(window)
    if loss is None or refused is None:
        return Why.NONE
    if window.loss > loss * _TIMES + _BEYOND:
        return Why.PORT if window.loss >= _PORT_LOSS else Why.LOSS
    if window.refused > _REFUSED and refused < window.refused / 4:
        return Why.DISK
    return Why.NONE


def recovered(fresh: Sequence[Member], active: Sequence[Member]) -> list[Member]:
    """Those of `fresh`, listeners who have just reported, that fare as the others do. Each gets one such chance."""
    usual = _Usual(active)
    found = []
    for member in fresh:
        well = _tells(member) and _is_well(member) and _lags(member, usual) is Why.NONE
        member.suspect = member.suspect - 1 if well else 0
        if member.suspect <= -_WELL_REPORTS and member.chances:
            member.chances -= 1
            member.suspect = 0
            found.append(member)
    return found


def _is_well(member: Member) -> bool:
    return member.window is not None and member.window.loss <= _WELL and member.window.refused <= _WELL
