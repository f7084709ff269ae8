"""Loops over data whose columns have sums and coefficients of their own, as vectors (see `grid`).

Sums are made of four rows at once, one of each quarter of a region: four streams in the order of memory, far apart,
which the prefetchers of a core follow best. From beyond the cache, (401408, 64) is read at 28 GB/s; by four rows that
follow each other at 14, however far ahead one fetches (Zen 3). Walking down a few columns is slower.
"""

from collections.abc import Callable
from typing import Any

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Coefficients, Vector
from bnnumba.kernels.formulas import own_of
from bnnumba.kernels.grid import Grid, Region, quarter
from bnnumba.kernels.simd import LANES, is_double, load
from bnnumba.kernels.stores import Sweep, lead, put, values
from bnnumba.kernels.sums import accumulate, add_1, add_4, get_sums, put_sums

PAGE = 4096  # bytes: addresses so far apart share a place in a core's first cache
TILE = 2048  # columns: their sums stay in a core's own cache beside the data


@loop
def add_region(inputs: Any, grid: Grid, region: Region, centres: Array, sums: Array, place: int) -> None:
    """Add the region's a and a*b to sums, whose column `place` is the region's first."""
    x, stride, length, rows = inputs.x, grid.stride, grid.fold * grid.inner, quarter(grid, region)
    apart = region.apart if region.apart > 0 else rows
    rest = region.row + 4 * rows if region.apart == 0 else region.row_end
    start, width = region.first * length, (region.last - region.first) * length
    for tile in range(0, width, TILE):
        end = min(width, tile + TILE)
        full = end - end % LANES
        for r in range(rows):
            i, step = (region.row + r) * stride + start, apart * stride
            for c in range(tile, full, LANES):
                _add_rows(inputs, i + c, step, LANES, of_columns(inputs, centres, start + c, LANES), sums, place + c)
            if full < end:
                n = end - full
                _add_rows(inputs, i + full, step, n, of_columns(inputs, centres, start + full, n), sums, place + full)
        for r in range(rest, region.row_end):
            i = r * stride + start
            for c in range(tile, min(end, x.size - i), LANES):  # the last row may be short
                n = min(LANES, min(end, x.size - i) - c)
                own, j = of_columns(inputs, centres, start + c, n), place + c
                put_sums(sums, j, n, add_1(inputs, i + c, n, own, get_sums(sums, j, n, x)), x)


@loop
def _add_rows(inputs: Any, i: int, step: int, n: int, own: Coefficients, sums: Array, j: int) -> None:
    """Add n columns of 4 rows that are `step` apart."""
    x = inputs.x
    put_sums(sums, j, n, add_4(inputs, i, step, 0, n, own, get_sums(sums, j, n, x)), x)


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
def fill(sweep: Sweep, grid: Grid, i: int, end: int) -> None:
    """Fill out[i : end] with the values of its inputs; of what four quarters have, four vectors at once."""
    columns, out = grid.stride, sweep.out
    n = lead(sweep, i, end)
    if n:
        put(sweep, i, n, values(sweep.inputs, i, n, 0, of_columns(sweep.inputs, sweep.coefficients, i % columns, n)))
        i += n
    apart = _quarter_size(columns, end - i, out.itemsize)
    if apart > 0:
        _fill_vectors(_fill_4, sweep, columns, i, i + apart, apart)
        i += 4 * apart
    _fill_vectors(_fill_1, sweep, columns, i, end, 0)
    n = (end - i) % LANES
    if n:
        i = end - n
        put(sweep, i, n, values(sweep.inputs, i, n, 0, of_columns(sweep.inputs, sweep.coefficients, i % columns, n)))


@helper
def _quarter_size(columns: int, size: int, itemsize: int) -> int:
    """Return the elements of a quarter of this size, or somewhat less; 0 where it is small, or quarters would be slow.

    They are whole rows, so that one load of coefficients serves four vectors, and whole lines in any dtype: an odd
    number of those, as in `grid`. By quarters a sweep takes 0.6 to 1.0 of the time; of rows of whole PAGEs, up to 4.
    """
    if size < 4 * columns:
        return 0
    least = 2 * LANES // min(2 * LANES, columns & -columns) * columns  # whole rows that are whole lines
    size = max(0, ((size // (4 * least) - 1) | 1) * least)
    return 0 if size * itemsize % PAGE == 0 else size


@loop
def _fill_vectors(fill_at: Callable[..., None], sweep: Sweep, columns: int, i: int, end: int, apart: int) -> None:
    """Fill the whole vectors of i..end."""
    c = i % columns
    while i + LANES <= end:
        if c >= columns:  # the coefficients after a row's last are those of its first again
            c -= columns
        fill_at(sweep, i, apart, of_columns(sweep.inputs, sweep.coefficients, c, LANES))
        i, c = i + LANES, c + LANES


@loop
def _fill_1(sweep: Sweep, i: int, apart: int, own: Coefficients) -> None:  # noqa: ARG001  # as of `_fill_4`
    put(sweep, i, LANES, values(sweep.inputs, i, LANES, 0, own))


@loop
def _fill_4(sweep: Sweep, i: int, apart: int, own: Coefficients) -> None:
    inputs, j, k, m = sweep.inputs, i + apart, i + 2 * apart, i + 3 * apart
    a, b = values(inputs, i, LANES, 0, own), values(inputs, j, LANES, 0, own)
    c, d = values(inputs, k, LANES, 0, own), values(inputs, m, LANES, 0, own)
    put(sweep, i, LANES, a)
    put(sweep, j, LANES, b)
    put(sweep, k, LANES, c)
    put(sweep, m, LANES, d)


@loop
def of_columns(inputs: Any, coefficients: Array, c: int, n: int) -> Coefficients:
    """Return the coefficients of n columns."""
    own: Coefficients = own_of(inputs, _of_row, coefficients, c, n)
    return own


@loop
def _of_row(coefficients: Array, row: int, c: int, n: int) -> Vector:
    result: Vector = load(coefficients, row * coefficients.shape[1] + c, n)
    return result
