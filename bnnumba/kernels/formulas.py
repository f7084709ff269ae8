"""The equations, each written once: sums of vectors, and coefficients of features."""

import numpy as np
from numba import literal_unroll

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Sums, Terms, Vector
from bnnumba.kernels.simd import first, fma, fold, keep, load, turn, widen

FLOAT32 = np.dtype(np.float32)

# ---- sums: each pass adds up a and a*b


@inlined
def moment_terms(dy: Array, x: Array, i: int, n: int, shift: Vector) -> tuple[Vector, Vector]:
    """The pair (d, d) with d = x - shift: sums of d and d*d."""
    d = keep(widen(load(x, i, n)) - shift, n)
    return d, d


@inlined
def gradient_terms(dy: Array, x: Array, i: int, n: int, mean: Vector) -> tuple[Vector, Vector]:
    """The pair (dy, x - mean): sums of dy and dy*(x - mean)."""
    return widen(load(dy, i, n)), widen(load(x, i, n)) - mean


@inlined
def accumulate(total: Vector, excess: Vector, term: Vector, x: Array) -> tuple[Vector, Vector]:
    """Add a term to the sum total - excess, of vectors or of scalars.

    For float64 data it is a compensated sum (Kahan 1965), which no length makes worse. float32 data has 29 bits to
    spare in its float64 sums, and goes without.
    """
    if x.dtype == FLOAT32:
        return total + term, excess
    corrected = term - excess
    result = total + corrected
    return result, (result - total) - corrected


@inlined
def add_1(terms: Terms, dy: Array, x: Array, i: int, n: int, shift: Vector, sums: Sums) -> Sums:
    """Add one vector's a and a*b to their sums."""
    sum_a, sum_ab, excess_a, excess_ab = sums
    a, b = terms(dy, x, i, n, shift)
    sum_a, excess_a = accumulate(sum_a, excess_a, a, x)
    sum_ab, excess_ab = accumulate(sum_ab, excess_ab, a * b, x)
    return sum_a, sum_ab, excess_a, excess_ab


@inlined
def add_4(terms: Terms, dy: Array, x: Array, i: int, step: int, n: int, shift: Vector, sums: Sums) -> Sums:
    """Add a and a*b of 4 vectors that start `step` apart to their sums.

    They are first added to each other, which costs the fewest roundings and the shortest wait; but float64 data's a*b
    go one by one, because the roundings of a tree are too many where one element outweighs the others.
    """
    sum_a, sum_ab, excess_a, excess_ab = sums
    a0, b0 = terms(dy, x, i, n, shift)
    a1, b1 = terms(dy, x, i + step, n, shift)
    a2, b2 = terms(dy, x, i + 2 * step, n, shift)
    a3, b3 = terms(dy, x, i + 3 * step, n, shift)
    sum_a, excess_a = accumulate(sum_a, excess_a, (a0 + a1) + (a2 + a3), x)
    if x.dtype == FLOAT32:
        return sum_a, sum_ab + (fma(a0, b0, a1 * b1) + fma(a2, b2, a3 * b3)), excess_a, excess_ab
    for a, b in ((a0, b0), (a1, b1), (a2, b2), (a3, b3)):
        sum_ab, excess_ab = accumulate(sum_ab, excess_ab, a * b, x)
    return sum_a, sum_ab, excess_a, excess_ab


@inlined
def fold_sum(total: Vector, excess: Vector, x: Array) -> tuple[float, float]:
    """Add up the lanes of a sum that `accumulate` made; for float64 data, no rounding is lost."""
    if x.dtype == FLOAT32:
        return fold(total), 0.0
    for k in literal_unroll((8, 4, 2, 1)):
        other = turn(total, k)
        result = total + other
        part = result - total
        excess = (excess + turn(excess, k)) - ((total - (result - part)) + (other - part))
        total = result
    return first(total), first(excess)


# ---- coefficients: per feature, from float64, in the data's dtype


@helper
def reciprocal_std(var: float, epsilon: float) -> float:
    spread = var + epsilon
    return 0.0 if spread == 0.0 else 1.0 / np.sqrt(spread)


@helper
def power_of_two(value: float, like: Array) -> float:
    """The power of two in |value|'s binade, kept where the data's dtype and its reciprocal are normal numbers.

    Data is scaled by it, exactly, before a rounded coefficient meets it: gamma*rstd alone may be subnormal or infinite
    in float32, as for data near 1e37 or 1e-40.
    """
    bits = np.float64(value).view(np.int64) & 0x7FF0000000000000
    power = np.int64(bits).view(np.float64)
    least, most = (2.0**-126, 2.0**126) if like.dtype == FLOAT32 else (2.0**-1022, 2.0**1022)
    return min(max(power, least), most)


@helper
def centre_and_scale(
    mean: Array, var: Array, gamma: Array, epsilon: float, f: int, out: Array
) -> tuple[float, float, float]:
    """Put a feature's mean_hi, power and scale in the first rows of `out`; return rstd, power and mean_lo."""
    rstd = reciprocal_std(var[f], epsilon)
    power = power_of_two(rstd, out)
    out[0, f] = mean[f]
    out[1, f] = power
    out[2, f] = gamma[f] * (rstd / power)
    return rstd, power, mean[f] - np.float64(out[0, f])


@helper
def normalize_coefficients(
    mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, first: int, last: int, out: Array
) -> None:
    """Rows of `out`: mean_hi, power, scale, shift, for y = (x - mean_hi)*power*scale + shift."""
    for f in range(first, last):
        rstd, _, mean_lo = centre_and_scale(mean, var, gamma, epsilon, f, out)
        out[3, f] = beta[f] - mean_lo * (gamma[f] * rstd)


@helper
def frozen_coefficients(var: Array, gamma: Array, epsilon: float, first: int, last: int, out: Array) -> None:
    """Rows of `out` as for `normalize`, with dy in the place of x: dx = (dy - 0)*power*scale + 0."""
    for f in range(first, last):
        scale = gamma[f] * reciprocal_std(var[f], epsilon)
        power = power_of_two(scale, out)
        out[0, f] = 0.0
        out[1, f] = power
        out[2, f] = scale / power
        out[3, f] = 0.0


@helper
def gradient_coefficients(
    mean: Array,
    var: Array,
    gamma: Array,
    dgamma: Array,
    dbeta: Array,
    epsilon: float,
    count: int,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Rows of `out`: mean_hi, power, scale, a, b, for dx = (dy + (a + b*(x - mean_hi)*power))*scale*power."""
    for f in range(first, last):
        rstd, power, mean_lo = centre_and_scale(mean, var, gamma, epsilon, f, out)
        out[3, f] = mean_lo * rstd * (dgamma[f] / count) - dbeta[f] / count
        out[4, f] = -(rstd / power) * (dgamma[f] / count)


# ---- elementwise


@inlined
def normalized(x: Vector, mean_hi: Vector, power: Vector, scale: Vector, shift: Vector) -> Vector:
    return fma((x - mean_hi) * power, scale, shift)


@inlined
def input_gradient(
    dy: Vector, x: Vector, mean_hi: Vector, power: Vector, scale: Vector, a: Vector, b: Vector
) -> Vector:
    return (dy + fma(b, (x - mean_hi) * power, a)) * scale * power
