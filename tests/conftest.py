"""What holds for every test."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# A busy machine, or a build with sanitizers, is no mistake of the code: no deadline, no complaint about slow drawing.
settings.register_profile("pxed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pxed")


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """A test that sets up logging, maybe by running a command in this process, does not mute the next one."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
