"""Sums of a and of a*b, where a and b are vectors, each with what rounding took from it.

`terms` gives a and b at a place of a pass's inputs: `terms(inputs, i, n, ahead, own)`, see `formulas`.
"""

from typing import Any

import numpy as np

from bnnumba._jit import helper, loop, method
from bnnumba._types import Array, Coefficients, Term, Totals, Vector
from bnnumba.kernels.simd import double, first, fma, fold, is_double, load, splat, store, turn

terms = method("terms")


@helper
def new_sums(width: int, x: Array) -> Array:
    """Make zeros for the sums of `width` columns; and for the excess of each, see `accumulate`."""
    return np.zeros((4 if is_double(x) else 2, width))


# Rows of a two-dimensional array are addressed by hand: `sums[1]` would be an array of its own, and counting references
# to it waits for all stores past the cache.


@loop
def get_sums(sums: Array, j: int, n: int, x: Array) -> Totals:
    width = sums.shape[1]
    a, ab = load(sums, j, n), load(sums, width + j, n)
    if not is_double(x):
        return a, ab, splat(0.0), splat(0.0)
    return a, ab, load(sums, 2 * width + j, n), load(sums, 3 * width + j, n)


@loop
def put_sums(sums: Array, j: int, n: int, totals: Totals, x: Array) -> None:
    width = sums.shape[1]
    store(sums, j, n, totals[0])
    store(sums, width + j, n, totals[1])
    if is_double(x):
        store(sums, 2 * width + j, n, totals[2])
        store(sums, 3 * width + j, n, totals[3])


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
def add_1(inputs: Any, i: int, n: int, own: Coefficients, totals: Totals) -> Totals:
    """Add one vector's a and a*b to their sums."""
    return add_term(terms(inputs, i, n, 0, own), totals, inputs.x)


@loop
def add_term(term: Term, totals: Totals, x: Array) -> Totals:
    sum_a, sum_ab, excess_a, excess_ab = totals
    sum_a, excess_a = accumulate(sum_a, excess_a, double(term[0]), splat(0.0) - double(term[1]), x)
    sum_ab, excess_ab = _accumulate_product(sum_ab, excess_ab, term, x)
    return sum_a, sum_ab, excess_a, excess_ab


@loop
def add_4(inputs: Any, i: int, step: int, ahead: int, n: int, own: Coefficients, totals: Totals) -> Totals:
    """Add a and a*b of 4 vectors that start `step` apart to their sums, and fetch those that are `ahead`.

    They are first added to each other, which costs the fewest roundings and the shortest wait. float64 data's a*b go
    one by one: the roundings of a tree are too many where one element outweighs the others.
    """
    x = inputs.x
    sum_a, sum_ab, excess_a, excess_ab = totals
    t0 = terms(inputs, i, n, ahead, own)
    t1 = terms(inputs, i + step, n, ahead, own)
    t2 = terms(inputs, i + 2 * step, n, ahead, own)
    t3 = terms(inputs, i + 3 * step, n, ahead, own)
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
