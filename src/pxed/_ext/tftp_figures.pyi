"""What a TftpSender tells about itself: the names of its states, outcomes and drops."""

STATE_NAMES: tuple[str, ...]
OUTCOME_NAMES: tuple[str, ...]
DROP_NAMES: tuple[str, ...]
