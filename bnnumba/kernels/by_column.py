"""Loops over data whose columns have sums and coefficients of their own, as vectors (see `grid`).

Sums are made of four rows at once, one of each quarter of a region: four streams in the order of memory, far apart,
which the prefetchers of a core follow best. From beyond the cache, (401408, 64) is read at 28 GB/s; by four rows that
follow each other at 14, however far ahead one fetches (Zen 3). Walking down a few columns is slower.
"""

from collections.abc import Callable

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Arrays, Centre, Coefficients, Terms, Values
from bnnumba.kernels.formulas import accumulate, add_1, add_4, get_sums, put_sums
from bnnumba.kernels.grid import Grid, Region, quarter
from bnnumba.kernels.simd import LANES, is_double, load
from bnnumba.kernels.stores import lead, put

PAGE = 4096  # bytes: addresses so far apart share a place in a core's first cache
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
    coefficients: Array,
    past_cache: bool,
    out: Array,
) -> None:
    """Fill out[i : end] with the values of its inputs; of what four quarters have, four vectors at once."""
    columns = grid.columns
    n = lead(out, i, end, past_cache)
    if n:
        put(out, i, n, False, values(others, x, i, n, 0, _of_columns(coefficients, i % columns, n)))
        i += n
    apart = _quarter(columns, end - i, out.itemsize)
    if apart > 0:
        _fill_vectors(_fill_4, values, others, x, columns, i, i + apart, apart, coefficients, past_cache, out)
        i += 4 * apart
    _fill_vectors(_fill_1, values, others, x, columns, i, end, 0, coefficients, past_cache, out)
    n = (end - i) % LANES
    if n:
        i = end - n
        put(out, i, n, False, values(others, x, i, n, 0, _of_columns(coefficients, i % columns, n)))


@helper
def _quarter(columns: int, size: int, itemsize: int) -> int:
    """So many elements are a quarter of this size, or somewhat less; 0 where it is small, or quarters would be slow.

    They are whole rows, so that one load of coefficients serves four vectors, and whole lines in any dtype: an odd
    number of those, as in `grid`. By quarters a sweep takes 0.6 to 1.0 of the time; of rows of whole PAGEs, up to 4.
    """
    if size < 4 * columns:
        return 0
    least = 2 * LANES // min(2 * LANES, columns & -columns) * columns  # whole rows that are whole lines
    quarter = max(0, ((size // (4 * least) - 1) | 1) * least)
    return 0 if quarter * itemsize % PAGE == 0 else quarter


@loop
def _fill_vectors(
    fill: Callable[..., None],
    values: Values,
    others: Arrays,
    x: Array,
    columns: int,
    i: int,
    end: int,
    apart: int,
    coefficients: Array,
    past_cache: bool,
    out: Array,
) -> None:
    """Fill the whole vectors of i..end."""
    c = i % columns
    while i + LANES <= end:
        if c >= columns:  # the coefficients after a row's last are those of its first again
            c -= columns
        fill(values, others, x, i, LANES, apart, _of_columns(coefficients, c, LANES), past_cache, out)
        i, c = i + LANES, c + LANES


@loop
def _fill_1(
    values: Values,
    others: Arrays,
    x: Array,
    i: int,
    n: int,
    apart: int,  # noqa: ARG001  # as of `_fill_4`
    own: Coefficients,
    past_cache: bool,
    out: Array,
) -> None:
    put(out, i, n, past_cache, values(others, x, i, n, 0, own))


@loop
def _fill_4(
    values: Values,
    others: Arrays,
    x: Array,
    i: int,
    n: int,
    apart: int,
    own: Coefficients,
    past_cache: bool,
    out: Array,
) -> None:
    j, k, m = i + apart, i + 2 * apart, i + 3 * apart
    a, b = values(others, x, i, n, 0, own), values(others, x, j, n, 0, own)
    c, d = values(others, x, k, n, 0, own), values(others, x, m, n, 0, own)
    put(out, i, n, past_cache, a)
    put(out, j, n, past_cache, b)
    put(out, k, n, past_cache, c)
    put(out, m, n, past_cache, d)


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
