"""How work is shared out among threads. It steers which thread does what, never a bit of the result.

Each thread takes a share of consecutive tasks, and of the data in a sweep: numbers of one, in the order of memory.
"""

from typing import NamedTuple

from bnnumba._jit import helper
from bnnumba._types import Array
from bnnumba.kernels.grid import Grid, Region, ceil_div, chunk_count, chunk_region, make_grid, round_up

GROUP_BYTES = 2**18  # of one array: a group's x, dy and result stay in a core's own cache
BLOCK_BYTES = 2**17  # of one array: a block's x and dy stay in a core's own cache
LEAST_COLUMNS = 64  # a narrower part of a row would defeat the prefetcher
FEATURES_A_THREAD = 4  # fewer could not be shared evenly


class Plan(NamedTuple):
    """Features, divided.

    whole: a thread makes all the sums of a group of features, and applies them; else all threads first make the sums.
    group: so many features; a task of the sums is one chunk of them.
    """

    whole: bool
    group: int


@helper
def make_plan(grid: Grid, itemsize: int, threads: int) -> Plan:
    feature = grid.feature
    if not grid.by_column:
        fitting = GROUP_BYTES // max(1, grid.outer * grid.inner * itemsize)
        whole = threads == 1 or feature >= FEATURES_A_THREAD * threads
        return Plan(whole, max(1, min(fitting, feature // threads)))
    chunks, group = chunk_count(grid), feature
    if chunks < threads and grid.columns == feature:
        group = round_up(ceil_div(feature * max(1, chunks), threads), LEAST_COLUMNS)
    return Plan(threads == 1 or (chunks == 1 and group < feature), max(1, group))


@helper
def plan_of(x: Array, threads: int) -> tuple[Grid, Plan]:
    grid = make_grid(x.shape)
    return grid, make_plan(grid, x.itemsize, threads)


@helper
def share(total: int, threads: int, thread: int) -> tuple[int, int]:
    """First and last of a thread's consecutive numbers."""
    return total * thread // threads, total * (thread + 1) // threads


@helper
def group_share(grid: Grid, plan: Plan, threads: int, thread: int) -> tuple[int, int]:
    """The groups of features that a thread has to itself."""
    return share(ceil_div(grid.feature, plan.group), threads, thread)


@helper
def group_region(grid: Grid, plan: Plan, group: int) -> Region:
    """All the data of a group of features."""
    first = group * plan.group
    return Region(0, grid.rows, first, min(grid.feature, first + plan.group), 0, grid.columns)


@helper
def task_share(grid: Grid, plan: Plan, threads: int, thread: int, features: int) -> tuple[int, int]:
    """A thread's tasks of the sums over so many features."""
    return share(chunk_count(grid) * ceil_div(features, plan.group), threads, thread)


@helper
def task_region(grid: Grid, plan: Plan, first: int, last: int, task: int) -> tuple[int, Region]:
    """The chunk, and the region, of one task of the sums over the features first..last."""
    chunk, group = divmod(task, ceil_div(last - first, plan.group))
    start = first + group * plan.group
    return chunk, chunk_region(grid, chunk, start, min(last, start + plan.group))


@helper
def block_rows(grid: Grid, region: Region, itemsize: int) -> int:
    """Rows of a block of a region, a multiple of the 4 that are summed at once."""
    width = grid.columns if grid.by_column else (region.last - region.first) * (region.column_end - region.column)
    return round_up(max(1, BLOCK_BYTES // (width * itemsize)), 4 if grid.by_column else 1)


@helper
def block_region(region: Region, row: int, rows: int) -> Region:
    """The block of a region that starts at a row."""
    row_end = min(region.row_end, row + rows)
    return Region(row, row_end, region.first, region.last, region.column, region.column_end)
