"""Sums and differences of data whose positions have weights, an array (outer, 1, inner) of float64."""

from typing import NamedTuple

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Term, Vector
from bnnumba.kernels.formulas import difference_to
from bnnumba.kernels.grid import Grid, Region
from bnnumba.kernels.plan import share
from bnnumba.kernels.simd import LANES, choose, equal, fma, is_double, load, load_double, narrow, splat, store
from bnnumba.kernels.sums import accumulate, add_term, fold_sum, get_sums, put_sums


class WeightedBatch(NamedTuple):
    """What moments with weights are made of: sums of w*d and w*d*d, with d = x - pivot in float64."""

    x: Array
    weights: Array

    @loop
    def add_region(self, grid: Grid, region: Region, ahead: int, centres: Array, sums: Array, place: int) -> None:  # noqa: ARG002  # as of the others
        """Add the region's w*d and w*d*d to sums, from its column `place` on."""
        if grid.by_column:
            _add_rows(self, grid, region, centres, sums, place)
        else:
            _add_runs(self, grid, region, centres, sums, place)


@loop
def _add_rows(inputs: WeightedBatch, grid: Grid, region: Region, pivots: Array, sums: Array, place: int) -> None:
    x, weights = inputs.x, inputs.weights
    for r in range(region.row, region.row_end):
        weight = weights[r, 0, 0]
        if weight != 0.0:
            for f in range(region.first, region.last, LANES):
                n, j = min(LANES, region.last - f), place + f - region.first
                term = weighted_term(splat(weight), x, r * grid.stride + f, n, load(pivots, f, n))
                put_sums(sums, j, n, add_term(term, get_sums(sums, j, n, x), x), x)


@loop
def _add_runs(inputs: WeightedBatch, grid: Grid, region: Region, pivots: Array, sums: Array, place: int) -> None:
    x, weights = inputs.x, inputs.weights
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            j = place + (f - region.first) * LANES
            pivot, totals = splat(pivots[0, f]), get_sums(sums, j, LANES, x)
            run = o * grid.stride + f * grid.inner
            for c in range(region.column, region.column_end, LANES):
                n = min(LANES, region.column_end - c)
                term = weighted_term(load(weights, o * grid.inner + c, n), x, run + c, n, pivot)
                totals = add_term(term, totals, x)
            put_sums(sums, j, LANES, totals, x)


@loop
def weighted_term(weight: Vector, x: Array, i: int, n: int, pivot: Vector) -> Term:
    """Return w*d and d. Where w is 0, so is d, whatever x is."""
    zero = splat(0.0)
    nothing = equal(weight, zero)
    difference, rest = difference_to(x, i, n, pivot)
    d, low = choose(nothing, zero, difference), choose(nothing, zero, rest)
    product: Vector = weight * d
    if not is_double(x):
        return product, zero, d, zero
    return product, fma(weight, low, fma(weight, d, zero - product)), d, low


@helper
def sum_weights(weights: Array) -> float:
    """Add up all weights; no rounding is lost."""
    total, excess = splat(0.0), splat(0.0)
    for i in range(0, weights.size, LANES):
        n = min(LANES, weights.size - i)
        total, excess = accumulate(total, excess, load(weights, i, n), splat(0.0), weights)
    result, less = fold_sum(total, excess, weights)
    return result - less


@helper
def subtract_share(threads: int, thread: int, dy: Array, weights: Array, change: Array) -> None:
    """Make a thread's share of change = dy - w*change; where w is 0, dy, whatever change was."""
    outer, feature, inner = dy.shape
    by_row = inner == 1
    length, runs = (feature, outer) if by_row else (inner, outer * feature)
    first, last = share(runs, threads, thread)
    for run in range(first, last):
        for c in range(0, length, LANES):
            i, n = run * length + c, min(LANES, length - c)
            weight = splat(weights[run, 0, 0]) if by_row else load(weights, (run // feature) * inner + c, n)
            nothing, zero = equal(weight, splat(0.0)), splat(0.0)
            removed = choose(nothing, zero, weight * load_double(change, i, n))
            store(change, i, n, narrow(load_double(dy, i, n) - removed, change))
