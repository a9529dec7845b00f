"""What holds for every test."""

from hypothesis import HealthCheck, settings

# A busy machine, or a build with sanitizers, is no mistake of the code: no deadline, no complaint about slow drawing.
settings.register_profile("pxed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pxed")
