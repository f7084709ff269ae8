"""Coefficients of features, from float64, in the data's dtype: a row of each kind, an element for each feature.

Rows: x_power, mean_hi, power, scale, offset, a, b, dy_power, factor. LANES features are computed at once. What has
`power` in its name is a power of two.
"""

from typing import Any, NamedTuple

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import (
    LANES,
    any_lane,
    binade,
    choose,
    double,
    equal,
    is_double,
    less,
    load,
    narrow,
    splat,
    sqrt,
    store,
)

# Where |gamma| is less, and var + epsilon is no less, |gamma|*rstd is less than 2**255, the most that power and scale
# hold of float32. No variance of float32 data but 0 is less. See `bnnumba.extreme`.
ORDINARY_GAMMA, ORDINARY_SPREAD = 2.0**90, 2.0**-330


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
def within(least: float, value: Vector, most: float) -> Vector:
    """Return the power of two in |value|'s binade, but none beyond these two."""
    power, low, high = binade(value), splat(least), splat(most)
    power = choose(less(power, low), low, power)
    return choose(less(high, power), high, power)


@loop
def x_power(var: Vector, rstd: Vector, epsilon: float, like: Array) -> Vector:
    """Return a power of two near x_hat/(x - mean): data near 1e37 or 1e-40 is scaled by it, exactly.

    Where epsilon is far beyond var, it is near 1/sqrt(var), so that no product is too small for the data's dtype.
    """
    hidden = less(var * splat(2.0**60), splat(epsilon))
    if any_lane(hidden):
        std = sqrt(var)
        rstd = choose(hidden, choose(equal(std, splat(0.0)), rstd, splat(1.0) / std), rstd)
    if is_double(like):
        return within(2.0**-1022, rstd, 2.0**1022)
    return within(2.0**-126, rstd, 2.0**126)


@loop
def sum_power(var: Vector, rstd: Vector, epsilon: float, like: Array) -> Vector:
    """Return such a power for sums: 1 in place of less, as far as no product with dy becomes too large by that.

    Differences that are below the normal numbers keep their digits then.
    """
    power, one = x_power(var, rstd, epsilon, like), splat(1.0)
    raised = power * splat(2.0**400 if is_double(like) else 2.0**60)
    return choose(less(power, one), choose(less(raised, one), raised, one), power)


@loop
def out_power(gamma: Vector, rstd: Vector, like: Array) -> Vector:
    """Return a power of two for data*power*(gamma*(rstd/power)): no part is beyond the dtype unless the result is.

    It is 1 for ordinary gamma*rstd below 1.
    """
    small, large, lift, least = 2.0**-100, 2.0**127, 2.0**64, 2.0**-126
    if is_double(like):
        small, large, lift, least = 2.0**-900, 2.0**1023, 2.0**600, 2.0**-1022
    power, one, zero = within(0.0, gamma * rstd, large), splat(1.0), splat(0.0)
    low = binade(gamma * splat(lift)) * binade(rstd)  # which is not 0 where gamma*rstd is too small for a number
    nothing = choose(equal(rstd, zero), zero, low)  # there is no y but beta, and no dx
    low = choose(equal(nothing, zero), one, choose(less(low, splat(least)), splat(least), low))
    return choose(less(power, one), choose(less(power, splat(small)), low, one), power)


@loop
def put(out: Array, row: int, f: int, n: int, values: Vector) -> None:
    """Store n features' coefficients in a row."""
    store(out, row * out.shape[1] + f, n, narrow(values, out))


@helper
def put_centres(beta: Array | None, statistics: Statistics, features: int, out: Array) -> None:
    """Fill x_power, of sums, and mean_hi; and the rows of `put_forward`, where there is a beta to make y again by."""
    mean, var, epsilon = statistics.mean, statistics.var, statistics.epsilon
    for f in range(0, features, LANES):
        n = min(LANES, features - f)
        variance = load(var, f, n)
        put(out, 0, f, n, sum_power(variance, reciprocal_std(variance, epsilon), epsilon, out))
        put(out, 1, f, n, load(mean, f, n))
    put_again(beta, statistics, features, out)


@helper
def put_again(beta: Array | None, statistics: Statistics, features: int, out: Array) -> None:
    """Do as `put_forward`, where there is a beta to make y again by."""
    if beta is not None:
        put_forward(statistics, features, out)


@helper
def put_forward(statistics: Statistics, features: int, out: Array) -> None:
    """Fill mean_hi, power, scale and offset, for y = (x - mean_hi)*power*scale + offset."""
    for f in range(0, features, LANES):
        n = min(LANES, features - f)
        rstd = reciprocal_std(load(statistics.var, f, n), statistics.epsilon)
        gamma, mean = load(statistics.gamma, f, n), load(statistics.mean, f, n)
        power, mean_hi = out_power(gamma, rstd, out), narrow(mean, out)
        store(out, out.shape[1] + f, n, mean_hi)
        put(out, 2, f, n, power)
        put(out, 3, f, n, held(gamma * (rstd / power), gamma, out))
        put(out, 4, f, n, load(statistics.beta, f, n) - (mean - double(mean_hi)) * rstd * gamma)


@helper
def put_frozen(statistics: Statistics, features: int, out: Array) -> None:
    """Fill the rows of `put_forward` for dy in the place of x: dx = (dy - 0)*power*scale + 0."""
    for f in range(0, features, LANES):
        n, zero = min(LANES, features - f), splat(0.0)
        rstd, gamma = reciprocal_std(load(statistics.var, f, n), statistics.epsilon), load(statistics.gamma, f, n)
        power = out_power(gamma, rstd, out)
        put(out, 1, f, n, zero)
        put(out, 2, f, n, power)
        put(out, 3, f, n, held(gamma * (rstd / power), gamma, out))
        put(out, 4, f, n, zero)


@loop
def held(value: Vector, gamma: Vector, like: Array) -> Vector:
    """Return a value; of a finite gamma, no more than the data's dtype has: times 0, it is 0."""
    most, zero = splat(1.7976931348623157e308 if is_double(like) else 3.4028234663852886e38), splat(0.0)
    within_dtype = choose(less(most, value), most, choose(less(value, zero - most), zero - most, value))
    return choose(equal(gamma - gamma, zero), within_dtype, value)
