"""Forks and threads after use, for real, in every threading layer that loads."""

from importlib.util import find_spec

import pytest

from tests.hostile_processes import SCENARIOS
from tests.subprocesses import run_python

LAYERS = ["omp", "workqueue"]
if find_spec("tbb"):  # Intel's package; the layer may still not find its library
    LAYERS.append("tbb")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_right_bits_and_no_signal(scenario, layer):
    printed = run_python("-m", "tests.hostile_processes", scenario, NUMBA_THREADING_LAYER=layer)
    assert printed == "right\n"
