"""Forks and threads after use, for real, in every threading layer that loads."""

import sys
from pathlib import Path

import pytest

from tests.processes.hostile_processes import SCENARIOS
from tests.tools.subprocesses import run_python

ENVIRONMENTS = {"omp": {}, "workqueue": {}}
LIBRARIES = Path(sys.prefix, "lib")  # where PyPI's package puts TBB, and the loader does not look
if (LIBRARIES / "libtbb.so.12").exists():
    ENVIRONMENTS["tbb"] = {"LD_LIBRARY_PATH": str(LIBRARIES)}


def run_in(layer, scenario, **environment):
    environment = {**ENVIRONMENTS[layer], **environment, "NUMBA_THREADING_LAYER": layer}
    return run_python("-m", "tests.processes.hostile_processes", scenario, **environment)


@pytest.mark.parametrize("layer", ENVIRONMENTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_right_bits_and_no_signal(scenario, layer):
    assert run_in(layer, scenario).endswith("right\n")


@pytest.mark.parametrize("layer", ENVIRONMENTS)
def test_bits_do_not_depend_on_the_number_of_threads(layer):
    """One, two, and more than there are cores."""
    assert len({run_in(layer, "alone", NUMBA_NUM_THREADS=str(number)) for number in (1, 2, 7)}) == 1
