"""How work is shared out among threads. It steers which thread does what, never a bit of the result.

Each thread takes a share of consecutive tasks, and of the data in a sweep: numbers of one, in the order of memory.
"""

from typing import NamedTuple

from bnnumba._jit import helper
from bnnumba.kernels.grid import (
    Grid,
    Region,
    ceil_div,
    chunk_count,
    chunk_region,
    column_repeats,
    grid_of,
    quarter,
    round_up,
)

GROUP_BYTES = 2**18  # of one array: a group's x, dy and result stay in a core's own cache
BLOCK = 1024  # elements: read for the sums and stored past the cache in such short turns, both overlap
ROWS_BLOCK = 4096  # the same of whole rows by column, in each quarter: 4 rows of 64 at a time took up to twice as long
MOST_SPANS = 4  # of memory in a block: one of each quarter
LEAST_COLUMNS = 64  # a narrower part of a row would defeat the prefetcher
STRIP = 2048  # columns of a group: sums and coefficients of more would not stay in cache
WIDE = 2 * STRIP
FEATURES_A_THREAD = 4  # fewer could not be shared evenly
MOST_FEATURES = 64  # by run: the lanes of their sums stay in a core's first cache


class Plan(NamedTuple):
    """One of two strategies, and how features are divided.

    by_groups: a thread makes all the sums of a group of features, and applies them, in one parallel region. Else all
    threads make the sums by chunks of the grid in one region, and apply them in a second.
    wide: features are so many, and rows so few, that sums alone and results alone are made by groups, too: what is
    made for each feature would take as long as the data, and would leave the cache.
    group: features per group.
    tile: features per task of the sums; a task is one chunk of them.
    """

    by_groups: bool
    wide: bool
    group: int
    tile: int


@helper
def make_plan(grid: Grid, itemsize: int, threads: int) -> Plan:
    feature, chunks = grid.feature, max(1, chunk_count(grid))
    fair = ceil_div(feature * chunks, threads)  # features of a task, with as many tasks as threads
    if not grid.by_column:
        fitting = GROUP_BYTES // max(1, grid.outer * grid.inner * itemsize)
        by_groups = threads == 1 or feature >= FEATURES_A_THREAD * threads
        return Plan(
            by_groups, False, max(1, min(fitting, feature // threads)), max(1, min(fair, feature, MOST_FEATURES))
        )
    tile = group = feature
    if column_repeats(grid) == 1:
        if chunks < threads:
            tile = round_up(fair, LEAST_COLUMNS)
        if chunks == 1:
            group = min(feature, round_up(ceil_div(tile, max(1, ceil_div(tile, STRIP))), LEAST_COLUMNS))
    groups = group < feature
    return Plan(threads == 1 or groups, groups and feature >= WIDE, max(1, group), max(1, tile))


@helper
def share(total: int, threads: int, thread: int) -> tuple[int, int]:
    """Return the first of a thread's consecutive numbers, and the first of the next thread's."""
    return total * thread // threads, total * (thread + 1) // threads


@helper
def group_share(grid: Grid, plan: Plan, threads: int, thread: int) -> tuple[int, int]:
    """Return the groups of features that a thread has to itself."""
    return share(ceil_div(grid.feature, plan.group), threads, thread)


@helper
def group_grid(grid: Grid, plan: Plan, group: int) -> tuple[int, Grid]:
    """Return the first feature of a group, and the grid of the group's data."""
    first = group * plan.group
    return first, grid_of(grid, min(plan.group, grid.feature - first))


@helper
def task_share(grid: Grid, plan: Plan, threads: int, thread: int) -> tuple[int, int]:
    """Return a thread's tasks of the sums."""
    return share(chunk_count(grid) * ceil_div(grid.feature, plan.tile), threads, thread)


@helper
def task_region(grid: Grid, plan: Plan, task: int) -> tuple[int, Region]:
    """Return the chunk, and the region, of one task of the sums."""
    chunk, tile = divmod(task, ceil_div(grid.feature, plan.tile))
    first = tile * plan.tile
    return chunk, chunk_region(grid, chunk, first, min(grid.feature, first + plan.tile))


class Block(NamedTuple):
    """The size of a region's blocks: rows, of each quarter by column, of so many features and columns."""

    rows: int
    features: int
    columns: int


@helper
def block_shape(grid: Grid, region: Region) -> Block:
    """Return blocks of about BLOCK elements; by column, of each quarter.

    Sums come out the same: blocks end where 4 rows, or 4 vectors of a run, do that are added up together.
    """
    features, columns = max(1, region.last - region.first), max(1, region.column_end - region.column)
    if not grid.by_column:
        return Block(1, 1, BLOCK) if columns > BLOCK else Block(1, min(features, BLOCK // columns), columns)
    if grid.columns == grid.stride and features == grid.feature and grid.columns <= ROWS_BLOCK:
        return Block(ROWS_BLOCK // max(1, grid.columns), features, columns)
    return Block(1, min(features, BLOCK) if grid.columns == grid.feature else features, columns)


@helper
def block_count(grid: Grid, region: Region, shape: Block) -> int:
    parts = ceil_div(region.last - region.first, shape.features) * ceil_div(
        region.column_end - region.column, shape.columns
    )
    rows = quarter(grid, region)
    return (ceil_div(rows, shape.rows) + region.row_end - region.row - 4 * rows) * parts


@helper
def block_region(grid: Grid, region: Region, shape: Block, block: int) -> Region:
    """Return a block: first those of the quarters, then the rows that belong to none, one by one."""
    rest, piece = divmod(block, ceil_div(region.column_end - region.column, shape.columns))
    part, tile = divmod(rest, ceil_div(region.last - region.first, shape.features))
    first, column = region.first + tile * shape.features, region.column + piece * shape.columns
    apart = quarter(grid, region)
    parts = ceil_div(apart, shape.rows)
    if part < parts:
        row = region.row + part * shape.rows
        row_end = min(region.row + apart, row + shape.rows)
    else:
        row = region.row + 4 * apart + part - parts
        row_end, apart = row + 1, 0
    return Region(
        row,
        row_end,
        apart,
        first,
        min(region.last, first + shape.features),
        column,
        min(region.column_end, column + shape.columns),
    )
