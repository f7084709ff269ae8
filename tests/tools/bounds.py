"""The promise of accuracy, one function per result: the greatest |result - exact| allowed, element by element.

    |mean - exact|   <= eps/8 * std + 4*e64*|mean|                    (float64 data: 8*e64*(std + |mean|))
    |var - exact|    <= 2*eps * var + (8*e64*|mean|)**2
    |y - exact|      <= 3*eps * (|gamma|*max(|x_hat|, 1) + |beta|) + 4*e64*|mean|*rstd*|gamma|
    |dbeta - exact|  <= 4*eps * sum|dy|
    |dgamma - exact| <= 8*eps * sum|dy*x_hat| + what 4*e64*|mean|*rstd moves x_hat
    |dx - exact|     <= 12*eps * |gamma|*rstd * (|dy| + mean|dy| + |x_hat|*mean|dy*x_hat|) + the same

Below the normal numbers no relative bound can hold: a result may be one smallest subnormal number off. Where the exact
value is as near to the largest number, or to its negative, as its bound, or passes it, a result may be infinite there.
"""

import numpy as np

from tests.tools import oracle

E64 = 2.0**-52
EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): E64}
SUBNORMAL = {dtype: np.finfo(dtype).smallest_subnormal for dtype in EPS}


def eps(dtype):
    return EPS[np.dtype(dtype).newbyteorder("=")]


def subnormal(dtype):
    return SUBNORMAL[np.dtype(dtype).newbyteorder("=")]


def mean(dtype, exact_mean, exact_var):
    std = np.sqrt(exact_var)
    if eps(dtype) == E64:
        return 8 * E64 * (std + abs(exact_mean)) + subnormal(np.float64)
    return eps(dtype) / 8 * std + 4 * E64 * abs(exact_mean)


def var(dtype, exact_mean, exact_var):
    return 2 * eps(dtype) * exact_var + (8 * E64 * abs(exact_mean)) ** 2 + subnormal(np.float64)


def _moved(exact):
    """How far x_hat moves with the mean's allowed error."""
    return 4 * E64 * abs(exact.mean) * exact.rstd


def y(dtype, exact):
    size = abs(exact.gamma) * np.maximum(abs(exact.x_hat), 1) + abs(exact.beta)
    return 3 * eps(dtype) * size + _moved(exact) * abs(exact.gamma) + subnormal(dtype)


def y_with_residual(dtype, exact, residual):
    """The residual's addition is one more rounding, of no more than |gamma*x_hat| + |beta| + |residual|.

    An activation makes no error larger.
    """
    size = abs(exact.gamma * exact.x_hat) + abs(exact.beta) + abs(np.asarray(residual, oracle.WIDE))
    return y(dtype, exact) + eps(dtype) * size


def _total(array, exact):
    """The sum over the reduced axes: those along which the per-feature arrays have size 1."""
    reduced = tuple(a for a, size in enumerate(exact.dbeta.shape) if size == 1)
    return abs(array).sum(axis=reduced, keepdims=True)


def dbeta(dtype, exact):
    return 4 * eps(dtype) * _total(exact.dy, exact) + subnormal(np.float64)


def dgamma(dtype, exact):
    forward = exact.forward
    through_x_hat = _moved(forward) * _total(exact.dy, exact)
    return 8 * eps(dtype) * _total(exact.dy * forward.x_hat, exact) + through_x_hat + subnormal(np.float64)


def dx(dtype, exact, frozen=False, share=None):
    """With x_hat moved by m, its product with dgamma/count moves by m*(|x_hat|*mean|dy| + mean|dy*x_hat| + m*mean|dy|).

    Frozen, the terms of the moments are not in dx, nor in what it may be off. share: with weights, w/sum(w) of each
    position, where it is 1/count without.
    """
    forward, dy = exact.forward, abs(exact.dy)
    n = max(exact.dy.size // max(exact.dbeta.size, 1), 1)
    scale = abs(forward.gamma) * forward.rstd
    if frozen:
        return 12 * eps(dtype) * scale * dy + subnormal(dtype)
    share = 1 / np.longdouble(n) if share is None else share
    mean_dy, mean_product = _total(dy, exact) * share, _total(dy * forward.x_hat, exact) * share
    size = dy + mean_dy + abs(forward.x_hat) * mean_product
    m = _moved(forward)
    through_x_hat = m * (abs(forward.x_hat) * mean_dy + mean_product + m * mean_dy)
    return scale * (12 * eps(dtype) * size + through_x_hat) + subnormal(dtype)


def check(name, result, exact, allowed):
    """Assert that a result is as near as is allowed; NaN is not."""
    result = np.asarray(result)
    exact = np.asarray(exact).reshape(result.shape)
    allowed = np.broadcast_to(allowed, allowed.shape).reshape(result.shape)
    error = abs(result.astype(oracle.WIDE) - exact)
    towards_result = np.copysign(1, result) * exact
    too_large = np.isinf(result) & (towards_result + allowed >= np.finfo(result.dtype).max)
    good = (error <= allowed) | too_large
    if not good.all():
        worst = np.unravel_index(np.argmax(np.where(good, 0, np.where(error > 0, error / allowed, np.inf))), good.shape)
        where = f"{name}{list(map(int, worst))} = {result[worst]!r}, exact {exact[worst]!r}"
        raise AssertionError(f"{where}: {float(error[worst] / allowed[worst]):.3g} times the bound {allowed[worst]!r}")


def check_moments(dtype, moments, exact):
    check("mean", moments.mean, exact.mean, mean(dtype, exact.mean, exact.var))
    check("var", moments.var, exact.var, var(dtype, exact.mean, exact.var))


def check_y(dtype, result, exact):
    check("y", result, exact.y, y(dtype, exact))


def check_fused_y(dtype, result, exact, activation, residual):
    """exact: the Forward of the normalization alone."""
    allowed = y(dtype, exact) if residual is None else y_with_residual(dtype, exact, residual)
    check("y", result, oracle.act(exact, activation, residual).y, allowed)


def check_gradients(dtype, gradients, exact, frozen=False, share=None):
    check("dbeta", gradients.dbeta, exact.dbeta, dbeta(dtype, exact))
    check("dgamma", gradients.dgamma, exact.dgamma, dgamma(dtype, exact))
    if gradients.dx is not None:
        check("dx", gradients.dx, exact.dx, dx(dtype, exact, frozen, share))
