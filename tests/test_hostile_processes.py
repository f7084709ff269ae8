"""Forks and threads after use, for real, whatever Numba's threading layer is."""

import json
import os

import pytest

from tests.processes.hostile_processes import PROBLEMS, SCENARIOS, step
from tests.tools.subprocesses import run_python


@pytest.fixture(scope="module")
def bits():
    """What this process gives."""
    return [step(*each) for each in PROBLEMS]


def check(bits, *scenarios, **environment):
    printed = run_python("-m", "tests.processes.hostile_processes", *scenarios, **environment)
    first, *others = printed.splitlines()
    assert json.loads(first) == bits
    assert others == [f"{scenario}: right" for scenario in scenarios]


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_right_bits_and_no_signal(layer, bits):
    """The scenario "users" has parallel functions of Numba's beside ours."""
    check(bits, *SCENARIOS, NUMBA_THREADING_LAYER=layer)


@pytest.mark.parametrize("number", [1, 2, 7])
def test_bits_do_not_depend_on_the_number_of_threads(number, bits):
    """One, two, and more than there are cores; and with calls of several threads at once."""
    check(bits, "alone", "threads", "fork", NUMBA_NUM_THREADS=str(number))


FORK = """
import os, sys, threading, time
import numpy as np
import bnnumba
from llvmlite.binding import ffi

x = np.arange(12.0).reshape(4, 3)

def within_llvm():
    with ffi.lib._lock:
        time.sleep(1.5)

target, arguments = (bnnumba.batch_norm, (x,)) if sys.argv[1] == "compiles" else (within_llvm, ())
other = threading.Thread(target=target, args=arguments)
other.start()
time.sleep(0.5)
child = os.fork()
if child == 0:
    os._exit(not (bnnumba.moments(x).mean == [4.5, 5.5, 6.5]).all())
other.join()
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
@pytest.mark.parametrize("doing", ["compiles", "is within LLVM"])
def test_a_fork_while_another_thread(doing, tmp_path):
    """The child would have the lock for ever, and not the thread that holds it: so the fork waits."""
    assert run_python("-c", FORK, doing, NUMBA_CACHE_DIR=str(tmp_path)) == "0\n"
