"""The equations, each written once: sums of vectors, and coefficients of features."""

import numpy as np

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Arrays, Centre, Coefficients, Sums, Term, Terms, Vector
from bnnumba.kernels.simd import (
    LANES,
    binade,
    choose,
    double,
    equal,
    first,
    fma,
    fold,
    is_double,
    join,
    less,
    load,
    load_double,
    narrow,
    prefetch,
    splat,
    sqrt,
    store,
    turn,
)

# ---- sums: each pass adds up a and a*b, where each of a and b is a vector and what rounding took from it


@loop
def moment_terms(others: Arrays, x: Array, i: int, n: int, ahead: int, centre: Centre) -> Term:
    """Twice d = x - shift, in float64: sums of d and d*d. What is `ahead` is fetched."""
    bring(x, i, ahead)
    difference, low = _difference(x, i, n, centre[0])
    d: Vector = join(difference, splat(0.0), n)
    return d, low, d, low


@loop
def _difference(x: Array, i: int, n: int, shift: Vector) -> tuple[Vector, Vector]:
    """Return x - shift, and what rounding took from it: nothing from float32 data, nor past the first n."""
    value = load_double(x, i, n)
    difference: Vector = value - shift
    if not is_double(x):
        return difference, splat(0.0)
    part = difference - value
    return difference, (value - (difference - part)) - (shift + part)  # (Knuth 1969)


@loop
def weighted_term(weight: Vector, x: Array, i: int, n: int, shift: Vector) -> Term:
    """Make w*d and d: sums of w*d and w*d*d. Where w is 0, so is d, whatever x is."""
    zero = splat(0.0)
    nothing = equal(weight, zero)
    difference, rest = _difference(x, i, n, shift)
    d, low = choose(nothing, zero, difference), choose(nothing, zero, rest)
    product: Vector = weight * d
    if not is_double(x):
        return product, zero, d, zero
    return product, fma(weight, low, fma(weight, d, zero - product)), d, low


@loop
def gradient_terms(others: Arrays, x: Array, i: int, n: int, ahead: int, centre: Centre) -> Term:
    """Make dy and (x - mean_hi)*power in the data's dtype: sums of dy and of their product.

    Of float32 data, 4 of each are added up before they become float64: within the promise, and twice as fast in cache.
    """
    return gradient_term(fetch(others[0], i, n, ahead), x, i, n, ahead, centre)


@loop
def gradient_term(dy: Vector, x: Array, i: int, n: int, ahead: int, centre: Centre) -> Term:
    """Return dy and (x - mean_hi)*power; past the first n, zeros."""
    mean_hi, power, _, _ = centre
    zero = narrow(splat(0.0), x)
    return dy, zero, join(fetch(x, i, n, ahead) - mean_hi, zero, n) * power, zero


@helper
def new_sums(width: int, x: Array) -> Array:
    """Zeros for the sums of a and a*b in each of so many columns; and for the excess of each, see `accumulate`."""
    return np.zeros((4 if is_double(x) else 2, width))


# Rows of a two-dimensional array are addressed by hand: `sums[1]` would be an array of its own, and counting references
# to it waits for all stores past the cache.


@loop
def get_sums(sums: Array, j: int, n: int, x: Array) -> Sums:
    width = sums.shape[1]
    a, ab = load(sums, j, n), load(sums, width + j, n)
    if not is_double(x):
        return a, ab, splat(0.0), splat(0.0)
    return a, ab, load(sums, 2 * width + j, n), load(sums, 3 * width + j, n)


@loop
def put_sums(sums: Array, j: int, n: int, values: Sums, x: Array) -> None:
    width = sums.shape[1]
    store(sums, j, n, values[0])
    store(sums, width + j, n, values[1])
    if is_double(x):
        store(sums, 2 * width + j, n, values[2])
        store(sums, 3 * width + j, n, values[3])


@loop
def accumulate(total: Vector, excess: Vector, term: Vector, term_excess: Vector, x: Array) -> tuple[Vector, Vector]:
    """Add term - term_excess to the sum total - excess, of vectors or of scalars.

    For float64 data what rounding takes goes into the excess (Knuth 1969), so that no length, and no mixture of
    magnitudes, makes the sum worse. float32 data has 29 bits to spare in its float64 sums, and goes without.
    """
    result = total + term
    if not is_double(x):
        return result, excess
    part = result - total
    return result, (excess + term_excess) - ((total - (result - part)) + (term - part))


@loop
def _accumulate_product(total: Vector, excess: Vector, term: Term, x: Array) -> tuple[Vector, Vector]:
    product = double(term[0] * term[2])
    if not is_double(x):
        return total + product, excess
    a, low_a, b, low_b = double(term[0]), double(term[1]), double(term[2]), double(term[3])
    rest = fma(splat(0.0) - a, b, product) - fma(a, low_b, low_a * b)
    return accumulate(total, excess, product, rest, x)


@loop
def add_1(terms: Terms, others: Arrays, x: Array, i: int, n: int, centre: Centre, sums: Sums) -> Sums:
    """Add one vector's a and a*b to their sums."""
    return add_term(terms(others, x, i, n, 0, centre), sums, x)


@loop
def add_term(term: Term, sums: Sums, x: Array) -> Sums:
    sum_a, sum_ab, excess_a, excess_ab = sums
    sum_a, excess_a = accumulate(sum_a, excess_a, double(term[0]), splat(0.0) - double(term[1]), x)
    sum_ab, excess_ab = _accumulate_product(sum_ab, excess_ab, term, x)
    return sum_a, sum_ab, excess_a, excess_ab


@loop
def add_4(
    terms: Terms, others: Arrays, x: Array, i: int, step: int, ahead: int, n: int, centre: Centre, sums: Sums
) -> Sums:
    """Add a and a*b of 4 vectors that start `step` apart to their sums, and fetch those that are `ahead`.

    They are first added to each other, which costs the fewest roundings and the shortest wait; but float64 data's a*b
    go one by one, because the roundings of a tree are too many where one element outweighs the others.
    """
    sum_a, sum_ab, excess_a, excess_ab = sums
    t0 = terms(others, x, i, n, ahead, centre)
    t1 = terms(others, x, i + step, n, ahead, centre)
    t2 = terms(others, x, i + 2 * step, n, ahead, centre)
    t3 = terms(others, x, i + 3 * step, n, ahead, centre)
    a = (t0[0] + t1[0]) + (t2[0] + t3[0])
    if not is_double(x):
        products = fma(t0[0], t0[2], fma(t1[0], t1[2], fma(t2[0], t2[2], t3[0] * t3[2])))
        return sum_a + double(a), sum_ab + double(products), excess_a, excess_ab
    low = double((t0[1] + t1[1]) + (t2[1] + t3[1]))
    sum_a, excess_a = accumulate(sum_a, excess_a, double(a), splat(0.0) - low, x)
    for term in (t0, t1, t2, t3):
        sum_ab, excess_ab = _accumulate_product(sum_ab, excess_ab, term, x)
    return sum_a, sum_ab, excess_a, excess_ab


@loop
def fold_sum(total: Vector, excess: Vector, x: Array) -> tuple[float, float]:
    """Add up the lanes of a sum that `accumulate` made; for float64 data, no rounding is lost."""
    if not is_double(x):
        return fold(total), 0.0
    total, excess = accumulate(total, excess, turn(total, 8), turn(excess, 8), x)
    total, excess = accumulate(total, excess, turn(total, 4), turn(excess, 4), x)
    total, excess = accumulate(total, excess, turn(total, 2), turn(excess, 2), x)
    total, excess = accumulate(total, excess, turn(total, 1), turn(excess, 1), x)
    return first(total), first(excess)


# ---- coefficients: of LANES features at once, from float64, in the data's dtype


@loop
def reciprocal_std(var: Vector, epsilon: float) -> Vector:
    spread, zero = var + splat(epsilon), splat(0.0)
    return choose(equal(spread, zero), zero, splat(1.0) / sqrt(spread))


@loop
def power_of_two(value: Vector, like: Array) -> Vector:
    """The power of two in |value|'s binade, kept where the data's dtype and its reciprocal are normal numbers.

    Data is scaled by it, exactly, before a rounded coefficient meets it: gamma*rstd alone may be subnormal or infinite
    in float32, as for data near 1e37 or 1e-40.
    """
    least, most = (2.0**-1022, 2.0**1022) if is_double(like) else (2.0**-126, 2.0**126)
    power, low, high = binade(value), splat(least), splat(most)
    power = choose(less(power, low), low, power)
    return choose(less(high, power), high, power)


@loop
def put_row(out: Array, row: int, f: int, n: int, values: Vector) -> None:
    store(out, row * out.shape[1] + f, n, narrow(values, out))


@loop
def centre_and_scale(
    mean: Array, var: Array, gamma: Array, epsilon: float, f: int, n: int, out: Array
) -> tuple[Vector, Vector, Vector]:
    """Put n features' mean_hi, power and scale in the first rows of `out`; return rstd, power and mean_lo."""
    rstd = reciprocal_std(load(var, f, n), epsilon)
    power, means = power_of_two(rstd, out), load(mean, f, n)
    mean_hi = narrow(means, out)
    store(out, f, n, mean_hi)
    put_row(out, 1, f, n, power)
    put_row(out, 2, f, n, load(gamma, f, n) * (rstd / power))
    return rstd, power, means - double(mean_hi)


@helper
def normalize_coefficients(
    mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, first: int, last: int, out: Array
) -> None:
    """Rows of `out`: mean_hi, power, scale, shift, for y = (x - mean_hi)*power*scale + shift."""
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        rstd, _, mean_lo = centre_and_scale(mean, var, gamma, epsilon, f, n, out)
        put_row(out, 3, f, n, shift_of(gamma, beta, rstd, mean_lo, f, n))


@loop
def shift_of(gamma: Array, beta: Array, rstd: Vector, mean_lo: Vector, f: int, n: int) -> Vector:
    return load(beta, f, n) - mean_lo * (load(gamma, f, n) * rstd)


@helper
def frozen_coefficients(var: Array, gamma: Array, epsilon: float, first: int, last: int, out: Array) -> None:
    """Rows of `out` as for `normalize`, with dy in the place of x: dx = (dy - 0)*power*scale + 0."""
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        scale = load(gamma, f, n) * reciprocal_std(load(var, f, n), epsilon)
        power = power_of_two(scale, out)
        put_row(out, 0, f, n, splat(0.0))
        put_row(out, 1, f, n, power)
        put_row(out, 2, f, n, scale / power)
        put_row(out, 3, f, n, splat(0.0))


@helper
def gradient_coefficients(
    mean: Array,
    var: Array,
    gamma: Array,
    affine: Arrays,
    dgamma: Array,
    dbeta: Array,
    epsilon: float,
    count: int,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Rows of `out`: mean_hi, power, scale, a, b, for dx = (dy + (a + b*(x - mean_hi)*power))*scale*power.

    affine: gamma and beta, where a ReLU's result is made again, for which the last row is `normalized`'s shift.
    """
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        rstd, power, mean_lo = centre_and_scale(mean, var, gamma, epsilon, f, n, out)
        share = load(dgamma, f, n) / splat(float(count))
        put_row(out, 3, f, n, mean_lo * rstd * share - load(dbeta, f, n) / splat(float(count)))
        put_row(out, 4, f, n, splat(0.0) - (rstd / power) * share)
        if len(affine) > 0:
            put_row(out, 5, f, n, shift_of(affine[0], affine[1], rstd, mean_lo, f, n))


# ---- moving statistics


@helper
def moved(moving: float, batch: float, momentum: float) -> float:
    return momentum * moving + (1.0 - momentum) * batch


# ---- values: what a sweep fills its result with, from x and from others


@loop
def fetch(a: Array, i: int, n: int, ahead: int) -> Vector:
    """Load a vector, and meanwhile `bring` another."""
    bring(a, i, ahead)
    return load(a, i, n)


@loop
def bring(a: Array, i: int, ahead: int) -> None:
    """Bring the vector that is `ahead` into cache; with 0, none."""
    if ahead > 0:
        prefetch(a, i + ahead)


@loop
def normalized(others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    """Return what `scaled` does."""
    mean_hi, power, scale, shift, _, _ = coefficients
    return scaled(fetch(x, i, n, ahead), mean_hi, power, scale, shift)


@loop
def scaled(x: Vector, mean_hi: Vector, power: Vector, scale: Vector, shift: Vector) -> Vector:
    """Return (x - mean_hi)*power*scale + shift."""
    result: Vector = fma((x - mean_hi) * power, scale, shift)
    return result


@loop
def input_gradient(others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    """Return what `differentiated` does, with dy the other."""
    return differentiated(fetch(others[0], i, n, ahead), x, i, n, ahead, coefficients)


@loop
def differentiated(dy: Vector, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    """Return (dy + (a + b*(x - mean_hi)*power))*scale*power."""
    mean_hi, power, scale, a, b, _ = coefficients
    return (dy + fma(b, (fetch(x, i, n, ahead) - mean_hi) * power, a)) * scale * power
