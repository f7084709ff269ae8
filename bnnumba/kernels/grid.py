"""The fixed grid of chunks that holds the partial sums.

Sums are made chunk by chunk and merged in the grid's order. The grid is a function of the canonical shape alone, so the
bits of a result depend neither on the threads nor on the path that ran.

Channels last (inner = 1), data is rows of features. Where they are few, `fold` rows are taken as one long row, so that
vectors are full; its columns are then (fold, feature). Channels first, a row is a run of inner elements per feature.
"""

from typing import NamedTuple

from bnnumba._jit import helper
from bnnumba.kernels.simd import LANES

MAX_CHUNKS = 64
MAX_PARTIALS = 32768  # chunks x features: 1 MiB of partial sums
ROW_VECTORS = 4  # channels last, rows shorter than this many vectors are folded
CHUNK_VECTORS = 128  # the least that is worth a chunk, in vectors of one feature or of one column
RUN = 16384  # channels first, a longer run is cut


class Grid(NamedTuple):
    """A canonical shape and its chunks: row_chunks x column_chunks of them, each of chunk_rows x chunk_columns."""

    outer: int
    feature: int
    inner: int
    fold: int
    rows: int
    columns: int  # channels last, of a folded row; channels first, of one feature's run
    chunk_rows: int
    chunk_columns: int
    row_chunks: int
    column_chunks: int


class Region(NamedTuple):
    """A part of the data: rows, features first..last, and, channels first, columns of each feature's run."""

    row: int
    row_end: int
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
    outer, feature, inner = shape
    if feature == 1:  # one run, however its elements were numbered
        outer, inner = 1, outer * inner
    most = max(1, min(MAX_CHUNKS, MAX_PARTIALS // max(feature, 1)))
    fold = _fold(feature) if inner == 1 else 1
    rows = ceil_div(outer, fold)
    columns = fold * feature if inner == 1 else inner
    chunk_columns, least_rows = columns, CHUNK_VECTORS
    if inner > 1:
        pieces = min(most, ceil_div(inner, RUN))
        if pieces > 1:
            chunk_columns = round_up(ceil_div(inner, pieces), 4 * LANES)
        least_rows = ceil_div(CHUNK_VECTORS, ceil_div(chunk_columns, LANES))
    column_chunks = ceil_div(columns, max(1, chunk_columns))
    chunk_rows = max(
        least_rows, round_up(ceil_div(rows, max(1, most // max(1, column_chunks))), 4 if inner == 1 else 1)
    )
    return Grid(
        outer, feature, inner, fold, rows, columns, chunk_rows, chunk_columns, ceil_div(rows, chunk_rows), column_chunks
    )


@helper
def _fold(feature: int) -> int:
    if feature >= ROW_VECTORS * LANES or feature == 0:
        return 1
    full = LANES // min(LANES, feature & -feature)  # the fewest rows that fill whole vectors
    return full * max(1, ROW_VECTORS * LANES // (full * feature))


@helper
def chunk_count(grid: Grid) -> int:
    return grid.row_chunks * grid.column_chunks


@helper
def chunk_region(grid: Grid, chunk: int, first: int, last: int) -> Region:
    row = (chunk // grid.column_chunks) * grid.chunk_rows
    column = (chunk % grid.column_chunks) * grid.chunk_columns
    row_end = min(grid.rows, row + grid.chunk_rows)
    return Region(row, row_end, first, last, column, min(grid.columns, column + grid.chunk_columns))


@helper
def span_count(grid: Grid, region: Region) -> int:
    """Return how many spans of memory without a gap a channels-last region is: one, where it has whole rows."""
    return 1 if region.last - region.first == grid.feature else region.row_end - region.row


@helper
def span_bounds(grid: Grid, region: Region, span: int, size: int) -> tuple[int, int, int]:
    """Where a span of a channels-last region starts and ends in flat data of this size, and its first column."""
    first_row, last_row = region.row + span, region.row + span
    if span_count(grid, region) == 1:
        last_row = region.row_end - 1
    column, column_end = region.first * grid.fold, region.last * grid.fold
    return first_row * grid.columns + column, min(size, last_row * grid.columns + column_end), column


@helper
def wrap(column: int, grid: Grid) -> int:
    """The column after a row's last is the next row's first."""
    return column - grid.columns if column >= grid.columns else column
