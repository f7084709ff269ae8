"""Gradients whose dy, or products with it, are too large or too small for the data's dtype: seldom, and then exactly.

Sums of float32 data are made of float32 products (see `formulas`), and dx of float32 sums. Where the results say that
these may have been infinite or subnormal, a feature's sums are made again, of numbers that are scaled by powers of two
to near 1; and dy is scaled so for dx.
"""

import math
from typing import Any

import numpy as np

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Coefficients, Vector
from bnnumba.kernels.by_column import of_columns
from bnnumba.kernels.by_run import of_feature
from bnnumba.kernels.coefficients import Gradients, Statistics, held, reciprocal_std, within
from bnnumba.kernels.formulas import Backward, difference_to, dresidual
from bnnumba.kernels.shares import Sums
from bnnumba.kernels.simd import (
    LANES,
    binade,
    choose,
    double,
    equal,
    first,
    is_double,
    join,
    less,
    load,
    splat,
    store,
)
from bnnumba.kernels.sums import add_term, fold_sum, get_sums, new_sums

# Sums of this size for each value are made of ordinary numbers. So are products with factors of this size.
ORDINARY_32 = 2.0**100
ORDINARY_64 = 2.0**900


@helper
def resum(
    sums: Sums, statistics: Statistics, f: int, n: int, product: Vector, gradients: Gradients, of_x: bool
) -> None:
    """Make the sums of some of the features f..f+n again; product: the sum that dgamma is made of.

    Where that is 0, no number was too small for it if all of dresidual or of x_hat are 0; x_hat is, where var is 0 and
    of x.
    """
    x, grid = sums.inputs.x, sums.grid
    count, repeats, one, zero = x.shape[0] * x.shape[2], grid.inner if grid.by_column else 1, splat(1.0), splat(0.0)
    dbeta, var = load(gradients.dbeta, f, n), load(statistics.var, f, n)
    unless_constant = choose(equal(var, zero), splat(0.0 if of_x else 1.0), one)
    doubted = choose(equal(product, zero), unless_constant, choose(small(product, count, x), one, zero))
    marks = _lanes(choose(large(product, x), one, choose(large(dbeta, x), one, doubted)))
    silent = _lanes(choose(equal(product, zero), choose(equal(dbeta, zero), unless_constant, zero), zero))
    if _most(silent) > 0.0:
        stirred = _stirred(sums, f, n)
        for k in range(n):
            if silent[k] > 0.0:
                marks[k] = stirred[k]
    for k in range(n):
        if marks[k] > 0.0:
            own = of_feature(sums.inputs, sums.centres, (f + k) * repeats)
            _sum_again(sums.inputs, f + k, own, statistics, gradients)


@helper
def _stirred(sums: Sums, f: int, n: int) -> Array:
    """Return 1, or 0 where dresidual is 0 everywhere, for each of the features f..f+n."""
    inputs, found, zero = sums.inputs, np.zeros(LANES), splat(0.0)
    outer, feature, inner = inputs.x.shape
    if not sums.grid.by_column:
        for k in range(n):
            most, _ = _largest(inputs, f + k, of_feature(inputs, sums.centres, f + k), 0.0)
            found[k] = 0.0 if most == 0.0 else 1.0
        return found
    for c in range(f * inner, (f + n) * inner, LANES):
        m = min(LANES, (f + n) * inner - c)
        own, other = of_columns(inputs, sums.centres, c, m), zero
        for o in range(outer):
            dy = double(dresidual(inputs.activation, inputs, o * feature * inner + c, m, 0, own))
            other = choose(equal(dy, zero), other, splat(1.0))
        lanes = _lanes(other)
        for j in range(m):
            found[(c + j) // inner - f] += lanes[j]
    return found


@helper
def scale_dy(
    inputs: Backward, statistics: Statistics, gradients: Gradients, f: int, n: int, out: Array
) -> tuple[Vector, Vector]:
    """Return a power of two, and gamma*rstd divided by it, for each of the features f..f+n.

    It is 1, or brings the largest |dresidual| near 1. out has what `put_centres` fills.
    """
    x, one, zero = inputs.x, splat(1.0), splat(0.0)
    count, dgamma, dbeta = x.shape[0] * x.shape[2], load(gradients.dgamma, f, n), load(gradients.dbeta, f, n)
    size, nothing = binade(dgamma) + binade(dbeta), choose(equal(dgamma, zero), dbeta, dgamma)
    by_size = choose(equal(nothing, zero), zero, choose(small(size, count, x), one, zero))
    by_size = choose(large(size, x), one, by_size)
    gamma, rstd = load(statistics.gamma, f, n), reciprocal_std(load(statistics.var, f, n), statistics.epsilon)
    factor = gamma * rstd
    by_factor = choose(small(factor, 1, x), one, choose(large(factor, x), one, zero))
    by_factor = choose(equal(gamma, zero), zero, by_factor)
    marks, powers, factors = _lanes(by_size + by_factor), _lanes(gamma), _lanes(rstd)
    for k in range(n):
        (gamma_part, exponent), (rstd_part, more) = math.frexp(powers[k]), math.frexp(factors[k])
        exponent, power = exponent + more, 0
        if marks[k] > 0.0:
            most, _ = _largest(inputs, f + k, of_feature(inputs, out, f + k), 0.0)
            power = _dy_exponent(most, exponent, x)
        powers[k], factors[k] = math.ldexp(1.0, power), math.ldexp(gamma_part * rstd_part, exponent - power)
    return load(powers, 0, LANES), held(load(factors, 0, LANES), gamma, out)


@loop
def small(value: Vector, count: int, x: Array) -> Any:
    """Tell where a sum of so many values may have been made of numbers too small for the data's dtype."""
    return less(binade(value), splat(count / _ordinary(x)))


@loop
def large(value: Vector, x: Array) -> Any:
    """Tell where a value is, or may have come of what is, too large for the data's dtype."""
    return less(splat(_ordinary(x)), binade(value))


@helper
def _dy_exponent(most: float, factor: int, x: Array) -> int:
    """Return the exponent of the power of two that brings `most` near 1; factor: the exponent of gamma*rstd.

    Where dx may be beyond the dtype, the power is as far above as is ordinary, so that the quotient of the factor and
    the power, which is held to what the dtype has, seldom needs that; nor is that quotient too small.
    """
    if not 0.0 < most < np.inf:
        return 0
    ordinary, limit = (900, 1000) if is_double(x) else (100, 126)
    _, size = math.frexp(most)
    power = 1 - size
    if factor > power + ordinary:
        power += ordinary
    return min(limit, max(min(power, factor + ordinary), -limit))


@loop
def _ordinary(x: Array) -> float:
    return ORDINARY_64 if is_double(x) else ORDINARY_32


@helper
def _lanes(vector: Vector) -> Array:
    lanes = np.empty(LANES)
    store(lanes, 0, LANES, vector)
    return lanes


@helper
def _most(lanes: Array) -> float:
    most = 0.0
    for lane in lanes:
        most = max(most, lane)
    return most


@helper
def _largest(inputs: Backward, f: int, own: Coefficients, mean: float) -> tuple[float, float]:
    """Return the largest |dresidual| and |x - mean| of a feature."""
    outer, feature, inner = inputs.x.shape
    most_dy, most_x = splat(0.0), splat(0.0)
    for o in range(outer):
        for c in range(0, inner, LANES):
            i, n = (o * feature + f) * inner + c, min(LANES, inner - c)
            most_dy = _larger(most_dy, double(dresidual(inputs.activation, inputs, i, n, 0, own)))
            difference, _ = difference_to(inputs.x, i, n, splat(mean))
            most_x = _larger(most_x, join(difference, splat(0.0), n))
    return _most(_lanes(most_dy)), _most(_lanes(most_x))


@loop
def _larger(most: Vector, value: Vector) -> Vector:
    size = choose(less(value, splat(0.0)), splat(0.0) - value, value)
    return choose(less(most, size), size, most)


@helper
def _sum_again(inputs: Backward, f: int, own: Coefficients, statistics: Statistics, gradients: Gradients) -> None:
    """Fill a feature's dgamma and dbeta, where all its numbers are finite."""
    x, mean, zero = inputs.x, statistics.mean[f], splat(0.0)
    outer, feature, inner = x.shape
    most_dy, most_x = _largest(inputs, f, own, mean)
    if not most_dy < np.inf or not most_x < np.inf or mean - mean != 0.0:
        return
    dy_power = splat(1.0) / within(2.0**-1000, splat(most_dy), 2.0**1000)
    x_power = splat(1.0) / within(2.0**-1000, splat(most_x), 2.0**1000)
    sums = new_sums(LANES, x)
    totals = get_sums(sums, 0, LANES, x)
    for o in range(outer):
        for c in range(0, inner, LANES):
            i, n = (o * feature + f) * inner + c, min(LANES, inner - c)
            dy = double(dresidual(inputs.activation, inputs, i, n, 0, own)) * dy_power
            difference, low = difference_to(x, i, n, splat(mean))
            totals = add_term((dy, zero, join(difference, zero, n) * x_power, join(low, zero, n) * x_power), totals, x)
    sum_dy, less_dy = fold_sum(totals[0], totals[2], x)
    product, less_product = fold_sum(totals[1], totals[3], x)
    rstd = first(reciprocal_std(splat(statistics.var[f]), statistics.epsilon) / x_power)
    gradients.dbeta[f] = (sum_dy - less_dy) / first(dy_power)
    gradients.dgamma[f] = (product - less_product) * rstd / first(dy_power)
