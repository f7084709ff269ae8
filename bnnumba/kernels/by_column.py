"""Loops over data whose columns have sums and coefficients of their own, as vectors (see `grid`).

Sums are made of four rows at once, one of each quarter of a region: four streams in the order of memory, far apart,
which the prefetchers of a core follow best. From beyond the cache, (401408, 64) is read at 28 GB/s; by four rows that
follow each other at 14, however far ahead one fetches (Zen 3). Walking down a few columns is slower.
"""

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Arrays, Centre, Coefficients, Terms, Values
from bnnumba.kernels.formulas import accumulate, add_1, add_4, get_sums, put_sums
from bnnumba.kernels.grid import Grid, Region, quarter
from bnnumba.kernels.simd import LANES, is_double, load
from bnnumba.kernels.stores import lead, put

TILE = 2048  # columns: their sums stay in a core's own cache beside the data


@loop
def reduce(
    terms: Terms, others: Arrays, x: Array, grid: Grid, region: Region, shift: Array, sums: Array, offset: int
) -> None:
    """Add the region's a and a*b to sums, whose column `offset` is the region's first."""
    columns, length, rows = grid.columns, grid.fold * grid.inner, quarter(grid, region)
    rest = region.row + 4 * rows * region.step
    start, width = region.first * length, (region.last - region.first) * length
    for tile in range(0, width, TILE):
        end = min(width, tile + TILE)
        full = end - end % LANES
        for r in range(rows):
            i, step = (region.row + r * region.step) * columns + start, rows * region.step * columns
            for c in range(tile, full, LANES):
                _add_rows(terms, others, x, i + c, step, LANES, shift, start + c, sums, offset + c)
            if full < end:
                _add_rows(terms, others, x, i + full, step, end - full, shift, start + full, sums, offset + full)
        for r in range(rest, region.row_end, region.step):
            i = r * columns + start
            for c in range(tile, min(end, x.size - i), LANES):  # the last row may be short
                n = min(LANES, min(end, x.size - i) - c)
                k, j = _centre(shift, start + c, n), offset + c
                put_sums(sums, j, n, add_1(terms, others, x, i + c, n, k, get_sums(sums, j, n, x)), x)


@loop
def _add_rows(
    terms: Terms, others: Arrays, x: Array, i: int, step: int, n: int, shift: Array, c: int, sums: Array, j: int
) -> None:
    """Add n columns of 4 rows that are `step` apart."""
    k = _centre(shift, c, n)
    put_sums(sums, j, n, add_4(terms, others, x, i, step, 0, n, k, get_sums(sums, j, n, x)), x)


@loop
def _centre(shift: Array, c: int, n: int) -> Centre:
    width = shift.shape[1]
    return load(shift, c, n), load(shift, width + c, n), load(shift, 2 * width + c, n), load(shift, 3 * width + c, n)


@helper
def fold_sums(x: Array, grid: Grid, sums: Array, partial: Array) -> None:
    """Add up the columns of each feature."""
    partial[:] = 0.0
    for k in range(2):
        c = 0
        for _ in range(grid.fold):
            for f in range(grid.feature):
                for _ in range(grid.inner):
                    if is_double(x):
                        partial[k, f], partial[2 + k, f] = accumulate(
                            partial[k, f], partial[2 + k, f], sums[k, c], sums[2 + k, c], x
                        )
                    else:
                        partial[k, f] += sums[k, c]
                    c += 1


@loop
def sweep(
    values: Values,
    others: Arrays,
    x: Array,
    grid: Grid,
    i: int,
    end: int,
    ahead: int,
    coefficients: Array,
    past_cache: bool,
    out: Array,
) -> None:
    """Fill out[i : end] with the values of its inputs, and meanwhile fetch those that are `ahead`."""
    columns = grid.columns
    c = i % columns
    n = lead(out, i, end, past_cache)
    if n:
        put(out, i, n, False, values(others, x, i, n, ahead, _of_columns(coefficients, c, n)))
        i, c = i + n, c + n
    while i + LANES <= end:
        if c >= columns:  # the coefficients after a row's last are those of its first again
            c -= columns
        put(out, i, LANES, past_cache, values(others, x, i, LANES, ahead, _of_columns(coefficients, c, LANES)))
        i, c = i + LANES, c + LANES
    if i < end:
        c = c - columns if c >= columns else c
        put(out, i, end - i, False, values(others, x, i, end - i, ahead, _of_columns(coefficients, c, end - i)))


@loop
def _of_columns(coefficients: Array, c: int, n: int) -> Coefficients:
    width = coefficients.shape[1]
    return (
        load(coefficients, c, n),
        load(coefficients, width + c, n),
        load(coefficients, 2 * width + c, n),
        load(coefficients, 3 * width + c, n),
        load(coefficients, 4 * width + c, n),
        load(coefficients, 5 * width + c, n),
    )
