"""Settings of all tests: property tests have no deadline, since the machine may be busy; tests side by side compute on one thread each."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # torch and numpy read it when they are first imported. Workers with as many threads as cores wait for each other in spin locks:
    # measured five times slower than with one thread each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("atelier", deadline=None)
settings.load_profile("atelier")
