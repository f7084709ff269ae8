"""All that the kernels give on a table of shapes, and its bits under every number of threads.

`python -m tests.processes.kernel_results` prints, as JSON, a digest for each shape and dtype: of the serial form, and
of the threaded form with 1 to 4 threads. It is a process of its own because Numba fixes the largest number of threads
when it is imported.
"""

import hashlib
import json

import numba
import numpy as np

from bnnumba.activations import NAMED
from bnnumba.kernels import serial, threaded
from tests.tools.problems import FLOATS, problem

EPSILON = 1e-3
# (outer, feature, inner); few and many of each, and sizes that fill no vector.
CHANNELS_LAST = [
    (1, 3, 1), (5, 1, 1), (70_000, 1, 1), (37, 3, 1), (20_000, 3, 1), (513, 8, 1), (9_001, 17, 1), (40, 64, 1),
    (20_000, 64, 1), (33, 257, 1), (2_500, 257, 1), (16, 2048, 1), (700, 2048, 1), (3, 9001, 1), (33, 4096, 1),
]  # fmt: skip
CHANNELS_FIRST = [
    (9, 5, 7), (300, 33, 49), (16, 64, 196), (1, 700, 2), (4, 3, 3249), (2, 2, 40_000), (3, 1, 40_000), (1, 1, 7),
    (600, 17, 9),
]  # fmt: skip
EMPTY = [(0, 4, 1), (4, 0, 3), (4, 3, 0), (1, 500, 0)]
SHAPES = CHANNELS_LAST + CHANNELS_FIRST


class Results(dict):
    """Arrays by name; `place` copies each to where the kernels find it."""

    def __init__(self, p, place):
        super().__init__()
        self.p, self.place = p, place

    def new(self, name, like):
        """An array like another one, of NaN."""
        self[name] = self.place(np.full(like.shape, np.nan, like.dtype))
        return self[name]

    def features(self, kernel, *names):
        return [self.new(f"{kernel} {name}", self.p.gamma) for name in names or ("dgamma", "dbeta")]


def every_result(form, p, place=np.array):
    """All that a form's kernels give, by name."""
    x, dy, gamma, beta = map(place, p)
    results = Results(p, place)
    new, features = results.new, results.features

    def make(kernel, *arguments, of_features=()):
        """Call a kernel that fills an array, and those `of_features`; the form that returns them gives the same."""
        arguments = *arguments, new(kernel, x)
        filled = [new(f"{kernel} {name}", gamma) for name in of_features]
        if not filled:
            getattr(form, kernel)(*arguments)
            return
        getattr(form, f"{kernel}_into")(*arguments, *filled)
        written = arguments[-1].copy()
        for array, returned in zip(filled, getattr(form, kernel)(*arguments), strict=True):
            assert array.tobytes() == returned.tobytes()
        assert arguments[-1].tobytes() == written.tobytes()

    mean, var = new("mean", gamma), new("var", gamma)
    form.moments_into(x, mean, var)
    plain = new("mean again", gamma), new("var again", gamma)
    form.moments_and_rest_into(x, *plain, new("rest", gamma))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(plain, (mean, var), strict=True))
    make("normalize", x, mean, var, gamma, beta, EPSILON)
    make("batch_norm", x, gamma, beta, EPSILON, of_features=("mean", "var"))
    sums = new("dgamma", gamma), new("dbeta", gamma)
    form.gradient_sums_into(dy, x, mean, var, EPSILON, *sums)
    for returned, array in zip(
        form.moments(x) + form.gradient_sums(dy, x, mean, var, EPSILON), (mean, var, *sums), strict=True
    ):
        assert returned.tobytes() == array.tobytes()
    make("input_gradient", dy, x, mean, var, gamma, *sums, EPSILON)
    make("frozen_input_gradient", dy, var, gamma, EPSILON)
    for kernel in ("batch_norm_backward", "frozen_backward"):
        make(kernel, dy, x, mean, var, gamma, EPSILON, of_features=("dgamma", "dbeta"))

    # ---- with weights
    weights = np.random.default_rng(1).random((x.shape[0], 1, x.shape[2]))
    for name, w in (("mask", np.round(weights)), ("weights", np.where(weights < 0.3, 0.0, weights))):
        moments = features(f"{name}:", "mean", "var")
        change = place(-p.dy)
        form.subtract_weighted(dy, place(w), change)
        results[f"{name}: change"] = change
        results[f"{name}: count"] = np.array(form.weighted_moments_into(x, place(w), *moments))

    # ---- of two batches
    rows, numbers = place(np.stack([mean, 0 * mean, var, 0 * var])), place(np.full(gamma.size, 3.0))
    union = place(np.full_like(rows, np.nan))
    form.pool_into(numbers, rows, numbers, place(rows[::-1]), union)
    results["union"] = union

    _add_activated(form, p, results)
    return results


def _add_activated(form, p, results):
    """Add what the kernels give with a residual and ReLU."""
    x, dy, gamma, beta = map(results.place, p)
    mean, var, new, features, place = results["mean"], results["var"], results.new, results.features, results.place
    residual, act = place(-p.dy), NAMED["relu"]
    for kind, behind in (("relu", (None, act)), ("add", (residual, None)), ("add_relu", (residual, act))):
        y = new(f"normalize_{kind} y", x)
        form.normalize(x, mean, var, gamma, beta, EPSILON, y, *behind)
        y = new(f"batch_norm_{kind} y", x)
        form.batch_norm_into(x, gamma, beta, EPSILON, y, *features(f"batch_norm_{kind}", "mean", "var"), *behind)
    for kind in ("relu", "add_relu"):
        y, masked = place(results[f"normalize_{kind} y"]), kind == "add_relu"

        def behind(kernel, masked=masked, y=y):
            return new(f"{kernel} dresidual", x) if masked else None, act, y

        name = f"{kind}_gradient_sums"
        dresidual = behind(name)
        form.gradient_sums_into(dy, x, mean, var, EPSILON, *features(name), *dresidual)
        for backward in ("batch_norm_backward_into", "frozen_backward_into"):
            name = f"{kind}_{backward}"
            dx, dresidual = new(f"{name} dx", x), behind(name)
            getattr(form, backward)(dy, x, mean, var, gamma, EPSILON, dx, *features(name), *dresidual)
        alone = place(np.full_like(x, np.nan))
        form.activation_gradient(dy, y, act, alone)
        assert not masked or alone.tobytes() == results[f"{kind}_gradient_sums dresidual"].tobytes()
    dx = new("remade dx", x)
    form.batch_norm_backward_into(dy, x, mean, var, gamma, EPSILON, dx, *features("remade"), None, act, None, beta)


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
