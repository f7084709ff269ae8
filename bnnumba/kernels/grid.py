"""The fixed grid of chunks that holds the partial sums.

Sums are made chunk by chunk and merged in the grid's order. The grid is a function of the canonical shape alone, so the
bits of a result depend neither on the threads nor on the path that ran.

Data is rows. By column, a row is all that follows an element of the outer axis, and each of its columns has an own sum:
channels last, and channels first with runs shorter than a vector. Where such rows are short, `fold` of them are
taken as one, so that vectors are full and loops long; a column then stands for (fold, feature, inner). By run, channels
first, a row is one feature's run of inner elements, cut where it is long.
"""

from typing import NamedTuple

from bnnumba._jit import helper, inlined
from bnnumba.kernels.simd import LANES

MAX_CHUNKS = 64
MAX_PARTIALS = 32768  # chunks x features: half a MiB of partial sums of float32 data
CHUNK = 2**16  # elements: the least that is worth a chunk, by column
RUN = 2**14  # likewise by run, of one feature; a longer run is cut
FOLDED = 256  # columns: shorter rows are folded up to this
LEAST_ROWS = 32  # of folded ones: fewer are not worth the columns' set-up
ODD_FROM = 32  # rows: longer quarters of a chunk are odd; those a power of two apart would share places in the cache


class Grid(NamedTuple):
    """A canonical shape and its chunks: row_chunks x column_chunks of them, each of chunk_rows x chunk_columns."""

    outer: int
    feature: int
    inner: int
    by_column: bool
    fold: int
    rows: int
    columns: int  # by column, of a folded row; by run, of one feature's run
    stride: int  # elements from a (folded) row's start to the next one's, each of all features
    chunk_rows: int
    chunk_columns: int
    row_chunks: int
    column_chunks: int


class Region(NamedTuple):
    """A part of the data: rows, features first..last, and, by run, columns of each feature's run.

    The rows are row..row_end; where `apart` is not 0, of each of four quarters: also those once, twice and three times
    `apart` rows behind.
    """

    row: int
    row_end: int
    apart: int
    first: int
    last: int
    column: int
    column_end: int


@helper
def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


@helper
def round_up(a: int, step: int) -> int:
    return ceil_div(a, step) * step


@helper
def make_grid(shape: tuple[int, int, int]) -> Grid:
    outer, feature, inner = _one_run(shape)
    return _divided(outer, feature, inner, inner < LANES, _fold(outer, feature * inner))


@helper
def make_weighted_grid(shape: tuple[int, int, int]) -> Grid:
    """Make the grid of sums with weights: all columns of a row have one weight, and all runs have the same weights."""
    outer, feature, inner = _one_run(shape)
    return _divided(outer, feature, inner, inner == 1, 1)


@helper
def _one_run(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape; with one feature the whole array is one run."""
    outer, feature, inner = shape
    return (1, 1, outer * inner) if feature == 1 else shape


@helper
def _divided(outer: int, feature: int, inner: int, by_column: bool, fold: int) -> Grid:
    most = max(1, min(MAX_CHUNKS, MAX_PARTIALS // max(feature, 1)))
    if by_column:
        rows, columns = ceil_div(outer, fold), fold * feature * inner
        chunk_columns, column_chunks = columns, 1
        least_rows = ceil_div(CHUNK, max(columns, 1))
    else:
        fold, rows, columns = 1, outer, inner
        pieces = min(most, ceil_div(inner, RUN))
        chunk_columns = round_up(ceil_div(inner, pieces), 4 * LANES) if pieces > 1 else inner
        column_chunks = ceil_div(inner, chunk_columns)
        least_rows = ceil_div(RUN, chunk_columns)
    rows_of_most = ceil_div(rows, max(1, most // column_chunks))
    chunk_rows = max(least_rows, rows_of_most)
    if by_column:
        quarter_rows = ceil_div(chunk_rows, 4)
        chunk_rows = 4 * (quarter_rows | 1 if quarter_rows >= ODD_FROM else quarter_rows)
    row_chunks = ceil_div(rows, chunk_rows)
    stride = fold * feature * inner
    return Grid(
        outer,
        feature,
        inner,
        by_column,
        fold,
        rows,
        columns,
        stride,
        chunk_rows,
        chunk_columns,
        row_chunks,
        column_chunks,
    )


@helper
def grid_of(grid: Grid, features: int) -> Grid:
    """Return the grid of some features that follow each other, of data that begins with the first of them."""
    columns = grid.fold * features * grid.inner if grid.by_column else grid.columns
    chunk_columns = columns if grid.by_column else grid.chunk_columns
    return Grid(
        grid.outer,
        features,
        grid.inner,
        grid.by_column,
        grid.fold,
        grid.rows,
        columns,
        grid.stride,
        grid.chunk_rows,
        chunk_columns,
        grid.row_chunks,
        grid.column_chunks,
    )


@helper
def column_repeats(grid: Grid) -> int:
    """Return how many columns each feature has: by column, of a (folded) row; by run, one."""
    return grid.fold * grid.inner if grid.by_column else 1


@helper
def _fold(outer: int, width: int) -> int:
    """Return how many rows of this width are taken as one: as many as fill whole vectors, if those are not too many."""
    if width == 0 or width >= FOLDED:
        return 1
    full = LANES // min(LANES, width & -width)
    if full * width > 4 * FOLDED:
        full = 1
    folded = max(1, FOLDED // (full * width))
    return full * max(1, min(folded, outer // (LEAST_ROWS * full)))


@helper
def chunk_count(grid: Grid) -> int:
    return grid.row_chunks * grid.column_chunks


@helper
def chunk_region(grid: Grid, chunk: int, first: int, last: int) -> Region:
    row = (chunk // grid.column_chunks) * grid.chunk_rows
    column = (chunk % grid.column_chunks) * grid.chunk_columns
    row_end = min(grid.rows, row + grid.chunk_rows)
    return Region(row, row_end, 0, first, last, column, min(grid.columns, column + grid.chunk_columns))


@helper
def run_region(region: Region, row: int, feature: int) -> Region:
    """Return one run of a region, by run."""
    return Region(row, row + 1, 0, feature, feature + 1, region.column, region.column_end)


@helper
def quarter(grid: Grid, region: Region) -> int:
    """Return the rows of a quarter of a region, by column. Up to three, and a short last row, belong to no quarter."""
    if not grid.by_column:
        return 0
    rows = min(region.row_end, grid.outer // grid.fold) - region.row
    return rows if region.apart > 0 else rows // 4


@inlined
def span_count(grid: Grid, region: Region) -> int:
    """Return how many spans of memory without a gap a region is: one, or one in each quarter, where it has whole rows.

    Of quarters, parts of rows come one row at a time.
    """
    rows, features = region.row_end - region.row, region.last - region.first
    if _cut(grid, region):
        return rows * features
    if region.apart > 0:
        return 4
    return 1 if features * grid.fold * grid.inner == grid.stride else rows


@inlined
def span_bounds(grid: Grid, region: Region, span: int, size: int) -> tuple[int, int]:
    """Where a span of a region starts and ends in flat data of this size."""
    length = grid.fold * grid.inner  # of one feature in a row
    if _cut(grid, region):
        r, f = divmod(span, region.last - region.first)
        start = (region.row + r) * grid.stride + (region.first + f) * length
        return start + region.column, start + region.column_end
    if region.apart > 0:
        row, last_row = region.row + span * region.apart, region.row_end - 1 + span * region.apart
    elif (region.last - region.first) * length == grid.stride:
        row, last_row = region.row, region.row_end - 1
    else:
        row, last_row = region.row + span, region.row + span
    return row * grid.stride + region.first * length, min(size, last_row * grid.stride + region.last * length)


@inlined
def _cut(grid: Grid, region: Region) -> bool:
    return not grid.by_column and region.column_end - region.column < grid.inner
