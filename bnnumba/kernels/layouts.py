"""Loops in either layout, by column or by run (see `grid`): nothing above asks which."""

from typing import Any

from bnnumba._jit import helper, loop, signed
from bnnumba._types import Array
from bnnumba.kernels import by_column, by_run
from bnnumba.kernels.grid import Grid, Region
from bnnumba.kernels.simd import LANES
from bnnumba.kernels.stores import Sweep
from bnnumba.kernels.sums import new_sums


@helper
def start_sums(x: Array, grid: Grid, region: Region, partial: Array) -> tuple[Array, int]:
    """Make zeros for a region's sums, and tell the place of its first: in `partial`, where a column is a feature."""
    if grid.by_column and grid.columns == grid.feature:
        partial[:, region.first : region.last] = 0.0
        return partial, region.first
    return new_sums((region.last - region.first) * sum_columns(grid), x), signed(0)


@helper
def sum_columns(grid: Grid) -> int:
    """Return how many columns of sums each feature has."""
    return grid.fold * grid.inner if grid.by_column else LANES


@loop
def add_region(inputs: Any, grid: Grid, region: Region, ahead: int, centres: Array, sums: Array, place: int) -> None:
    """Add the sums of a region's terms to `sums`, from its column `place` on."""
    if grid.by_column:
        by_column.add_region(inputs, grid, region, centres, sums, place)
    else:
        by_run.add_region(inputs, grid, region, ahead, centres, sums, place)


@helper
def finish_sums(x: Array, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
    """Add up the sums of each feature in `partial`."""
    if not grid.by_column:
        by_run.fold_sums(x, region, sums, partial)
    elif grid.columns > grid.feature:
        by_column.fold_sums(x, grid, sums, partial)


@loop
def fill(sweep: Sweep, grid: Grid, i: int, end: int, ahead: int) -> None:
    """Fill out[i : end] of a sweep."""
    if grid.by_column:
        by_column.fill(sweep, grid, i, end)
    else:
        by_run.fill(sweep, grid, i, end, ahead)
