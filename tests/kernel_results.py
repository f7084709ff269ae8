"""All that the kernels give on a table of shapes, and its bits under every number of threads.

`python -m tests.kernel_results` prints, as JSON, a digest for each shape and dtype: of the serial form, and of the
threaded form with 1 to 4 threads. It is a process of its own because Numba fixes its most threads when it is imported.
"""

import hashlib
import json

import numba
import numpy as np

from bnnumba.kernels import serial, threaded
from tests.problems import FLOATS, problem

EPSILON = 1e-3
# (outer, feature, inner); few and many of each, and sizes that fill no vector.
CHANNELS_LAST = [
    (1, 3, 1), (5, 1, 1), (70_000, 1, 1), (37, 3, 1), (20_000, 3, 1), (513, 8, 1), (9_001, 17, 1), (40, 64, 1),
    (20_000, 64, 1), (33, 257, 1), (2_500, 257, 1), (16, 2048, 1), (700, 2048, 1),
]  # fmt: skip
CHANNELS_FIRST = [
    (9, 5, 7), (300, 33, 49), (16, 64, 196), (1, 700, 2), (4, 3, 3249), (2, 2, 40_000), (3, 1, 40_000), (1, 1, 7),
    (600, 17, 9),
]  # fmt: skip
EMPTY = [(0, 4, 1), (4, 0, 3), (4, 3, 0)]
SHAPES = CHANNELS_LAST + CHANNELS_FIRST


def every_result(form, p):
    """All that a form's kernels give, by name."""
    x, dy, gamma, beta = p
    results = {}

    def fill(kernel, *arguments):
        result = np.full_like(x, np.nan)
        results[kernel] = result
        return getattr(form, kernel)(*arguments, result)

    results["mean"], results["var"] = mean, var = form.moments(x)
    fill("normalize", x, mean, var, gamma, beta, EPSILON)
    results["batch_norm mean"], results["batch_norm var"] = fill("batch_norm", x, gamma, beta, EPSILON)
    results["dgamma"], results["dbeta"] = sums = form.gradient_sums(dy, x, mean, var, EPSILON)
    fill("input_gradient", dy, x, mean, var, gamma, *sums, EPSILON)
    fill("frozen_input_gradient", dy, var, gamma, EPSILON)
    for kernel in ("batch_norm_backward", "frozen_backward"):
        results[f"{kernel} dgamma"], results[f"{kernel} dbeta"] = fill(kernel, dy, x, mean, var, gamma, EPSILON)
    return results


def label(shape, dtype):
    return f"{shape} {np.dtype(dtype).name}"


def digest(results):
    return hashlib.sha256(b"".join(result.tobytes() for result in results.values())).hexdigest()


def digests(shape, dtype):
    """Of the serial form first, then of the threaded one with each number of threads."""
    p = problem(shape, 1, dtype, offset=100.0)
    found = [digest(every_result(serial, p))]
    for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        numba.set_num_threads(threads)
        found.append(digest(every_result(threaded, p)))
    return found


if __name__ == "__main__":
    print(json.dumps({label(shape, dtype): digests(shape, dtype) for shape in SHAPES + EMPTY for dtype in FLOATS}))
