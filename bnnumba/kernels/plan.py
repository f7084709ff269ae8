"""How work is shared out among threads. It steers which thread does what, never a bit of the result."""

from typing import NamedTuple

from bnnumba._jit import helper
from bnnumba._types import Array
from bnnumba.kernels.grid import Grid, Region, ceil_div, chunk_count, chunk_region, make_grid, round_up
from bnnumba.kernels.simd import LANES

GROUP_BYTES = 2**18  # of one array: a group's x, dy and result stay in a core's own cache
LEAST_COLUMNS = 64  # a narrower block of channels-last rows would defeat the prefetcher
TASKS = 4  # for each thread of several, so that a late one does not keep the others waiting


class Plan(NamedTuple):
    """Features and data, divided.

    whole: a thread makes all the sums of a group of features, and applies them; else all threads first make the sums.
    group: so many features; a task of the sums is one chunk of them.
    row_step, feature_step, column_step: a task of an elementwise sweep.
    """

    whole: bool
    group: int
    row_step: int
    feature_step: int
    column_step: int


@helper
def make_plan(grid: Grid, itemsize: int, threads: int) -> Plan:
    tasks = TASKS * threads if threads > 1 else 1
    feature, rows, columns = grid.feature, grid.rows, grid.columns
    whole, group = threads == 1, feature
    if grid.inner > 1:
        whole = whole or feature >= tasks
        group = min(GROUP_BYTES // max(1, grid.outer * grid.inner * itemsize), feature // tasks)
    elif grid.fold == 1 and grid.row_chunks < tasks and threads > 1:
        whole = grid.row_chunks == 1
        group = round_up(ceil_div(feature * grid.row_chunks, tasks), LEAST_COLUMNS)
    row_step, feature_step, column_step = ceil_div(rows, tasks), feature, columns
    if rows < threads and grid.fold == 1:
        feature_step = round_up(ceil_div(feature * rows, tasks), LEAST_COLUMNS if grid.inner == 1 else 1)
        if feature * rows < threads:
            column_step = round_up(ceil_div(columns * feature * rows, tasks), LANES)
    return Plan(whole, max(1, group), max(1, row_step), max(1, feature_step), max(1, column_step))


@helper
def plan_of(x: Array, threads: int) -> tuple[Grid, Plan]:
    grid = make_grid(x.shape)
    return grid, make_plan(grid, x.itemsize, threads)


@helper
def group_count(x: Array, threads: int) -> int:
    """Return how many groups of features threads can have to themselves; 0 where all threads first make the sums."""
    grid, plan = plan_of(x, threads)
    return ceil_div(grid.feature, plan.group) if plan.whole and x.size else 0


@helper
def group_region(x: Array, threads: int, group: int) -> Region:
    """All the data of a group of features."""
    grid, plan = plan_of(x, threads)
    first = group * plan.group
    return Region(0, grid.rows, first, min(grid.feature, first + plan.group), 0, grid.columns)


@helper
def reduce_tasks(x: Array, threads: int, features: int) -> int:
    """Return the number of tasks of the sums over so many features."""
    grid, plan = plan_of(x, threads)
    return chunk_count(grid) * ceil_div(features, plan.group)


@helper
def reduce_region(x: Array, threads: int, first: int, last: int, task: int) -> tuple[int, Region]:
    """The chunk, and the region, of one task of the sums over the features first..last."""
    grid, plan = plan_of(x, threads)
    chunk, group = divmod(task, ceil_div(last - first, plan.group))
    start = first + group * plan.group
    return chunk, chunk_region(grid, chunk, start, min(last, start + plan.group))


@helper
def sweep_tasks(x: Array, threads: int) -> int:
    """Return the number of tasks of an elementwise sweep over all the data."""
    grid, plan = plan_of(x, threads)
    blocks = ceil_div(grid.feature, plan.feature_step) * ceil_div(grid.columns, plan.column_step)
    return ceil_div(grid.rows, plan.row_step) * blocks


@helper
def sweep_region(x: Array, threads: int, task: int) -> Region:
    """The region of one of those tasks; they follow each other in memory."""
    grid, plan = plan_of(x, threads)
    rest, piece = divmod(task, ceil_div(grid.columns, plan.column_step))
    part, block = divmod(rest, ceil_div(grid.feature, plan.feature_step))
    row, first, column = part * plan.row_step, block * plan.feature_step, piece * plan.column_step
    return Region(
        row,
        min(grid.rows, row + plan.row_step),
        first,
        min(grid.feature, first + plan.feature_step),
        column,
        min(grid.columns, column + plan.column_step),
    )
