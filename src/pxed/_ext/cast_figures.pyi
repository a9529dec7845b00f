"""What a CastSender tells about itself: records of sessions and receivers, and its counters."""

DROP_NAMES: tuple[str, ...]
"""Why a datagram changed nothing; the first is none. In statistics as `drop.NAME`."""

STATE_NAMES: tuple[str, ...]
"""States of receivers."""
