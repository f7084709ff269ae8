"""Every entry is checked before it is timed."""

from collections.abc import Mapping

import numpy as np

from bench.cases import Case
from bench.passes import PASSES


def tolerance(case: Case) -> float:
    """The error that is allowed, relative to the largest value: what NumPy's plain float32 sums need.

    A wrong epsilon exceeds it. So does a wrong ddof in the small cases; among a million values per feature it does not.
    """
    return 1e-4 + 1e-9 * case.count


def check(case: Case, pass_name: str, results: Mapping[str, np.ndarray], eps: float = 0) -> None:
    """Raise AssertionError where a result of a pass is wrong, and KeyError where one is missing.

    eps: the spacing of the data's dtype, where that is coarser than float32; inputs and results are rounded to it.
    """
    done = PASSES[pass_name]
    expected = done.expected(case)
    for name in done.outputs:
        difference = results[name].reshape(expected[name].shape) - expected[name]
        error = np.abs(difference, out=difference).max() / np.abs(expected[name]).max()
        close_enough = error <= tolerance(case) + 4 * eps  # False for NaN
        assert close_enough, f"{name} of {pass_name} is off by {error:.2g} of its largest value"
