"""Loops over data whose features own runs of at least a vector (see `grid`)."""

from typing import Any

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Coefficients, Vector
from bnnumba.kernels.formulas import own_of
from bnnumba.kernels.grid import Grid, Region
from bnnumba.kernels.simd import LANES, is_double, join, splat
from bnnumba.kernels.stores import Sweep, lead, put, values
from bnnumba.kernels.sums import add_1, add_4, fold_sum, get_sums, put_sums

AHEAD = 1024  # elements


@helper
def read_ahead(grid: Grid, region: Region) -> int:
    """Return how far ahead of an element to fetch: in the region's next row, where its rows are short."""
    row = (region.last - region.first) * (region.column_end - region.column)
    return AHEAD if row > 2 * AHEAD else grid.stride


@loop
def add_region(inputs: Any, grid: Grid, region: Region, ahead: int, centres: Array, sums: Array, place: int) -> None:
    """Add the region's a and a*b to sums, and meanwhile fetch what is `ahead`.

    sums has LANES columns for each feature, from `place` on for the first.
    """
    x, length = inputs.x, region.column_end - region.column
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            j = place + (f - region.first) * LANES
            own, totals = of_feature(inputs, centres, f), get_sums(sums, j, LANES, x)
            i = o * grid.stride + f * grid.inner + region.column
            end = i + length
            while i + 4 * LANES <= end:
                totals = add_4(inputs, i, LANES, ahead, LANES, own, totals)
                i += 4 * LANES
            while i + LANES <= end:
                totals = add_1(inputs, i, LANES, own, totals)
                i += LANES
            if i < end:
                totals = add_1(inputs, i, end - i, own, totals)
            put_sums(sums, j, LANES, totals, x)


@helper
def fold_sums(x: Array, region: Region, sums: Array, partial: Array) -> None:
    """Add up the lanes of each feature."""
    for f in range(region.first, region.last):
        sum_a, sum_ab, excess_a, excess_ab = get_sums(sums, (f - region.first) * LANES, LANES, x)
        partial[0, f], less_a = fold_sum(sum_a, excess_a, x)
        partial[1, f], less_ab = fold_sum(sum_ab, excess_ab, x)
        if is_double(x):
            partial[2, f], partial[3, f] = less_a, less_ab


@loop
def fill(sweep: Sweep, grid: Grid, i: int, end: int, ahead: int) -> None:
    """Fill out[i : end] with the values of its inputs, and meanwhile fetch those that are `ahead`.

    A vector may hold one run's end and the next one's start, so that lines are stored whole.
    """
    inputs = sweep.inputs
    f, stop = i % grid.stride // grid.inner, (i // grid.inner + 1) * grid.inner
    own = of_feature(inputs, sweep.coefficients, f)
    n = lead(sweep, i, end) or min(LANES, end - i)
    while i < end:
        result = values(inputs, i, n, ahead, own)
        if i + n > stop:
            f = f + 1 if f + 1 < grid.feature else 0
            own = of_feature(inputs, sweep.coefficients, f)
            result = join(result, values(inputs, i, n, ahead, own), stop - i)
            stop += grid.inner
        put(sweep, i, n, result)
        i += n
        whole = min(stop, end)
        while i + LANES <= whole:
            put(sweep, i, LANES, values(inputs, i, LANES, ahead, own))
            i += LANES
        n = min(LANES, end - i)


@loop
def of_feature(inputs: Any, coefficients: Array, f: int) -> Coefficients:
    """Return a feature's coefficients; by column, those of a column."""
    own: Coefficients = own_of(inputs, _of_row, coefficients, f, LANES)
    return own


@loop
def _of_row(coefficients: Array, row: int, f: int, n: int) -> Vector:  # noqa: ARG001  # as by column
    result: Vector = splat(coefficients[row, f])
    return result
