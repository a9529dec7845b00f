"""How fast one core sends: that it is measured, not how fast this machine is."""

import pytest

from pxed.bench.cast.speed import measure

pytestmark = pytest.mark.root


def test_what_is_sent_is_measured() -> None:
    speed = measure(seconds=0.2, size=8 << 20)
    assert speed.seconds >= 0.2
    assert speed.rate > 10e6
    assert speed.bytes == pytest.approx(speed.datagrams * 1436, rel=0.01)
