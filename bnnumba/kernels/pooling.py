"""Moments of a union of two batches, in pairs of numbers as in `bnnumba.pairs`: high + low, twice float64's digits."""

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import LANES, choose, equal, fma, load, splat, store

Pair = tuple[Vector, Vector]


@loop
def two_sum(a: Vector, b: Vector) -> Pair:
    high: Vector = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


@loop
def renormalized(high: Vector, rest: Vector) -> Pair:
    """Return high + rest, where that is small; without it where it is not finite, as where high is not."""
    zero = splat(0.0)
    return two_sum(high, choose(equal(rest - rest, zero), rest, zero))


@loop
def plus(a: Pair, b: Pair) -> Pair:
    high, rest = two_sum(a[0], b[0])
    low, rest_of_low = two_sum(a[1], b[1])
    high, low = renormalized(high, rest + low)
    return renormalized(high, low + rest_of_low)


@loop
def times(a: Pair, b: Pair) -> Pair:
    high: Vector = a[0] * b[0]
    return renormalized(high, fma(a[0], b[0], splat(0.0) - high) + a[0] * b[1] + a[1] * b[0])


@loop
def quotient(a: Vector, b: Vector) -> Pair:
    high: Vector = a / b
    return renormalized(high, fma(splat(0.0) - high, b, a) / b)


@loop
def load_pair(rows: Array, row: int, f: int, n: int) -> Pair:
    feature = rows.shape[1]
    return load(rows, row * feature + f, n), load(rows, (row + 1) * feature + f, n)


@helper
def fill_pooled(count_a: Array, a: Array, count_b: Array, b: Array, union: Array) -> None:
    """Chan's formulas; where one count is 0, the other side's rows."""
    feature, zero = count_a.size, splat(0.0)
    for f in range(0, feature, LANES):
        n = min(LANES, feature - f)
        number_a, number_b = load(count_a, f, n), load(count_b, f, n)
        total = number_a + number_b
        count = choose(equal(total, zero), splat(1.0), total)
        share_a, share_b = quotient(number_a, count), quotient(number_b, count)
        mean_a, var_a = load_pair(a, 0, f, n), load_pair(a, 2, f, n)
        mean_b, var_b = load_pair(b, 0, f, n), load_pair(b, 2, f, n)
        delta = plus(mean_b, (zero - mean_a[0], zero - mean_a[1]))
        mean = plus(mean_a, times(delta, share_b))
        within = plus(times(share_a, var_a), times(share_b, var_b))
        var = plus(within, times(times(delta, share_a), times(delta, share_b)))
        only_a, only_b = equal(number_b, zero), equal(number_a, zero)
        store(union, f, n, choose(only_a, mean_a[0], choose(only_b, mean_b[0], mean[0])))
        store(union, feature + f, n, choose(only_a, mean_a[1], choose(only_b, mean_b[1], mean[1])))
        store(union, 2 * feature + f, n, choose(only_a, var_a[0], choose(only_b, var_b[0], var[0])))
        store(union, 3 * feature + f, n, choose(only_a, var_a[1], choose(only_b, var_b[1], var[1])))
