"""Loops over a region of channels-last data: rows of `columns` elements, one or more whole rows of features.

Arrays are flat. Rows are streamed in memory order, because walking down a
few columns defeats the prefetcher.
"""

import numpy as np

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Terms
from bnnumba.kernels.formulas import input_gradient, kahan, normalized, sum_of_8
from bnnumba.kernels.grid import CHUNK_VECTORS, Grid, Region
from bnnumba.kernels.simd import LANES, fma, load, splat, store


@inlined
def reduce(terms: Terms, dy: Array, x: Array, grid: Grid, region: Region, shift: Array, partial: Array) -> None:
    """Put the region's sums of a and a*b in partial[:, first:last]; folded rows are summed over all features."""
    columns = grid.columns
    whole = x.size // columns
    start, width = region.first * grid.fold, (region.last - region.first) * grid.fold
    shift = shift[start : start + width]
    sums = np.zeros((6, width))
    for block in range(region.row, region.row_end, CHUNK_VECTORS):
        r, block_end = block, min(block + CHUNK_VECTORS, region.row_end)
        while r + 8 <= min(block_end, whole):
            i = r * columns + start
            for c in range(0, width - LANES + 1, LANES):
                _add_8(terms, dy, x, i, c, columns, LANES, shift, sums)
            if width % LANES:
                _add_8(terms, dy, x, i, width - width % LANES, columns, width % LANES, shift, sums)
            r += 8
        while r < block_end:
            i = r * columns + start
            end = min(width, x.size - i)  # the last row may be short
            for c in range(0, end, LANES):
                _add_1(terms, dy, x, i, c, min(LANES, end - c), shift, sums)
            r += 1
        for c in range(0, width, LANES):
            _flush(c, min(LANES, width - c), sums)
    for f in range(region.first, region.last):
        partial[0, f] = partial[1, f] = 0.0
    for c in range(width):
        f = region.first + c % grid.feature  # the rows that were folded into one
        partial[0, f] += sums[2, c]
        partial[1, f] += sums[3, c]


@inlined
def _add_8(terms: Terms, dy: Array, x: Array, i: int, c: int, step: int, n: int, shift: Array, sums: Array) -> None:
    a, ab = sum_of_8(terms, dy, x, i + c, step, n, load(shift, c, n))
    store(sums[0], c, n, load(sums[0], c, n) + a)
    store(sums[1], c, n, load(sums[1], c, n) + ab)


@inlined
def _add_1(terms: Terms, dy: Array, x: Array, i: int, c: int, n: int, shift: Array, sums: Array) -> None:
    a, b = terms(dy, x, i + c, n, load(shift, c, n))
    store(sums[0], c, n, load(sums[0], c, n) + a)
    store(sums[1], c, n, fma(a, b, load(sums[1], c, n)))


@inlined
def _flush(c: int, n: int, sums: Array) -> None:
    for k in range(2):
        total, excess = kahan(load(sums[2 + k], c, n), load(sums[4 + k], c, n), load(sums[k], c, n))
        store(sums[2 + k], c, n, total)
        store(sums[4 + k], c, n, excess)
        store(sums[k], c, n, splat(0.0))


@helper
def scale(x: Array, grid: Grid, region: Region, coefficients: Array, y: Array) -> None:
    columns = grid.columns
    start, stop = region.first * grid.fold, region.last * grid.fold
    for r in range(region.row, region.row_end):
        i = r * columns
        end = min(stop, x.size - i)  # the last row may be short
        c = start
        while c + LANES <= end:
            _scale(x, i, c, LANES, coefficients, y)
            c += LANES
        if c < end:
            _scale(x, i, c, end - c, coefficients, y)


@inlined
def _scale(x: Array, i: int, c: int, n: int, coefficients: Array, y: Array) -> None:
    mean_hi, power = load(coefficients[0], c, n), load(coefficients[1], c, n)
    scale, shift = load(coefficients[2], c, n), load(coefficients[3], c, n)
    store(y, i + c, n, normalized(load(x, i + c, n), mean_hi, power, scale, shift))


@helper
def differentiate(dy: Array, x: Array, grid: Grid, region: Region, coefficients: Array, dx: Array) -> None:
    columns = grid.columns
    start, stop = region.first * grid.fold, region.last * grid.fold
    for r in range(region.row, region.row_end):
        i = r * columns
        end = min(stop, x.size - i)  # the last row may be short
        c = start
        while c + LANES <= end:
            _differentiate(dy, x, i, c, LANES, coefficients, dx)
            c += LANES
        if c < end:
            _differentiate(dy, x, i, c, end - c, coefficients, dx)


@inlined
def _differentiate(dy: Array, x: Array, i: int, c: int, n: int, coefficients: Array, dx: Array) -> None:
    mean_hi, power, scale = load(coefficients[0], c, n), load(coefficients[1], c, n), load(coefficients[2], c, n)
    a, b = load(coefficients[3], c, n), load(coefficients[4], c, n)
    store(dx, i + c, n, input_gradient(load(dy, i + c, n), load(x, i + c, n), mean_hi, power, scale, a, b))
