"""How work is shared out among threads. It steers which thread does what, never a bit of the result.

Each thread takes a share of consecutive tasks, and of the data in a sweep: numbers of one, in the order of memory.
"""

from typing import NamedTuple

from bnnumba._jit import helper
from bnnumba.kernels.grid import Grid, Region, ceil_div, chunk_count, chunk_region, quarter, round_up

GROUP_BYTES = 2**18  # of one array: a group's x, dy and result stay in a core's own cache
BLOCK = 1024  # elements: read for the sums and stored past the cache in such short turns, both overlap
MOST_SPANS = 4  # of memory in a block: a row of each quarter
LEAST_COLUMNS = 64  # a narrower part of a row would defeat the prefetcher
FEATURES_A_THREAD = 4  # fewer could not be shared evenly
MOST_FEATURES = 64  # by run: the lanes of their sums stay in a core's first cache


class Plan(NamedTuple):
    """One of two strategies, and how features are divided.

    by_groups: a thread makes all the sums of a group of features, and applies them, in one parallel region. Else all
    threads make the sums by chunks of the grid in one region, and apply them in a second.
    group: features per group.
    tile: features per task of the sums; a task is one chunk of them.
    """

    by_groups: bool
    group: int
    tile: int


@helper
def make_plan(grid: Grid, itemsize: int, threads: int) -> Plan:
    feature, chunks = grid.feature, max(1, chunk_count(grid))
    fair = ceil_div(feature * chunks, threads)  # features of a task, with as many tasks as threads
    if not grid.by_column:
        fitting = GROUP_BYTES // max(1, grid.outer * grid.inner * itemsize)
        by_groups = threads == 1 or feature >= FEATURES_A_THREAD * threads
        return Plan(by_groups, max(1, min(fitting, feature // threads)), max(1, min(fair, feature, MOST_FEATURES)))
    tile = feature
    if chunks < threads and grid.columns == feature:
        tile = round_up(fair, LEAST_COLUMNS)
    return Plan(threads == 1 or (chunks == 1 and tile < feature), max(1, tile), max(1, tile))


@helper
def share(total: int, threads: int, thread: int) -> tuple[int, int]:
    """Return the first of a thread's consecutive numbers, and the first of the next thread's."""
    return total * thread // threads, total * (thread + 1) // threads


@helper
def group_share(grid: Grid, plan: Plan, threads: int, thread: int) -> tuple[int, int]:
    """Return the groups of features that a thread has to itself."""
    return share(ceil_div(grid.feature, plan.group), threads, thread)


@helper
def group_region(grid: Grid, plan: Plan, group: int) -> Region:
    """Return all the data of a group of features."""
    first = group * plan.group
    return Region(0, grid.rows, 1, first, min(grid.feature, first + plan.group), 0, grid.columns)


@helper
def task_share(grid: Grid, plan: Plan, threads: int, thread: int, features: int) -> tuple[int, int]:
    """Return a thread's tasks of the sums over a number of features."""
    return share(chunk_count(grid) * ceil_div(features, plan.tile), threads, thread)


@helper
def task_region(grid: Grid, plan: Plan, first: int, last: int, task: int) -> tuple[int, Region]:
    """Return the chunk, and the region, of one task of the sums over the features first..last."""
    chunk, tile = divmod(task, ceil_div(last - first, plan.tile))
    start = first + tile * plan.tile
    return chunk, chunk_region(grid, chunk, start, min(last, start + plan.tile))


@helper
def block_shape(grid: Grid, region: Region) -> tuple[int, int]:
    """Return the features and columns of a region's blocks: about BLOCK elements of a row; by column, of each quarter.

    Sums come out the same: blocks end where 4 rows, or 4 vectors of a run, do that are added up together.
    """
    features, columns = max(1, region.last - region.first), max(1, region.column_end - region.column)
    if grid.by_column:
        if grid.columns == grid.feature:
            features = min(features, BLOCK)
    elif columns > BLOCK:
        features, columns = 1, BLOCK
    else:
        features = min(features, BLOCK // columns)
    return features, columns


@helper
def block_count(grid: Grid, region: Region, shape: tuple[int, int]) -> int:
    features, columns = shape
    parts = ceil_div(region.last - region.first, features) * ceil_div(region.column_end - region.column, columns)
    return (region.row_end - region.row - 3 * quarter(grid, region)) * parts


@helper
def block_region(grid: Grid, region: Region, shape: tuple[int, int], block: int) -> Region:
    features, columns = shape
    rest, piece = divmod(block, ceil_div(region.column_end - region.column, columns))
    part, tile = divmod(rest, ceil_div(region.last - region.first, features))
    row, first, column = region.row + part, region.first + tile * features, region.column + piece * columns
    step = quarter(grid, region)
    if part < step:
        row_end = region.row + 4 * step
    else:  # no quarter has it
        row, step = row + 3 * step, 1
        row_end = row + 1
    return Region(
        row,
        row_end,
        step,
        first,
        min(region.last, first + features),
        column,
        min(region.column_end, column + columns),
    )
