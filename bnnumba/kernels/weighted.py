"""Loops over data whose positions have weights, an array (outer, 1, inner) of float64."""

from bnnumba._jit import helper, loop
from bnnumba._types import Array, Arrays
from bnnumba.kernels.formulas import accumulate, add_term, fold_sum, get_sums, put_sums, weighted_term
from bnnumba.kernels.grid import Grid, Region
from bnnumba.kernels.plan import share
from bnnumba.kernels.simd import LANES, choose, equal, load, load_double, narrow, splat, store


@helper
def sum_weights(weights: Array) -> float:
    """Add up all weights; no rounding is lost."""
    total, excess = splat(0.0), splat(0.0)
    for i in range(0, weights.size, LANES):
        n = min(LANES, weights.size - i)
        total, excess = accumulate(total, excess, load(weights, i, n), splat(0.0), weights)
    result, less = fold_sum(total, excess, weights)
    return result - less


@loop
def reduce(
    others: Arrays, x: Array, grid: Grid, region: Region, ahead: int, shift: Array, sums: Array, place: int
) -> None:
    """Add the region's w*d and w*d*d to sums, from its column `place` on; the other is the weights."""
    if grid.by_column:
        _add_rows(others[0], x, grid, region, shift, sums, place)
    else:
        _add_runs(others[0], x, grid, region, shift, sums, place)


@loop
def _add_rows(weights: Array, x: Array, grid: Grid, region: Region, shift: Array, sums: Array, place: int) -> None:
    for r in range(region.row, region.row_end):
        weight = weights[r, 0, 0]
        if weight != 0.0:
            for f in range(region.first, region.last, LANES):
                n, j = min(LANES, region.last - f), place + f - region.first
                term = weighted_term(splat(weight), x, r * grid.columns + f, n, load(shift, f, n))
                put_sums(sums, j, n, add_term(term, get_sums(sums, j, n, x), x), x)


@loop
def _add_runs(weights: Array, x: Array, grid: Grid, region: Region, shift: Array, sums: Array, place: int) -> None:
    for o in range(region.row, region.row_end):
        for f in range(region.first, region.last):
            j = place + (f - region.first) * LANES
            k, total = splat(shift[0, f]), get_sums(sums, j, LANES, x)
            run = (o * grid.feature + f) * grid.inner
            for c in range(region.column, region.column_end, LANES):
                n = min(LANES, region.column_end - c)
                term = weighted_term(load(weights, o * grid.inner + c, n), x, run + c, n, k)
                total = add_term(term, total, x)
            put_sums(sums, j, LANES, total, x)


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
