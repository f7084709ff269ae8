"""Moments of data whose single elements may not count, or count more than others: each feature has its own count.

Sums have two rows more than those of other moments: the count, and what rounding took from it.
"""

from typing import NamedTuple

import numpy as np

from bnnumba._jit import either, helper, loop, signed
from bnnumba._types import Array, Coefficients, Take, Term, Vector
from bnnumba.kernels.formulas import difference_to, fetch
from bnnumba.kernels.grid import Grid, Region, column_repeats, run_region
from bnnumba.kernels.plan import block_count, block_region, block_shape
from bnnumba.kernels.shares import add_terms
from bnnumba.kernels.simd import LANES, choose, double, element, equal, is_double, join, load, narrow, splat, store
from bnnumba.kernels.statistics import Samples
from bnnumba.kernels.sums import accumulate, add_term, fold_sum, get_sums, put_sums
from bnnumba.kernels.weighted import weighted_term

COUNTED_ROWS = 16  # by column: so many rows are counted before the count goes to memory


@helper
def _rows(x: Array) -> int:
    return 6 if is_double(x) else 4


class Present(NamedTuple):
    """The elements that are not NaN, each once: sums of 1, of d and of d*d, with d = x - pivot."""

    x: Array

    @helper
    def rows(self) -> int:
        """Return how many rows the sums have."""
        return _rows(self.x)

    @loop
    def own(self, take: Take, pivots: Array, place: int, n: int) -> Coefficients:
        """Return the pivot."""
        return (take(pivots, 0, place, n),)

    @loop
    def terms(self, i: int, n: int, ahead: int, own: Coefficients) -> Term:
        """Return d twice, each with what rounding took from it; zeros where x is NaN."""
        value, zero = fetch(self.x, i, n, ahead), splat(0.0)
        difference, rest = difference_to(self.x, i, n, own[0])
        there = equal(value, value)
        d: Vector = join(choose(there, difference, zero), zero, n)
        low = choose(there, rest, zero)
        return d, low, d, low

    @helper
    def add_region(self, grid: Grid, region: Region, ahead: int, centres: Array, sums: Array, place: int) -> None:
        """Add the region's sums to those in memory; and count each block while it is in a core's own cache."""
        if grid.by_column:
            shape = block_shape(grid, region)
            for block in range(block_count(grid, region, shape)):
                part = block_region(grid, region, shape, block)
                start = place + (part.first - region.first) * column_repeats(grid)
                add_terms(self, grid, part, ahead, centres, sums, start)
                _count_rows(self.x, grid, part, sums, start)
            return
        for o in range(region.row, region.row_end):
            for f in range(region.first, region.last):
                part, start = run_region(region, o, f), place + (f - region.first) * LANES
                add_terms(self, grid, part, ahead, centres, sums, start)
                _count_run(self.x, grid, part, sums, start)

    @helper
    def fold_counts(self, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
        """Add up the counts of each feature."""
        _fold(self.x, grid, region, sums, partial)

    @helper
    def merge_counts(self, partial: Array, counts: Array) -> None:
        """Add up the counts of the chunks."""
        _merge_counts(partial, self.x, counts)

    @helper
    def pivots(self, taken: Samples, pivot: Array, rest: Array) -> None:  # noqa: ARG002  # as of the others
        """Put in `pivot` a value of each feature."""
        _mean_of_samples(self.x, taken, pivot)


class Weighted(NamedTuple):
    """The elements with weights: sums of w, of w*d and of w*d*d. Where w is 0, x may be anything."""

    x: Array
    weights: Array
    omit: bool  # whether the weight of NaN is 0

    @helper
    def rows(self) -> int:
        """Return how many rows the sums have."""
        return _rows(self.x)

    @loop
    def add_region(self, grid: Grid, region: Region, ahead: int, centres: Array, sums: Array, place: int) -> None:  # noqa: ARG002  # as of the others
        """Add the region's sums to those in memory."""
        if grid.by_column:
            _add_rows(self, grid, region, centres, sums, place)
        else:
            _add_runs(self, grid, region, centres, sums, place)

    @helper
    def fold_counts(self, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
        """Add up the counts of each feature."""
        _fold(self.x, grid, region, sums, partial)

    @helper
    def merge_counts(self, partial: Array, counts: Array) -> None:
        """Add up the counts of the chunks."""
        _merge_counts(partial, self.x, counts)

    @helper
    def pivots(self, taken: Samples, pivot: Array, rest: Array) -> None:  # noqa: ARG002  # as of the others
        """Put in `pivot` a value of each feature that counts."""
        _heaviest(self, pivot)


@loop
def _present(x: Array, i: int, n: int) -> Vector:
    """Return 1 for each number, 0 for NaN and past the first n."""
    value, zero = load(x, i, n), narrow(splat(0.0), x)
    return join(choose(equal(value, value), narrow(splat(1.0), x), zero), zero, n)


@loop
def _count_rows(x: Array, grid: Grid, region: Region, sums: Array, place: int) -> None:
    repeats = column_repeats(grid)
    start, width = region.first * repeats, (region.last - region.first) * repeats
    counts = place + (_rows(x) - 2) * sums.shape[1]
    for part in range(4 if region.apart > 0 else 1):
        row, end = region.row + part * region.apart, region.row_end + part * region.apart
        whole = min(end, grid.outer // grid.fold)  # the last row may be short
        for first in range(row, whole, COUNTED_ROWS):
            rows = min(COUNTED_ROWS, whole - first)
            for c in range(0, width, LANES):
                i, n = first * grid.stride + start + c, min(LANES, width - c)
                if n == LANES:
                    _count_column(x, i, grid.stride, rows, LANES, sums, counts + c)
                else:
                    _count_column(x, i, grid.stride, rows, n, sums, counts + c)
        for r in range(max(row, whole), end):
            i = r * grid.stride + start
            for c in range(0, min(width, x.size - i), LANES):
                n = min(LANES, min(width, x.size - i) - c)
                _count_column(x, i + c, grid.stride, signed(1), n, sums, counts + c)


@loop
def _count_column(x: Array, i: int, stride: int, rows: int, n: int, sums: Array, j: int) -> None:
    """Count n columns of some rows."""
    count = _present(x, i, n)
    for r in range(1, rows):
        count = count + _present(x, i + r * stride, n)
    store(sums, j, n, load(sums, j, n) + double(count))


@loop
def _count_run(x: Array, grid: Grid, region: Region, sums: Array, place: int) -> None:
    """Count a part of one feature's run."""
    i = region.row * grid.stride + region.first * grid.inner + region.column
    end, count, more = i + region.column_end - region.column, narrow(splat(0.0), x), narrow(splat(0.0), x)
    while i + 2 * LANES <= end:
        count = count + _present(x, i, LANES)
        more = more + _present(x, i + LANES, LANES)
        i += 2 * LANES
    if i + LANES <= end:
        count = count + _present(x, i, LANES)
        i += LANES
    if i < end:
        more = more + _present(x, i, end - i)
    j = place + (_rows(x) - 2) * sums.shape[1]
    store(sums, j, LANES, load(sums, j, LANES) + double(count + more))


@loop
def _add_rows(inputs: Weighted, grid: Grid, region: Region, pivots: Array, sums: Array, place: int) -> None:
    x, repeats = inputs.x, column_repeats(grid)
    start, width = region.first * repeats, (region.last - region.first) * repeats
    for r in range(region.row, region.row_end):
        i = r * grid.stride + start
        for c in range(0, min(width, x.size - i), LANES):  # the last row may be short
            n = min(LANES, min(width, x.size - i) - c)
            _add(inputs, i + c, n, load(pivots, start + c, n), sums, place + c)


@loop
def _add_runs(inputs: Weighted, grid: Grid, region: Region, pivots: Array, sums: Array, place: int) -> None:
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            pivot, j = splat(pivots[0, f]), place + (f - region.first) * LANES
            i = o * grid.stride + f * grid.inner + region.column
            length = region.column_end - region.column
            for c in range(0, length, LANES):
                _add(inputs, i + c, min(LANES, length - c), pivot, sums, j)


@loop
def _add(inputs: Weighted, i: int, n: int, pivot: Vector, sums: Array, j: int) -> None:
    """Add n elements' sums to the columns from j on."""
    x, weight, zero = inputs.x, load(inputs.weights, i, n), splat(0.0)
    if inputs.omit:
        value = load(x, i, n)
        weight = choose(equal(value, value), weight, zero)
    put_sums(sums, j, n, add_term(weighted_term(weight, x, i, n, pivot), get_sums(sums, j, n, x), x), x)
    at = j + (_rows(x) - 2) * sums.shape[1]
    below = at + sums.shape[1]
    count, excess = accumulate(load(sums, at, n), load(sums, below, n), weight, zero, inputs.weights)
    store(sums, at, n, count)
    store(sums, below, n, excess)


@helper
def _fold(x: Array, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
    """Add up the counts of the columns, or of the lanes, of each feature of a region."""
    row = _rows(x) - 2
    if not grid.by_column:
        for f in range(region.first, region.last):
            j = (f - region.first) * LANES
            count, excess = load(sums, row * sums.shape[1] + j, LANES), load(sums, (row + 1) * sums.shape[1] + j, LANES)
            partial[row, f], partial[row + 1, f] = fold_sum(count, excess, partial)
    elif column_repeats(grid) > 1:
        partial[row:] = 0.0
        for c in range(sums.shape[1]):
            f = c // grid.inner % grid.feature
            partial[row, f], partial[row + 1, f] = accumulate(
                partial[row, f], partial[row + 1, f], sums[row, c], sums[row + 1, c], partial
            )


@helper
def _merge_counts(partial: Array, x: Array, counts: Array) -> None:
    """Add up the counts of the chunks of each feature."""
    _, rows, features = partial.shape
    row = _rows(x) - 2
    for f in range(0, features, LANES):
        n, count, excess = min(LANES, features - f), splat(0.0), splat(0.0)
        for chunk in range(partial.shape[0]):
            place = (chunk * rows + row) * features + f
            below = load(partial, place + features, n)
            count, excess = accumulate(count, excess, load(partial, place, n), below, counts)
        store(counts, f, n, count - excess)


@helper
def _mean_of_samples(x: Array, taken: Samples, pivot: Array) -> None:
    """Put in `pivot` the mean of each feature's samples that are not NaN, or 0: the first, and what the others add."""
    _, feature, inner = x.shape
    for f in range(feature):
        number, rest = 0, 0.0
        pivot[f] = 0.0
        for position in taken.positions:
            o, i = divmod(position, inner)
            value = element(x, (o * feature + f) * inner + i)
            if not np.isnan(value):
                if number == 0:
                    pivot[f] = value
                rest += value - pivot[f]
                number += 1
        if number > 1:
            pivot[f] += rest / number


@helper
def _heaviest(inputs: Weighted, pivot: Array) -> None:
    """Put in `pivot` each feature's element of most weight, the first of several; 0 where none counts."""
    x, largest = inputs.x, np.zeros(pivot.size)
    outer, feature, inner = x.shape
    pivot[:] = 0.0
    for o in range(outer):
        for f in range(feature):
            for i in range((o * feature + f) * inner, (o * feature + f + 1) * inner):
                weight, value = element(inputs.weights, i), element(x, i)
                if weight > largest[f] and not (inputs.omit and np.isnan(value)):
                    largest[f], pivot[f] = weight, value


@helper
def _present_of(absent: None, x: Array, omit: bool) -> Present:
    return Present(x)


@helper
def _weighted_of(weights: Array, x: Array, omit: bool) -> Weighted:
    return Weighted(x, weights, omit)


cells_of = either(_present_of, _weighted_of)
