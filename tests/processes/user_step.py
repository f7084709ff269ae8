"""A user's own compiled code: training steps through `bnnumba.kernels`.

`python -m tests.processes.user_step` caches them on disk and prints, as JSON, the digest of each case's results, and
how often the compiled form of each step came from the disk cache. The tests import the cases, and compile nothing.
"""

import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from bnnumba.kernels import serial, threaded
from tests.tools.problems import FLOATS, problem

EPSILON, MOMENTUM, DDOF = 1e-3, 0.9, 1


@njit(cache=True)
def step_serial(x, dy, gamma, beta, moving_mean, moving_var, y, dx):
    """One training step: forward, moving update, backward."""
    mean, var = serial.batch_norm(x, gamma, beta, EPSILON, y)
    serial.update_moving(moving_mean, moving_var, mean, var, x.shape[0] * x.shape[2], MOMENTUM, DDOF)
    return serial.batch_norm_backward(dy, x, mean, var, gamma, EPSILON, dx)


@njit(cache=True)
def step_threaded(x, dy, gamma, beta, moving_mean, moving_var, y, dx):
    mean, var = threaded.batch_norm(x, gamma, beta, EPSILON, y)
    threaded.update_moving(moving_mean, moving_var, mean, var, x.shape[0] * x.shape[2], MOMENTUM, DDOF)
    return threaded.batch_norm_backward(dy, x, mean, var, gamma, EPSILON, dx)


@njit(cache=True, parallel=True, fastmath=True)
def step_between_regions(x, dy, gamma, beta, moving_mean, moving_var, y, dx):
    """A step by all threads in a function with parallel regions of its own, and with fastmath."""
    doubled = np.empty_like(gamma)
    for f in prange(gamma.size):
        doubled[f] = gamma[f] + gamma[f]
    dgamma, dbeta = step_threaded(x, dy, doubled / 2.0, beta, moving_mean, moving_var, y, dx)
    for f in prange(gamma.size):
        dgamma[f] += 0.0
    return dgamma, dbeta


@njit(cache=True, parallel=True)
def steps_in_parallel(x, dy, gamma, beta, moving_mean, moving_var, y, dx):
    """A step for each of many independent problems, in the user's own prange."""
    dgamma, dbeta = np.empty(gamma.shape), np.empty(gamma.shape)
    for k in prange(x.shape[0]):
        dgamma[k], dbeta[k] = step_serial(x[k], dy[k], gamma[k], beta[k], moving_mean[k], moving_var[k], y[k], dx[k])
    return dgamma, dbeta


def arguments(shape, count=None, dtype=np.float32):
    """A step's arguments; with a count, those of as many problems, stacked."""
    if count is not None:
        each = [arguments((*shape[:2], shape[2]), dtype=dtype) for _ in range(count)]
        return [
            np.stack(parts) * (1 + np.arange(count, dtype=parts[0].dtype).reshape(-1, *[1] * parts[0].ndim))
            for parts in zip(*each, strict=True)
        ]
    p = problem(shape, 1, dtype, offset=10.0)
    return [*p, np.zeros(shape[1]), np.ones(shape[1]), np.zeros_like(p.x), np.zeros_like(p.x)]


def results(step, given):
    """What a step returns and fills: dgamma, dbeta, moving mean and variance, y, dx."""
    given = [array.copy() for array in given]
    return [*step(*given), *given[4:]]


class Case(NamedTuple):
    """A step, and what it is given: for a count, as many problems at once."""

    step: Callable
    shape: tuple
    count: int | None = None
    dtype: type = np.float32

    def arguments(self):
        return arguments(self.shape, self.count, self.dtype)


SHAPES = ((40, 5, 1), (6, 5, 49), (3000, 70, 1), (20, 30, 196))
CASES = {
    f"{step.__name__} {shape} {np.dtype(dtype).name}": Case(step, shape, dtype=dtype)
    for step in (step_serial, step_threaded, step_between_regions)
    for shape in SHAPES
    for dtype in FLOATS
} | {"steps_in_parallel": Case(steps_in_parallel, (40, 5, 7), 6)}


def digest(step, given):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in results(step, given))).hexdigest()


def main():
    digests = {name: digest(case.step, case.arguments()) for name, case in CASES.items()}
    hits = {case.step.__name__: sum(case.step.stats.cache_hits.values()) for case in CASES.values()}
    print(json.dumps({"digests": digests, "from cache": hits}))


if __name__ == "__main__":
    main()
