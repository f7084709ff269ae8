"""Loops over a region of channels-first data: each feature owns runs of `inner` elements.

Arrays are flat.
"""

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Terms
from bnnumba.kernels.formulas import add_1, add_4, fold_sum, input_gradient, normalized
from bnnumba.kernels.grid import Grid, Region
from bnnumba.kernels.simd import LANES, load, splat, store
from bnnumba.kernels.stores import lead, put


@inlined
def reduce(terms: Terms, dy: Array, x: Array, grid: Grid, region: Region, shift: Array, partial: Array) -> None:
    """Put the region's sums of a and a*b in partial[:, first:last]."""
    feature, inner = grid.feature, grid.inner
    for f in range(region.first, region.last):
        k = splat(shift[f])
        zero = splat(0.0)
        sums = zero, zero, zero, zero
        for o in range(region.row, region.row_end):
            i = (o * feature + f) * inner + region.column
            end = i + region.column_end - region.column
            while i + 4 * LANES <= end:
                sums = add_4(terms, dy, x, i, LANES, LANES, k, sums)
                i += 4 * LANES
            while i + LANES <= end:
                sums = add_1(terms, dy, x, i, LANES, k, sums)
                i += LANES
            if i < end:
                sums = add_1(terms, dy, x, i, end - i, k, sums)
        partial[0, f], partial[2, f] = fold_sum(sums[0], sums[2], x)
        partial[1, f], partial[3, f] = fold_sum(sums[1], sums[3], x)


@helper
def scale(x: Array, grid: Grid, region: Region, coefficients: Array, past_cache: bool, y: Array) -> None:
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            c = (
                splat(coefficients[0, f]),
                splat(coefficients[1, f]),
                splat(coefficients[2, f]),
                splat(coefficients[3, f]),
            )
            start = (o * grid.feature + f) * grid.inner
            i, end = start + region.column, start + region.column_end
            n = lead(y, i, end, past_cache)
            if n:
                store(y, i, n, normalized(load(x, i, n), *c))
                i += n
            while i + LANES <= end:
                put(y, i, LANES, past_cache, normalized(load(x, i, LANES), *c))
                i += LANES
            if i < end:
                store(y, i, end - i, normalized(load(x, i, end - i), *c))


@helper
def differentiate(
    dy: Array, x: Array, grid: Grid, region: Region, coefficients: Array, past_cache: bool, dx: Array
) -> None:
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            mean_hi, power, scale = splat(coefficients[0, f]), splat(coefficients[1, f]), splat(coefficients[2, f])
            c = mean_hi, power, scale, splat(coefficients[3, f]), splat(coefficients[4, f])
            start = (o * grid.feature + f) * grid.inner
            i, end = start + region.column, start + region.column_end
            n = lead(dx, i, end, past_cache)
            if n:
                store(dx, i, n, input_gradient(load(dy, i, n), load(x, i, n), *c))
                i += n
            while i + LANES <= end:
                put(dx, i, LANES, past_cache, input_gradient(load(dy, i, LANES), load(x, i, LANES), *c))
                i += LANES
            n = end - i
            if n:
                store(dx, i, n, input_gradient(load(dy, i, n), load(x, i, n), *c))
