"""Work functions, made of the terms that they add up and the values that they fill a result with, in either layout."""

from collections.abc import Callable

import numpy as np

from bnnumba._jit import helper, loop, signed
from bnnumba._types import Array, Arrays, Terms, Values
from bnnumba.kernels import by_column, by_run
from bnnumba.kernels.formulas import new_sums
from bnnumba.kernels.grid import Grid, Region, make_grid, span_bounds, span_count
from bnnumba.kernels.plan import (
    MOST_SPANS,
    block_count,
    block_region,
    block_shape,
    make_plan,
    plan_of,
    share,
    task_region,
    task_share,
)
from bnnumba.kernels.simd import LANES, fence, line_start

# A sweep goes from last to first, as the sums before it have just brought the last into the cache, in turns of so many
# elements, or span by span (of one thread's rows by column, there is one). Backward of (4096, 256) is faster by 12 %,
# of (32, 64, 112, 112) by 14 %.
TURN = 2**17

# By run, a sweep over what is not in cache fetches so many elements ahead: inference of (32, 64, 112, 112) takes 4 %
# less time, in half precision 20 %. A sweep behind sums, whose data is in cache, would take up to 10 % more.
AHEAD = 2048

Work = Callable[..., None]


def adding(terms: Terms) -> Work:
    """Make the function that adds up the terms of x, of what goes with it, and of the shift."""

    @loop
    def reduce(
        others: Arrays, x: Array, grid: Grid, region: Region, ahead: int, shift: Array, sums: Array, place: int
    ) -> None:
        _reduce(terms, others, x, grid, region, ahead, shift, sums, place)

    return adding_by(reduce, make_grid)


def adding_by(reduce: Work, grid_of: Callable[[tuple[int, int, int]], Grid]) -> Work:
    """Make the function that adds up what `reduce` does, over the regions of a grid."""

    @helper
    def add(
        threads: int, thread: int, others: Arrays, x: Array, first: int, last: int, shift: Array, partial: Array
    ) -> None:
        """Make a thread's share of the sums of a and a*b over the features first..last."""
        grid = grid_of(x.shape)
        plan = make_plan(grid, x.itemsize, threads)
        tasks, end = task_share(grid, plan, threads, thread, last - first)
        for task in range(tasks, end):
            chunk, region = task_region(grid, plan, first, last, task)
            sums, offset = _start(x, grid, region, partial[chunk])
            reduce(others, x, grid, region, by_run.read_ahead(grid, region), shift, sums, offset)
            _finish(x, grid, region, sums, partial[chunk])

    return add


def filling(values: Values) -> Work:
    """Make the function that fills a result with the values of x and of what goes with it."""

    @helper
    def fill(
        threads: int, thread: int, others: Arrays, x: Array, coefficients: Array, past_cache: bool, out: Array
    ) -> None:
        """Fill a thread's share."""
        grid = make_grid(x.shape)
        first, end = share(x.size, threads, thread)
        while first < end:
            i = max(first, line_start(out, end - TURN))
            _sweep(values, others, x, grid, i, end, signed(AHEAD), coefficients, past_cache, out)
            end = i
        fence()

    return fill


@loop
def fill_region(
    values: Values,
    others: Arrays,
    x: Array,
    grid: Grid,
    region: Region,
    coefficients: Array,
    past_cache: bool,
    out: Array,
) -> None:
    """Fill a region of out with the values of x and of what goes with it."""
    spans = span_count(grid, region)
    for turn in range(spans):
        i, end = span_bounds(grid, region, spans - 1 - turn, x.size)
        _sweep(values, others, x, grid, i, end, signed(0), coefficients, past_cache, out)


def adding_and_filling(terms: Terms, values: Values) -> Work:
    """Make the function that adds up the terms of (dy, ...) and x, and fills a result with the values of (...) and dy.

    Both in short turns, so that loads for the one and stores of the other overlap: on (32, 64, 56, 56) that takes 0.7
    of the time that turns of 64 KiB take. Only whole lines are stored, but where a span of memory begins or ends.
    """

    @helper
    def add_and_fill(
        threads: int,
        thread: int,
        others: Arrays,
        x: Array,
        first: int,
        last: int,
        shift: Array,
        coefficients: Array,
        past_cache: bool,
        partial: Array,
        out: Array,
    ) -> None:
        """Make a thread's share of both, of the features first..last."""
        dy, beside_dy = others[0], others[1:]
        grid, plan = plan_of(x, threads)
        tasks, end = task_share(grid, plan, threads, thread, last - first)
        for task in range(tasks, end):
            chunk, region = task_region(grid, plan, first, last, task)
            sums, offset = _start(x, grid, region, partial[chunk])
            ahead, shape = by_run.read_ahead(grid, region), block_shape(grid, region)
            blocks = block_count(grid, region, shape)
            reached, filled = np.full(MOST_SPANS, -1), np.full(MOST_SPANS, -1)
            for block in range(blocks):
                part = block_region(grid, region, shape, block)
                place = offset + (part.first - region.first) * _sum_columns(grid)
                _reduce(terms, others, x, grid, part, ahead, shift, sums, place)
                follower = block_region(grid, region, shape, min(block + 1, blocks - 1))
                followed = span_count(grid, follower)
                for span in range(span_count(grid, part)):
                    i, end = span_bounds(grid, part, span, x.size)
                    begin = filled[span] if i == reached[span] else i
                    goes_on = span < followed and end == span_bounds(grid, follower, span, x.size)[0]
                    stop = max(begin, line_start(out, end)) if goes_on else end  # a line that goes on waits
                    _sweep(values, beside_dy, dy, grid, begin, stop, signed(0), coefficients, past_cache, out)
                    reached[span], filled[span] = end, stop
            _finish(x, grid, region, sums, partial[chunk])
        fence()

    return add_and_fill


# ---- either layout


@helper
def _start(x: Array, grid: Grid, region: Region, partial: Array) -> tuple[Array, int]:
    """Zeros for a region's sums, and the place of its first: in `partial` itself, where a column is a feature."""
    if grid.by_column and grid.columns == grid.feature:
        partial[:, region.first : region.last] = 0.0
        return partial, region.first
    return new_sums((region.last - region.first) * _sum_columns(grid), x), signed(0)


@helper
def _sum_columns(grid: Grid) -> int:
    """Return how many columns of sums each feature has."""
    return grid.fold * grid.inner if grid.by_column else LANES


@loop
def _reduce(
    terms: Terms,
    others: Arrays,
    x: Array,
    grid: Grid,
    region: Region,
    ahead: int,
    shift: Array,
    sums: Array,
    place: int,
) -> None:
    """Add the region's a and a*b to sums, from its column `place` on."""
    if grid.by_column:
        by_column.reduce(terms, others, x, grid, region, shift, sums, place)
    else:
        by_run.reduce(terms, others, x, grid, region, ahead, shift, sums, place)


@helper
def _finish(x: Array, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
    """Add up the sums of each feature in `partial`."""
    if not grid.by_column:
        by_run.fold_sums(x, region, sums, partial)
    elif grid.columns > grid.feature:
        by_column.fold_sums(x, grid, sums, partial)


@loop
def _sweep(
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
    """Fill out[i : end] with the values of x and of what goes with it."""
    if grid.by_column:
        by_column.sweep(values, others, x, grid, i, end, coefficients, past_cache, out)
    else:
        by_run.sweep(values, others, x, grid, i, end, ahead, coefficients, past_cache, out)
