"""What a GroupSender tells about itself: its counters, and whom it serves. C level only."""

DROP_NAMES: tuple[str, ...]
