"""Settings of the whole suite: Hypothesis, options, markers, and the two processes that share it."""

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("bnnumba", **COMMON, derandomize=True, max_examples=100)
settings.load_profile("bnnumba")

# Two processes share the suite, a file at a time. These files take longest: begun last, one would leave a core idle.
# The first of them compile what the others do not, which then lies in the cache for the rest.
PROCESSES = 2
FIRST = (
    "test_memory_safety",
    "test_modes",
    "test_half",
    "test_user_njit",
    "test_command",
    "test_kernels",
    "test_keras",
    "test_torch_sync",
)


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


@pytest.fixture(autouse=True)
def computed_here(request, monkeypatch):
    """Let the layers of `bnnumba.torch` leave nothing to PyTorch, whose bits are others, in the tests of ours."""
    if request.path.stem.startswith("test_torch") and "handed_over" not in request.fixturenames:
        monkeypatch.setattr("bnnumba.torch.modules.Layer.exact", True)


@pytest.fixture
def handed_over():
    """Leave to PyTorch what the layers leave to it by default."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist's own
def pytest_cmdline_main(config):
    """Share the suite where the whole of it runs; tests that are named, or timed, run in this process."""
    if hasattr(config, "workerinput"):  # one of the processes, which must not share its part again
        return
    option = config.option
    whole = config.args_source is config.ArgsSource.TESTPATHS
    alone = option.benchmark_only or option.benchmark_enable or option.usepdb or option.collectonly
    if whole and not alone and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist, option.loadscopereorder = PROCESSES, "loadfile", False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what --large asks for, as what is not chosen, not as what could not run; the longest files first."""
    if not config.option.large:
        others = [item for item in items if item.get_closest_marker("large")]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)
    order = {name: turn for turn, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(FIRST)))
