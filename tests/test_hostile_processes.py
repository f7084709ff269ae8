"""Forks and threads after use, for real, in every threading layer that loads."""

import json
import os
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


FORK = """
import os, threading, time
import numpy as np
import bnnumba

x = np.arange(12.0).reshape(4, 3)
compiling = threading.Thread(target=bnnumba.batch_norm, args=(x,))
compiling.start()
time.sleep(0.5)
child = os.fork()
if child == 0:
    os._exit(not (bnnumba.moments(x).mean == [4.5, 5.5, 6.5]).all())
compiling.join()
for _ in range(1200):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    status = "hung"
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_while_another_thread_compiles(tmp_path):
    """The child would have Numba's lock for ever, and not the thread that holds it: so the fork waits."""
    assert run_python("-c", FORK, NUMBA_CACHE_DIR=str(tmp_path)) == "0\n"
