"""What the memory allows: its rates for arrays of a case's size, and the least time that a pass needs at these rates.

The rates are measured with as many threads as the libraries have, in arrays from the same allocator. Where data fits in
cache, they are the cache's rates; a kernel that keeps data in an inner cache between two sweeps may then be faster than
the limit.
"""

from collections.abc import Callable, Mapping
from functools import cache

import numba
import numpy as np
from numba import njit, prange

from bench.cases import Case, Problem
from bench.libraries import Library
from bench.machine import THREADS
from bench.timing import least_time
from bnnumba.kernels.simd import LANES, fence, fold, load, splat, store, stream

# How many times an array's size moves between memory and processor.
RATES = {"read": 1, "copy": 2, "copy_streamed": 2, "add": 3, "add_streamed": 3}

# The sweeps that a pass needs: channels first, a feature's slice stays in cache from the sums to the result ...
_SWEEPS = {
    "moments": ("read",),
    "inference": ("copy",),
    "training_forward": ("copy",),
    "backward": ("add",),
    "frozen_backward": ("add",),
    "forward_backward": ("copy", "add"),
}
# ... and channels last, all features are complete only after a sweep over everything.
_SUMS_FIRST = {
    "training_forward": ("read",),
    "backward": ("read", "read"),
    "forward_backward": ("read", "read", "read"),
}

_TRIAL = 0.02  # seconds


def least_seconds(case: Case, pass_name: str, rates: Mapping[str, float]) -> float:
    """The time that a pass needs at the given rates, in GB/s, with the better kind of stores."""
    best = {"read": rates["read"]} | {name: max(rates[name], rates[f"{name}_streamed"]) for name in ("copy", "add")}
    sweeps = _SWEEPS[pass_name] + (_SUMS_FIRST.get(pass_name, ()) if case.channels_last else ())
    return sum(RATES[sweep] * case.nbytes / (1e9 * best[sweep]) for sweep in sweeps)


def gigabytes_per_second(case: Case, rate: str, seconds: float) -> float:
    return RATES[rate] * case.nbytes / (1e9 * seconds)


@njit
def _read(x, dy, y, start, stop):  # noqa: ARG001  # all sweeps take the same arguments
    """Add up in eight vectors: so many additions must be under way to keep up with the first cache."""
    a = b = c = d = e = f = g = h = splat(x.dtype.type(0))
    whole = stop - (stop - start) % (8 * LANES)
    for i in range(start, whole, 8 * LANES):
        a = a + load(x, i, LANES)
        b = b + load(x, i + LANES, LANES)
        c = c + load(x, i + 2 * LANES, LANES)
        d = d + load(x, i + 3 * LANES, LANES)
        e = e + load(x, i + 4 * LANES, LANES)
        f = f + load(x, i + 5 * LANES, LANES)
        g = g + load(x, i + 6 * LANES, LANES)
        h = h + load(x, i + 7 * LANES, LANES)
    for i in range(whole, stop, LANES):
        a = a + load(x, i, LANES)
    return fold(((a + b) + (c + d)) + ((e + f) + (g + h)))


@njit
def _copy(x, dy, y, start, stop):  # noqa: ARG001
    one = splat(x.dtype.type(1))  # without an operation, LLVM would call memcpy, which chooses its stores itself
    for i in range(start, stop, LANES):
        store(y, i, LANES, load(x, i, LANES) * one)
    return 0


@njit
def _copy_streamed(x, dy, y, start, stop):  # noqa: ARG001
    for i in range(start, stop, LANES):
        stream(y, i, load(x, i, LANES))
    fence()
    return 0


@njit
def _add(x, dy, y, start, stop):
    for i in range(start, stop, LANES):
        store(y, i, LANES, load(x, i, LANES) + load(dy, i, LANES))
    return 0


@njit
def _add_streamed(x, dy, y, start, stop):
    for i in range(start, stop, LANES):
        stream(y, i, load(x, i, LANES) + load(dy, i, LANES))
    fence()
    return 0


@cache
def _compiled(sweep: Callable) -> tuple[Callable, Callable]:
    """A sweep by one thread, and by all: each a block of whole vectors, so that every block starts a cache line."""

    @njit
    def alone(x, dy, y, totals):
        totals[0] = sweep(x, dy, y, 0, x.size)

    @njit(parallel=True)
    def together(x, dy, y, totals):
        blocks, vectors = len(totals), x.size // LANES
        for number in prange(blocks):
            block = np.int64(number)  # the index is unsigned, which would make floats of the bounds
            totals[block] = sweep(x, dy, y, vectors * block // blocks * LANES, vectors * (block + 1) // blocks * LANES)

    return alone, together


class Rates(Library):
    """Each rate as an entry: by one thread or by all, whichever is faster."""

    version = numba.__version__

    def __init__(self, problem: Problem) -> None:
        numba.set_num_threads(THREADS)
        self.x, self.dy, self.y = (_aligned(array) for array in (problem.x, problem.dy, problem.x))
        self.totals = np.zeros(THREADS, np.float32)

    def results(self, _: str, returned: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": self.x, "dy": self.dy, "returned": returned}

    def read(self) -> Callable:
        return self._faster(_read, self.totals)

    def copy(self) -> Callable:
        return self._faster(_copy, self.y)

    def copy_streamed(self) -> Callable:
        return self._faster(_copy_streamed, self.y)

    def add(self) -> Callable:
        return self._faster(_add, self.y)

    def add_streamed(self) -> Callable:
        return self._faster(_add_streamed, self.y)

    def _faster(self, sweep: Callable, result: np.ndarray) -> Callable:
        def entry(compiled: Callable) -> Callable:
            def run() -> np.ndarray:
                compiled(self.x, self.dy, self.y, self.totals)
                return result

            return run

        chosen = min(map(entry, _compiled(sweep)), key=lambda run: least_time(run, _TRIAL))
        self.y.fill(np.nan)  # what the trials left must not pass the check
        self.totals.fill(0)
        return chosen


def check(case: Case, rate: str, results: Mapping[str, np.ndarray]) -> None:
    """Raise AssertionError where a sweep did not do all of its work."""
    x, dy, returned = (results[name] for name in ("x", "dy", "returned"))
    if rate == "read":
        returned, right = returned.sum(), x.sum(dtype=np.float64)
    else:
        right = x + dy if rate.startswith("add") else x
    np.testing.assert_allclose(returned, right, rtol=1e-4, err_msg=f"{rate} of {case}")


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts a cache line, as the stores past the cache need it, and is a whole number of them."""
    line = 64 // array.itemsize
    size = array.size // line * line
    room = np.empty(size + line, array.dtype)
    start = -room.ctypes.data // array.itemsize % line
    room[start : start + size] = array.ravel()[:size]
    return room[start : start + size]
