"""Settings of the whole suite: Hypothesis, options, markers."""

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("bnnumba", **COMMON, derandomize=True, max_examples=100)
settings.load_profile("bnnumba")


def pytest_addoption(parser):
    group = parser.getgroup("bnnumba")
    group.addoption("--fuzz-cases", type=int, help="so many cases for each property test, with new seeds each time")
    group.addoption("--large", action="store_true", help="also the test with more than 2**31 elements: 9 GB, minutes")


def pytest_configure(config):
    config.addinivalue_line("markers", "subset: small tests that test_modes runs again in Numba's other modes")
    config.addinivalue_line("markers", "large: needs --large")
    if config.option.fuzz_cases is not None:
        settings.register_profile("fuzz", **COMMON, max_examples=config.option.fuzz_cases, database=None)
        settings.load_profile("fuzz")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what --large asks for, as what is not chosen, not as what could not run."""
    if not config.option.large:
        others = [item for item in items if item.get_closest_marker("large")]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)
