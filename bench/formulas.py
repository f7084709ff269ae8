"""What each pass must return: the formulas in float64, over whole arrays.

Every public function takes a case and returns results by name. They are rounded to float32 at the end to save memory.
"""

from functools import lru_cache

import numpy as np

from bench.cases import EPSILON, Case, make_problem


def training(case: Case) -> dict[str, np.ndarray]:
    """Normalization by the batch's own moments, and its gradients."""
    return _results(case)


def frozen(case: Case) -> dict[str, np.ndarray]:
    """Normalization by the moving statistics, and its gradients: the statistics are constants."""
    return _results(case, frozen=True)


def residual_relu(case: Case) -> dict[str, np.ndarray]:
    """Y = relu(training's y + residual), and its gradients."""
    return _results(case, relu=True)


@lru_cache(maxsize=1)
def second_order(case: Case) -> dict[str, np.ndarray]:
    """Gradients of <ddx, dx>, as in `bnnumba.second` where ddgamma and ddbeta are 0."""
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
def _results(case: Case, frozen: bool = False, relu: bool = False) -> dict[str, np.ndarray]:
    """The formulas of `bnnumba.functional`."""
    problem, axes = make_problem(case), case.reduced
    x, dy = problem.x.astype(np.float64), problem.dy.astype(np.float64)
    gamma, beta, mean, var = (np.expand_dims(values.astype(np.float64), axes) for values in problem.features)
    if not frozen:
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    rstd = 1 / np.sqrt(var + EPSILON)
    x_hat = (x - mean) * rstd
    y = gamma * x_hat + beta
    if relu:
        y = np.maximum(y + problem.residual, 0)
        dy[y == 0] = 0
    dbeta = dy.sum(axes, keepdims=True)
    dgamma = (dy * x_hat).sum(axes, keepdims=True)
    dx = gamma * rstd * (dy if frozen else dy - dbeta / case.count - x_hat * dgamma / case.count)
    per_feature = {"mean": mean, "var": var, "dgamma": dgamma, "dbeta": dbeta}
    data = {"y": y, "dx": dx, "dresidual": dy}
    return {name: values.reshape(case.feature_shape) for name, values in per_feature.items()} | {
        name: values.astype(np.float32) for name, values in data.items()
    }
