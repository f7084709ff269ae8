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


@lru_cache(maxsize=1)
def second_derivatives(case: Case) -> dict[str, np.ndarray]:
    """All results of the gradients' gradients, by the formulas of `bnnumba.second`, without ddgamma and ddbeta."""
    problem, axes = make_problem(case), case.reduced
    x, dy, ddx = (data.astype(np.float64) for data in (problem.x, problem.dy, problem.ddx))
    gamma = np.expand_dims(problem.gamma.astype(np.float64), axes)
    rstd = 1 / np.sqrt(x.var(axes, keepdims=True) + EPSILON)
    x_hat = (x - x.mean(axes, keepdims=True)) * rstd

    def mean(values: np.ndarray) -> np.ndarray:
        return values.mean(axes, keepdims=True)

    def centred(v: np.ndarray) -> np.ndarray:
        return rstd * (v - mean(v) - x_hat * mean(v * x_hat))

    k = mean(ddx * dy) - mean(ddx) * mean(dy) - mean(ddx * x_hat) * mean(dy * x_hat)
    dx = centred(dy) * mean(ddx * x_hat) + centred(ddx) * mean(dy * x_hat) + rstd * k * x_hat
    results = {"ddy": gamma * centred(ddx), "second dx": -gamma * rstd * dx, "second dgamma": case.count * rstd * k}
    return {name: values.astype(np.float32) for name, values in results.items()}


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


def check(case: Case, pass_name: str, results: Mapping[str, np.ndarray], eps: float = 0) -> None:
    """Raise AssertionError where a pass's results are missing, or are not what the formulas say.

    eps: of data that is not float32, which rounds what comes and what goes.
    """
    done = PASSES[pass_name]
    right = second_derivatives(case) if done.second else expected(case, done.frozen, done.relu)
    for name in done.outputs:
        difference = results[name].reshape(right[name].shape) - right[name]
        error = np.abs(difference, out=difference).max() / np.abs(right[name]).max()
        right_enough = error <= tolerance(case) + 4 * eps  # False for NaN
        assert right_enough, f"{name} of {pass_name} is off by {error:.2g} of its largest value"
