"""Settings that every test shares."""

from hypothesis import HealthCheck, settings

# Machines that run CI are slow and shared: what is drawn matters, not how fast.
settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")
