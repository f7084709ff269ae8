"""A user's `@njit` code runs whole training steps through the kernels, and gets the bits of the functions."""

import json

import numpy as np
import pytest
from numba import njit

import bnnumba
from bnnumba.kernels import serial
from tests.processes import user_step
from tests.tools.subprocesses import run_python


def step_by_functions(x, dy, gamma, beta, moving_mean, moving_var, y, dx):
    epsilon = user_step.EPSILON
    _, moments = bnnumba.batch_norm(x, gamma, beta, 1, epsilon=epsilon, out=y)
    bnnumba.update_moving(moving_mean, moving_var, moments, user_step.MOMENTUM, ddof=user_step.DDOF)
    gradients = bnnumba.batch_norm_backward(dy, x, *moments[:2], gamma, 1, epsilon=epsilon, out=dx)
    return gradients.dgamma, gradients.dbeta


def steps_by_functions(*stacks):
    """A step for each problem."""
    returned = [step_by_functions(*arrays) for arrays in zip(*stacks, strict=True)]
    return [np.stack(each) for each in zip(*returned, strict=True)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Of a process that compiles the steps, and of the next one."""
    directory = str(tmp_path_factory.mktemp("cache"))
    return [json.loads(run_python("-m", "tests.processes.user_step", NUMBA_CACHE_DIR=directory)) for _ in range(2)]


@pytest.mark.parametrize("name", user_step.CASES)
def test_a_step_gives_the_bits_of_the_functions(name, reports):
    """Serial, threaded, between the caller's own regions, inside its prange; compiled, and from the cache."""
    case = user_step.CASES[name]
    expected = user_step.digest(step_by_functions if case.count is None else steps_by_functions, case.arguments())
    assert [report["digests"][name] for report in reports] == [expected] * 2


def test_the_next_process_compiles_none_of_the_steps(reports):
    first, second = (report["from cache"] for report in reports)
    assert set(first.values()) == {0}
    assert min(second.values()) > 0


def test_a_callers_fastmath_does_not_reach_the_kernels():
    """NaN stays NaN for a caller that compiles with fastmath=True, which allows the opposite."""

    @njit(fastmath=True)
    def moments(x):
        return serial.moments(x)

    x = np.ones((20, 3, 1))
    x[3, 1, 0] = np.nan
    mean, var = moments(x)
    assert list(np.isnan(mean)) == list(np.isnan(var)) == [False, True, False]


FASTMATH_FIRST = """
import numpy as np
from numba import njit
import bnnumba
from bnnumba.kernels import serial, threaded

@njit(fastmath=True)
def both(x):
    mean, var = serial.moments(x)
    moving_mean, moving_var = np.zeros(3), np.ones(3)
    serial.update_moving_finite(moving_mean, moving_var, mean, var, 20, 0.5, 0)
    return (mean, var), threaded.moments(x), (moving_mean, moving_var)

x = np.ones((20, 3, 1))
x[3, 1, 0] = np.nan
if {by_user_first}:
    both(x)
*found, moved = both(x)
assert [list(each) for each in moved] == [[0.5, 0.0, 0.5], [0.5, 1.0, 0.5]]
for mean, var in (serial.moments(x), threaded.moments(x), bnnumba.moments(x, 1)[:2], *found):
    assert list(np.isnan(mean)) == list(np.isnan(var)) == [False, True, False]
print(sum(serial.moments.stats.cache_hits.values()) > 0)
"""


def test_kernels_first_compiled_for_fastmath_are_unharmed(tmp_path):
    """In the process whose fastmath caller compiled them first, and in the next, from the cache."""
    for by_user_first, cached in ((True, "False"), (False, "True")):
        code = FASTMATH_FIRST.format(by_user_first=by_user_first)
        assert run_python("-c", code, NUMBA_CACHE_DIR=str(tmp_path)).strip() == cached
