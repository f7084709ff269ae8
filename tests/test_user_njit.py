"""A user's `@njit` code runs whole training steps through the kernels, and gets the bits of the functions."""

import json

import numpy as np
import pytest
from numba import njit

import bnnumba
from bnnumba.kernels import serial
from tests.processes import user_step
from tests.tools.problems import FLOATS, same_bits
from tests.tools.subprocesses import run_python

SHAPES = pytest.mark.parametrize("shape", [(40, 5, 1), (6, 5, 49), (3000, 70, 1), (20, 30, 196)], ids=str)


def step_by_functions(x, dy, gamma, beta, moving_mean, moving_var, y, dx):
    epsilon = user_step.EPSILON
    _, moments = bnnumba.batch_norm(x, gamma, beta, 1, epsilon=epsilon, out=y)
    bnnumba.update_moving(moving_mean, moving_var, moments, user_step.MOMENTUM, ddof=user_step.DDOF)
    gradients = bnnumba.batch_norm_backward(dy, x, *moments[:2], gamma, 1, epsilon=epsilon, out=dx)
    return gradients.dgamma, gradients.dbeta


def check_same(results, others):
    assert all(same_bits(a, b) for a, b in zip(results, others, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("step", [user_step.step_serial, user_step.step_threaded, user_step.step_between_regions])
@SHAPES
def test_a_step_gives_the_bits_of_the_functions(shape, step, dtype):
    given = user_step.arguments(shape, dtype=dtype)
    check_same(user_step.results(step, given), user_step.results(step_by_functions, given))


def test_steps_inside_a_prange():
    given = user_step.arguments((40, 5, 7), 6)
    together = user_step.results(user_step.steps_in_parallel, given)
    for k in range(6):
        one = user_step.results(step_by_functions, [array[k] for array in given])
        check_same([array[k] for array in together], one)


def test_cached_steps_in_a_fresh_process(tmp_path):
    """The second process compiles nothing of the user's, and gets the same bits; so does this process."""
    command = ("-m", "tests.processes.user_step")
    first, second = (json.loads(run_python(*command, NUMBA_CACHE_DIR=str(tmp_path))) for _ in range(2))
    for name, (step, parts) in user_step.CASES.items():
        assert first[name]["from cache"] == 0
        assert second[name]["from cache"] > 0
        bits = user_step.digest(step, user_step.arguments(*parts))
        assert first[name]["digest"] == second[name]["digest"] == bits


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
