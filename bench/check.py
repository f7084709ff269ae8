"""Every entry is checked before it is timed, against float64 written as whole arrays."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from bench.cases import EPSILON, PASSES, Case, make_problem


def tolerance(case: Case) -> float:
    """Of the largest value: what float32 sums in a row need, as NumPy makes them.

    A wrong epsilon is more, and in the small cases a wrong ddof; among a million values per feature neither is.
    """
    return 1e-4 + 1e-9 * case.count


@lru_cache(maxsize=2)
def expected(case: Case, frozen: bool, relu: bool) -> dict[str, np.ndarray]:
    """All results, by the formulas of `bnnumba.functional`; rounded to float32 in the end, to save memory."""
    problem = make_problem(case)
    x, dy = problem.x.astype(np.float64), problem.dy.astype(np.float64)
    gamma, beta, mean, var = (np.expand_dims(f.astype(np.float64), case.reduced) for f in problem[3:])
    if not frozen:
        mean, var = x.mean(case.reduced, keepdims=True), x.var(case.reduced, keepdims=True)
    rstd = 1 / np.sqrt(var + EPSILON)
    x_hat = (x - mean) * rstd
    y = gamma * x_hat + beta
    if relu:
        y = np.maximum(y + problem.residual, 0)
        dy[y == 0] = 0
    dbeta = dy.sum(case.reduced, keepdims=True)
    dgamma = (dy * x_hat).sum(case.reduced, keepdims=True)
    dx = gamma * rstd * (dy if frozen else dy - dbeta / case.count - x_hat * dgamma / case.count)
    features = {"mean": mean, "var": var, "dgamma": dgamma, "dbeta": dbeta}
    results = {name: values.reshape(case.feature_shape) for name, values in features.items()}
    data = {"y": y, "dx": dx, "dresidual": dy}
    return results | {name: values.astype(np.float32) for name, values in data.items()}


def check(case: Case, pass_name: str, results: Mapping[str, np.ndarray]) -> None:
    """Raise AssertionError where a pass's results are missing, or are not what the formulas say."""
    right = expected(case, PASSES[pass_name].frozen, PASSES[pass_name].relu)
    for name in PASSES[pass_name].outputs:
        difference = results[name].reshape(right[name].shape) - right[name]
        error = np.abs(difference, out=difference).max() / np.abs(right[name]).max()
        right_enough = error <= tolerance(case)  # False for NaN
        assert right_enough, f"{name} of {pass_name} is off by {error:.2g} of its largest value"
