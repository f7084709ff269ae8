"""Settings of the whole suite: Hypothesis, markers."""

from hypothesis import settings

settings.register_profile("bnnumba", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("bnnumba")


def pytest_configure(config):
    config.addinivalue_line("markers", "subset: small tests that test_modes runs again in Numba's other modes")
