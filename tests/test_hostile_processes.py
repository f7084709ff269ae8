"""Forks and threads after use, for real, in every threading layer that loads."""

from contextlib import suppress
from importlib import import_module

import pytest

from tests.hostile_processes import SCENARIOS
from tests.subprocesses import run_python

LAYERS = ["omp", "workqueue"]
with suppress(ImportError):  # it loads where its library is found
    import_module("numba.np.ufunc.tbbpool")
    LAYERS.append("tbb")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_right_bits_and_no_signal(scenario, layer):
    printed = run_python("-m", "tests.hostile_processes", scenario, NUMBA_THREADING_LAYER=layer)
    assert printed == "right\n"
