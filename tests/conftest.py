"""Settings of all tests: property tests have no deadline, since the machine may be busy."""

from hypothesis import settings

settings.register_profile("atelier", deadline=None)
settings.load_profile("atelier")
