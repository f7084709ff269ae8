"""Second derivatives: the gradients of what `batch_norm_backward` returns. All arithmetic on data is `functional`'s."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bnnumba import axes, checks
from bnnumba._types import Array
from bnnumba.functional import Gradients, batch_norm_backward, normalize


class SecondGradients(NamedTuple):
    """ddy and dx (x's shape and dtype), dgamma (feature shape, float64)."""

    ddy: Array
    dx: Array
    dgamma: Array


def batch_norm_double_backward(
    ddx: Array | None,
    ddgamma: Array | None,
    ddbeta: Array | None,
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    epsilon: float = 1e-3,
    frozen: bool = False,
) -> SecondGradients:
    """Differentiate <ddx, dx> + <ddgamma, dgamma> + <ddbeta, dbeta> with respect to dy, x and gamma.

        dx, dgamma and dbeta are those of `batch_norm_backward`; <a, b> = sum(a*b)
        with B(v, g) = g*rstd * (v - mean(v) - x_hat*mean(v*x_hat))    (frozen: g*rstd*v)

        ddy    = B(ddx, gamma) + ddgamma*x_hat + ddbeta
        dgamma = rstd*k    k = <ddx, dy> - count*(mean(ddx)*mean(dy) + mean(ddx*x_hat)*mean(dy*x_hat))
        dx     = B(dy, ddgamma - gamma*rstd*mean(ddx*x_hat)) - B(ddx, gamma*rstd*mean(dy*x_hat))
                 - gamma*rstd**2 * k/count * x_hat
        frozen: dgamma = rstd*<ddx, dy>    dx = B(dy, ddgamma)

    Parameters
    ----------
    ddx : array of x's shape and dtype, or None for 0
    ddgamma, ddbeta : float arrays of the feature shape, or None for 0
    dy, x, mean, var, gamma, feature_axis, epsilon, frozen
        As given to `batch_norm_backward`.

    Returns
    -------
    SecondGradients
        ddy and dx, of x's shape, dtype and memory order, and dgamma, float64, of the feature shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    x = checks.data("x", x)
    dy = checks.like("dy", dy, x)
    if x.itemsize == 2:  # half precision is rounded once, at the end
        by_x = None if ddx is None else checks.like("ddx", ddx, x).astype(np.float32)
        second = batch_norm_double_backward(
            by_x,
            ddgamma,
            ddbeta,
            dy.astype(np.float32),
            x.astype(np.float32),
            mean,
            var,
            gamma,
            feature_axis,
            epsilon=epsilon,
            frozen=frozen,
        )
        return second._replace(ddy=second.ddy.astype(x.dtype), dx=second.dx.astype(x.dtype))
    view = axes.canonical_view(x, feature_axis)
    shape, count = view.feature_shape, max(view.reduced, 1)
    mean, var = (_features(name, value, shape) for name, value in (("mean", mean), ("var", var)))
    scale = np.ones(shape) if gamma is None else _features("gamma", gamma, shape)
    by_gamma = np.zeros(shape) if ddgamma is None else _features("ddgamma", ddgamma, shape)
    by_beta = np.zeros(shape) if ddbeta is None else _features("ddbeta", ddbeta, shape)
    by_x = None if ddx is None else checks.like("ddx", ddx, x)
    epsilon, frozen = checks.epsilon(epsilon), checks.flag("frozen", frozen)
    rstd = reciprocal_std(var, epsilon)

    def apply(v: Array, g: Array) -> Array:
        dx = batch_norm_backward(v, x, mean, var, g, feature_axis, epsilon=epsilon, frozen=frozen).dx
        assert dx is not None
        return dx

    def sums(v: Array) -> Gradients[Any, Any]:
        return batch_norm_backward(v, x, mean, var, None, feature_axis, epsilon=epsilon, needs_dx=False)

    ddy = normalize(x, mean, var, by_gamma, by_beta, feature_axis, epsilon=epsilon)
    if by_x is None:
        return SecondGradients(ddy, apply(dy, by_gamma), np.zeros(shape))
    ddy += apply(by_x, scale)
    zeros, ones = np.zeros(shape), np.ones(shape)
    product = batch_norm_backward(by_x, dy, zeros, ones, None, feature_axis, epsilon=0.0, needs_dx=False).dgamma
    if frozen:
        return SecondGradients(ddy, apply(dy, by_gamma), rstd * product)
    of_ddx, of_dy = sums(by_x), sums(dy)
    k = product - (of_ddx.dbeta * of_dy.dbeta + of_ddx.dgamma * of_dy.dgamma) / count
    dx = normalize(x, mean, var, -scale * rstd**2 * k / count, None, feature_axis, epsilon=epsilon)
    dx += apply(dy, by_gamma - scale * rstd * of_ddx.dgamma / count)
    dx -= apply(by_x, scale * rstd * of_dy.dgamma / count)
    return SecondGradients(ddy, dx, rstd * k)


def _features(name: str, value: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(checks.features(name, value, shape), np.float64)


def reciprocal_std(var: Array, epsilon: float) -> Array:
    """1/sqrt(var + epsilon), or 0 where that is 1/0."""
    spread = np.add(var, epsilon, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # of a negative or NaN variance, as in the kernels
        return np.divide(1.0, np.sqrt(spread), out=np.zeros(spread.shape), where=spread != 0)
