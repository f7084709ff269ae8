"""What each thread does: its share of the sums, of a sweep that fills a result, or of both at once.

Each is a work function (see `threads`): it is called for every thread of a number of threads.
"""

from typing import Any, NamedTuple

import numpy as np

from bnnumba._jit import either, helper, loop, method, signed
from bnnumba._types import Array
from bnnumba.kernels import by_column, by_run
from bnnumba.kernels.grid import Grid, Region, chunk_count, column_repeats, span_bounds, span_count
from bnnumba.kernels.plan import (
    MOST_SPANS,
    block_count,
    block_region,
    block_shape,
    make_plan,
    share,
    task_region,
    task_share,
)
from bnnumba.kernels.simd import LANES, fence, is_double
from bnnumba.kernels.stores import Sweep, line_start

# A sweep runs backwards, TURN elements at a time, as the sums before it have just brought the last into the cache; or
# span by span (of one thread's rows by column, there is one). Backward of (4096, 256) is faster by 12 %, of
# (32, 64, 112, 112) by 14 %.
TURN = 2**17

# By run, a sweep over what is not in cache fetches AHEAD elements ahead: inference of (32, 64, 112, 112) takes 4 %
# less time, in half precision 20 %. A sweep behind sums, whose data is in cache, would take up to 10 % more.
AHEAD = 2048


class Sums(NamedTuple):
    """What is summed, and where to: `partial` holds each chunk's sums, made by the centres of all columns."""

    inputs: Any  # see `formulas`
    grid: Grid
    centres: Array
    partial: Array


@helper
def sums_of(inputs: Any, grid: Grid, centres: Array) -> Sums:
    """Make room for every chunk's sums of a and of a*b, and the excess of each (see `accumulate`), per feature."""
    return Sums(inputs, grid, centres, np.empty((chunk_count(grid), sum_rows(inputs), grid.feature)))


@helper
def sum_share(threads: int, thread: int, sums: Sums, sweep: Sweep | None) -> None:
    """Make a thread's share of the sums; and meanwhile of a sweep, if there is one."""
    inputs, grid, _, partial = sums
    x = inputs.x
    plan = make_plan(grid, x.itemsize, threads)
    tasks, end = task_share(grid, plan, threads, thread)
    for task in range(tasks, end):
        chunk, region = task_region(grid, plan, task)
        own, place = _start_sums(inputs, grid, region, partial[chunk])
        _sum_region(sweep, sums, region, own, place)
        _finish_sums(x, grid, region, own, partial[chunk])
        fold_counts(inputs, grid, region, own, partial[chunk])


@helper
def _add(absent: None, sums: Sums, region: Region, own: Array, place: int) -> None:
    ahead = by_run.read_ahead(sums.grid, region)
    add_region(sums.inputs, sums.grid, region, ahead, sums.centres, own, place)


@helper
def _add_and_fill(sweep: Sweep, sums: Sums, region: Region, own: Array, place: int) -> None:
    """Make both in short turns, so that loads for the one and stores of the other overlap.

    On (32, 64, 56, 56) that takes 0.7 of the time that turns of 64 KiB take. Except at the ends of a span, only whole
    cache lines are stored.
    """
    inputs, grid, centres, _ = sums
    ahead, shape, size = by_run.read_ahead(grid, region), block_shape(grid, region), sweep.out.size
    blocks = block_count(grid, region, shape)
    reached, filled = np.full(MOST_SPANS, -1), np.full(MOST_SPANS, -1)
    for block in range(blocks):
        part = block_region(grid, region, shape, block)
        add_region(inputs, grid, part, ahead, centres, own, place + (part.first - region.first) * sum_columns(grid))
        follower = block_region(grid, region, shape, min(block + 1, blocks - 1))
        followed = span_count(grid, follower)
        for span in range(span_count(grid, part)):
            i, end = span_bounds(grid, part, span, size)
            begin = filled[span] if i == reached[span] else i
            goes_on = span < followed and end == span_bounds(grid, follower, span, size)[0]
            stop = max(begin, line_start(sweep.out, end)) if goes_on else end  # a line that goes on waits
            _fill(sweep, grid, begin, stop, signed(0))
            reached[span], filled[span] = end, stop
    fence()


@helper
def fill_share(threads: int, thread: int, sweep: Sweep, grid: Grid) -> None:
    """Fill a thread's share of the result."""
    first, end = share(sweep.out.size, threads, thread)
    while first < end:
        i = max(first, line_start(sweep.out, end - TURN))
        _fill(sweep, grid, i, end, signed(AHEAD))
        end = i
    fence()


@loop
def fill_all(sweep: Sweep, grid: Grid) -> None:
    """Fill the result of all features of a grid."""
    region = Region(0, grid.rows, 0, 0, grid.feature, 0, grid.columns)
    spans = span_count(grid, region)
    for turn in range(spans):
        i, end = span_bounds(grid, region, spans - 1 - turn, sweep.out.size)
        _fill(sweep, grid, i, end, signed(0))


# ---- either layout: nothing above asks which


@helper
def _start_sums(inputs: Any, grid: Grid, region: Region, partial: Array) -> tuple[Array, int]:
    """Make zeros for a region's sums, and tell the place of its first: in `partial`, where a column is a feature."""
    if grid.by_column and column_repeats(grid) == 1:
        partial[:, region.first : region.last] = 0.0
        return partial, region.first
    return np.zeros((sum_rows(inputs), (region.last - region.first) * sum_columns(grid))), signed(0)


@helper
def sum_columns(grid: Grid) -> int:
    """Return how many columns of sums each feature has."""
    return column_repeats(grid) if grid.by_column else LANES


@loop
def add_terms(inputs: Any, grid: Grid, region: Region, ahead: int, centres: Array, sums: Array, place: int) -> None:
    """Add the sums of a region's terms to `sums`, from its column `place` on."""
    if grid.by_column:
        by_column.add_region(inputs, grid, region, centres, sums, place)
    else:
        by_run.add_region(inputs, grid, region, ahead, centres, sums, place)


@helper
def _finish_sums(x: Array, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
    """Add up the sums of each feature in `partial`."""
    if not grid.by_column:
        by_run.fold_sums(x, region, sums, partial)
    elif grid.columns > grid.feature:
        by_column.fold_sums(x, grid, sums, partial)


@loop
def _fill(sweep: Sweep, grid: Grid, i: int, end: int, ahead: int) -> None:
    """Fill out[i : end] of a sweep."""
    if grid.by_column:
        by_column.fill(sweep, grid, i, end)
    else:
        by_run.fill(sweep, grid, i, end, ahead)


_sum_region = either(_add, _add_and_fill)


@helper
def _base_rows(inputs: Any) -> int:
    return 4 if is_double(inputs.x) else 2


@helper
def _no_counts(inputs: Any, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
    pass


add_region = method("add_region", add_terms)  # of weighted data its own
sum_rows = method("rows", _base_rows)  # where each feature has its own count, more
fold_counts = method("fold_counts", _no_counts)
