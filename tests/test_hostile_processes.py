"""Forks and threads after use, for real, in every threading layer that loads."""

import json
import sys
from pathlib import Path

import pytest

from tests.processes.hostile_processes import PROBLEMS, SCENARIOS, step
from tests.tools.subprocesses import run_python

ENVIRONMENTS = {"omp": {}, "workqueue": {}}
LIBRARIES = Path(sys.prefix, "lib")  # where PyPI's package puts TBB, and the loader does not look
if (LIBRARIES / "libtbb.so.12").exists():
    ENVIRONMENTS["tbb"] = {"LD_LIBRARY_PATH": str(LIBRARIES)}


@pytest.fixture(scope="module")
def bits():
    """What this process gives."""
    return [step(*each) for each in PROBLEMS]


def check(bits, layer, *scenarios, **environment):
    environment = {**ENVIRONMENTS[layer], **environment, "NUMBA_THREADING_LAYER": layer}
    printed = run_python("-m", "tests.processes.hostile_processes", *scenarios, **environment)
    first, *others = printed.splitlines()
    assert json.loads(first) == bits
    assert others == [f"{scenario}: right" for scenario in scenarios]


@pytest.mark.parametrize("layer", ENVIRONMENTS)
def test_right_bits_and_no_signal(layer, bits):
    check(bits, layer, *SCENARIOS)


@pytest.mark.parametrize("layer", ENVIRONMENTS)
@pytest.mark.parametrize("number", [1, 2, 7])
def test_bits_do_not_depend_on_the_number_of_threads(number, layer, bits):
    """One, two, and more than there are cores."""
    check(bits, layer, "alone", NUMBA_NUM_THREADS=str(number))
