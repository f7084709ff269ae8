"""Loops over a region of channels-first data: each feature owns runs of `inner` elements.

Arrays are flat.
"""

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Terms
from bnnumba.kernels.formulas import input_gradient, kahan, normalized, sum_of_8
from bnnumba.kernels.grid import CHUNK_VECTORS, Grid, Region
from bnnumba.kernels.simd import LANES, fma, fold, load, splat, store


@inlined
def reduce(terms: Terms, dy: Array, x: Array, grid: Grid, region: Region, shift: Array, partial: Array) -> None:
    """Put the region's sums of a and a*b in partial[:, first:last]."""
    feature, inner = grid.feature, grid.inner
    length = region.column_end - region.column
    for f in range(region.first, region.last):
        k = splat(shift[f])
        sum_a = sum_ab = total_a = total_ab = excess_a = excess_ab = splat(0.0)
        pending = 0
        for o in range(region.row, region.row_end):
            i = (o * feature + f) * inner + region.column
            end = i + length
            while i + 8 * LANES <= end:
                a, ab = sum_of_8(terms, dy, x, i, LANES, LANES, k)
                sum_a, sum_ab = sum_a + a, sum_ab + ab
                i += 8 * LANES
                pending += 8
                if pending >= CHUNK_VECTORS:
                    total_a, excess_a = kahan(total_a, excess_a, sum_a)
                    total_ab, excess_ab = kahan(total_ab, excess_ab, sum_ab)
                    sum_a = sum_ab = splat(0.0)
                    pending = 0
            while i + LANES <= end:
                a, b = terms(dy, x, i, LANES, k)
                sum_a, sum_ab = sum_a + a, fma(a, b, sum_ab)
                i += LANES
            if i < end:
                a, b = terms(dy, x, i, end - i, k)
                sum_a, sum_ab = sum_a + a, fma(a, b, sum_ab)
            pending += 8
        total_a, excess_a = kahan(total_a, excess_a, sum_a)
        total_ab, excess_ab = kahan(total_ab, excess_ab, sum_ab)
        partial[0, f] = fold(total_a)
        partial[1, f] = fold(total_ab)


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
