"""What each thread does: its share of the sums, of a sweep that fills a result, or of both at once.

Each is a work function (see `threads`): it is called for every thread of a number of threads.
"""

from typing import Any, NamedTuple

import numpy as np

from bnnumba._jit import either, helper, loop, method, signed
from bnnumba._types import Array
from bnnumba.kernels import by_run, layouts
from bnnumba.kernels.grid import Grid, Region, span_bounds, span_count
from bnnumba.kernels.layouts import finish_sums, start_sums, sum_columns
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
from bnnumba.kernels.simd import fence
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


add_region = method("add_region")


@helper
def sum_share(threads: int, thread: int, sums: Sums, first: int, last: int, sweep: Sweep | None) -> None:
    """Make a thread's share of the sums over the features first..last; and meanwhile of a sweep, if there is one."""
    inputs, grid, _, partial = sums
    x = inputs.x
    plan = make_plan(grid, x.itemsize, threads)
    tasks, end = task_share(grid, plan, threads, thread, last - first)
    for task in range(tasks, end):
        chunk, region = task_region(grid, plan, first, last, task)
        own, place = start_sums(x, grid, region, partial[chunk])
        _sum_region(sweep, sums, region, own, place)
        finish_sums(x, grid, region, own, partial[chunk])


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
            layouts.fill(sweep, grid, begin, stop, signed(0))
            reached[span], filled[span] = end, stop
    fence()


_sum_region = either(_add, _add_and_fill)


@helper
def fill_share(threads: int, thread: int, sweep: Sweep, grid: Grid) -> None:
    """Fill a thread's share of the result."""
    first, end = share(sweep.out.size, threads, thread)
    while first < end:
        i = max(first, line_start(sweep.out, end - TURN))
        layouts.fill(sweep, grid, i, end, signed(AHEAD))
        end = i
    fence()


@loop
def fill_region(sweep: Sweep, grid: Grid, region: Region) -> None:
    """Fill a region of the result."""
    spans = span_count(grid, region)
    for turn in range(spans):
        i, end = span_bounds(grid, region, spans - 1 - turn, sweep.out.size)
        layouts.fill(sweep, grid, i, end, signed(0))
