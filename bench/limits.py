"""What the memory allows in each case: its rates, measured like a library, in arrays of the case's size.

The sweeps have as many threads as the libraries, and their arrays come from the same allocator. Where the data fits in
a cache, the rates are this cache's. A kernel that keeps data in an inner cache between two sweeps can then beat the
limit.
"""

from collections.abc import Callable, Mapping

import numba
import numpy as np

from bench.cases import DTYPES, Case, Problem
from bench.library import Library
from bench.machine import THREADS
from bnnumba.command import memory
from bnnumba.command.memory import RATES

__all__ = ["RATES", "Rates", "check", "gigabytes_per_second", "least_seconds"]


def least_seconds(case: Case, pass_name: str, rates: Mapping[str, float]) -> float:
    """The shortest possible time of a pass at the given rates, in GB/s."""
    return memory.least_seconds(case.nbytes, case.channels_last, pass_name, rates)


def gigabytes_per_second(case: Case, rate: str, seconds: float) -> float:
    return memory.gigabytes_per_second(case.nbytes, rate, seconds)


class Rates(Library):
    """Each rate as an entry. One thread sweeps, or all do, whichever is faster."""

    version = numba.__version__
    dtypes = DTYPES

    def __init__(self, problem: Problem) -> None:
        numba.set_num_threads(THREADS)
        self.arrays = memory.Arrays(problem.x, problem.dy, THREADS)

    def results(self, _: str, returned: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": self.arrays.x, "dy": self.arrays.dy, "returned": returned}

    def read(self) -> Callable:
        return self.arrays.sweep("read")

    def copy(self) -> Callable:
        return self.arrays.sweep("copy")

    def copy_streamed(self) -> Callable:
        return self.arrays.sweep("copy_streamed")

    def add(self) -> Callable:
        return self.arrays.sweep("add")

    def add_streamed(self) -> Callable:
        return self.arrays.sweep("add_streamed")


def check(case: Case, rate: str, results: Mapping[str, np.ndarray]) -> None:
    """Raise AssertionError where a sweep did not do all of its work."""
    x, dy, returned = (results[name] for name in ("x", "dy", "returned"))
    if rate == "read":
        returned, right = returned.sum(), x.sum(dtype=np.float64)
    else:
        right = x + dy if rate.startswith("add") else x
    np.testing.assert_allclose(returned, right, rtol=1e-4, err_msg=f"{rate} of {case}")
