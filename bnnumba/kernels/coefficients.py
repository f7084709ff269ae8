"""Coefficients of features, from float64, in the data's dtype: a row of each kind, an element for each feature.

Rows: mean_hi, power, scale, offset, a, b. LANES features are computed at once.
"""

from typing import Any, NamedTuple

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import LANES, binade, choose, double, equal, is_double, less, load, narrow, splat, sqrt, store


class Statistics(NamedTuple):
    """What a pass normalizes by: an element for each feature. What is not used is None."""

    mean: Any
    var: Array
    gamma: Any
    beta: Any
    epsilon: float


class Gradients(NamedTuple):
    """The sums of backward: an element for each feature."""

    dgamma: Array
    dbeta: Array


@loop
def reciprocal_std(var: Vector, epsilon: float) -> Vector:
    spread, zero = var + splat(epsilon), splat(0.0)
    return choose(equal(spread, zero), zero, splat(1.0) / sqrt(spread))


@loop
def power_of_two(value: Vector, like: Array) -> Vector:
    """Return the power of two in |value|'s binade, where the data's dtype and its reciprocal are normal numbers.

    Data is scaled by it, exactly, before a rounded coefficient meets it: gamma*rstd alone may be subnormal or infinite
    in float32, as for data near 1e37 or 1e-40.
    """
    least, most = (2.0**-1022, 2.0**1022) if is_double(like) else (2.0**-126, 2.0**126)
    power, low, high = binade(value), splat(least), splat(most)
    power = choose(less(power, low), low, power)
    return choose(less(high, power), high, power)


@loop
def _put(out: Array, row: int, f: int, n: int, values: Vector) -> None:
    store(out, row * out.shape[1] + f, n, narrow(values, out))


@helper
def put_centres(beta: Array | None, statistics: Statistics, first: int, last: int, out: Array) -> None:
    """Fill mean_hi and power; and scale and offset, where there is a beta to make y again by."""
    if beta is not None:
        put_forward(statistics, first, last, out)
        return
    mean, var = statistics.mean, statistics.var
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        _put(out, 0, f, n, load(mean, f, n))
        _put(out, 1, f, n, power_of_two(reciprocal_std(load(var, f, n), statistics.epsilon), out))


@helper
def put_forward(statistics: Statistics, first: int, last: int, out: Array) -> None:
    """Fill mean_hi, power, scale and offset, for y = (x - mean_hi)*power*scale + offset."""
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        rstd, _, mean_lo = _put_scale(statistics, f, n, out)
        _put(out, 3, f, n, _offset(statistics, rstd, mean_lo, f, n))


@helper
def put_backward(statistics: Statistics, gradients: Gradients, count: int, first: int, last: int, out: Array) -> None:
    """Fill mean_hi, power, scale, a and b, for dx = (dy + (a + b*(x - mean_hi)*power))*scale*power.

    And offset, where there is a beta to make y again by.
    """
    dgamma, dbeta = gradients
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        rstd, power, mean_lo = _put_scale(statistics, f, n, out)
        share = load(dgamma, f, n) / splat(float(count))
        _put(out, 4, f, n, mean_lo * rstd * share - load(dbeta, f, n) / splat(float(count)))
        _put(out, 5, f, n, splat(0.0) - (rstd / power) * share)
        _put_offset(statistics.beta, statistics, rstd, mean_lo, f, n, out)


@helper
def put_frozen(var: Array, gamma: Array, epsilon: float, first: int, last: int, out: Array) -> None:
    """Fill the rows of `put_forward` for dy in the place of x: dx = (dy - 0)*power*scale + 0."""
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        scale = load(gamma, f, n) * reciprocal_std(load(var, f, n), epsilon)
        power = power_of_two(scale, out)
        _put(out, 0, f, n, splat(0.0))
        _put(out, 1, f, n, power)
        _put(out, 2, f, n, scale / power)
        _put(out, 3, f, n, splat(0.0))


@loop
def _put_scale(statistics: Statistics, f: int, n: int, out: Array) -> tuple[Vector, Vector, Vector]:
    """Fill n features' mean_hi, power and scale; return rstd, power and mean_lo."""
    rstd = reciprocal_std(load(statistics.var, f, n), statistics.epsilon)
    power, mean = power_of_two(rstd, out), load(statistics.mean, f, n)
    mean_hi = narrow(mean, out)
    store(out, f, n, mean_hi)
    _put(out, 1, f, n, power)
    _put(out, 2, f, n, load(statistics.gamma, f, n) * (rstd / power))
    return rstd, power, mean - double(mean_hi)


@loop
def _put_offset(
    beta: Array | None, statistics: Statistics, rstd: Vector, mean_lo: Vector, f: int, n: int, out: Array
) -> None:
    if beta is not None:
        _put(out, 3, f, n, _offset(statistics, rstd, mean_lo, f, n))


@loop
def _offset(statistics: Statistics, rstd: Vector, mean_lo: Vector, f: int, n: int) -> Vector:
    return load(statistics.beta, f, n) - mean_lo * (load(statistics.gamma, f, n) * rstd)
