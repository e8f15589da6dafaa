"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A machine that does much else at once must fail no test.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
