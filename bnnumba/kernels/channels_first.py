"""Loops over a region of channels-first data: each feature owns runs of `inner` elements.

Arrays are flat.
"""

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Terms
from bnnumba.kernels.formulas import add_1, add_4, fold_sum, input_gradient, normalized
from bnnumba.kernels.grid import Grid, Region
from bnnumba.kernels.simd import LANES, load, splat, store


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
def scale(x: Array, grid: Grid, region: Region, coefficients: Array, y: Array) -> None:
    feature, inner = grid.feature, grid.inner
    length = region.column_end - region.column
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            mean_hi = splat(coefficients[0, f])
            power = splat(coefficients[1, f])
            scale = splat(coefficients[2, f])
            shift = splat(coefficients[3, f])
            i = (o * feature + f) * inner + region.column
            end = i + length
            while i + LANES <= end:
                store(y, i, LANES, normalized(load(x, i, LANES), mean_hi, power, scale, shift))
                i += LANES
            if i < end:
                store(y, i, end - i, normalized(load(x, i, end - i), mean_hi, power, scale, shift))


@helper
def differentiate(dy: Array, x: Array, grid: Grid, region: Region, coefficients: Array, dx: Array) -> None:
    feature, inner = grid.feature, grid.inner
    length = region.column_end - region.column
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            mean_hi = splat(coefficients[0, f])
            power = splat(coefficients[1, f])
            scale = splat(coefficients[2, f])
            a = splat(coefficients[3, f])
            b = splat(coefficients[4, f])
            i = (o * feature + f) * inner + region.column
            end = i + length
            while i + LANES <= end:
                store(dx, i, LANES, input_gradient(load(dy, i, LANES), load(x, i, LANES), mean_hi, power, scale, a, b))
                i += LANES
            if i < end:
                n = end - i
                store(dx, i, n, input_gradient(load(dy, i, n), load(x, i, n), mean_hi, power, scale, a, b))
