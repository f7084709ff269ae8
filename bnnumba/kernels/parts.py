"""A thread's share of work, and the work on a region, in either layout."""

from bnnumba._jit import helper, inlined, loop, signed
from bnnumba._types import Array, Terms, Values
from bnnumba.kernels import by_column, by_run
from bnnumba.kernels.formulas import gradient_terms, input_gradient, moment_terms, new_sums, normalized
from bnnumba.kernels.grid import Grid, Region, make_grid, span_bounds, span_count
from bnnumba.kernels.plan import block_count, block_region, block_shape, plan_of, share, task_region, task_share
from bnnumba.kernels.simd import LANES, fence, line_start

# A sweep goes from last to first, as the sums before it have just brought the last into the cache, in turns of so many
# elements, or span by span. Backward of (4096, 256) is faster by 12 %, of (32, 64, 112, 112) by 14 %.
TURN = 2**17

# Data is flattened once for many regions: counting references to an array waits for all stores past the cache.


@helper
def add_moments(threads: int, thread: int, x: Array, first: int, last: int, shift: Array, partial: Array) -> None:
    """Make a thread's share of the sums of d = x - shift and d*d over the features first..last."""
    _add(moment_terms, x, x, threads, thread, first, last, shift, partial)


@helper
def add_gradients(
    threads: int, thread: int, dy: Array, x: Array, first: int, last: int, mean: Array, partial: Array
) -> None:
    """Make a thread's share of the sums of dy and dy*(x - mean) over the features first..last."""
    _add(gradient_terms, dy, x, threads, thread, first, last, mean, partial)


@helper
def add_gradients_and_scale(
    threads: int,
    thread: int,
    dy: Array,
    x: Array,
    mean: Array,
    coefficients: Array,
    past_cache: bool,
    partial: Array,
    dx: Array,
) -> None:
    """Make a thread's share of the same sums, and of dx = (dy - mean_hi)*power*scale + shift.

    Both in short turns, so that loads for the one and stores of the other overlap: on (32, 64, 56, 56) that takes 0.7
    of the time that turns of 64 KiB take. Only whole lines are stored, but where a span of memory begins or ends.
    """
    first, last = signed(0), x.shape[1]
    grid, plan = plan_of(x, threads)
    flat_dy, flat_x, flat_dx = dy.reshape(x.size), x.reshape(x.size), dx.reshape(x.size)
    tasks, end = task_share(grid, plan, threads, thread, last)
    for task in range(tasks, end):
        chunk, region = task_region(grid, plan, first, last, task)
        sums, offset = _start(x, grid, region, partial[chunk])
        ahead, shape = by_run.read_ahead(grid, region), block_shape(grid, region)
        blocks, reached = block_count(region, shape), signed(-1)
        for block in range(blocks):
            part = block_region(region, shape, block)
            place = offset + (part.first - region.first) * _sum_columns(grid)
            _reduce(gradient_terms, flat_dy, flat_x, grid, part, ahead, mean, sums, place)
            spans = span_count(grid, part)
            for span in range(spans):
                i, end = span_bounds(grid, part, span, x.size)
                follower = signed(-1)
                if span + 1 == spans and block + 1 < blocks:
                    follower = span_bounds(grid, block_region(region, shape, block + 1), signed(0), x.size)[0]
                begin = line_start(flat_dx, i) if i == reached else i
                stop = line_start(flat_dx, end) if end == follower else end  # a line that goes on is left for later
                _sweep(normalized, flat_dy, flat_dy, grid, begin, stop, coefficients, past_cache, flat_dx)
                reached = end
        _finish(x, grid, region, sums, partial[chunk])
    fence()


@helper
def scale(x: Array, grid: Grid, region: Region, coefficients: Array, past_cache: bool, y: Array) -> None:
    """Fill y = (x - mean_hi)*power*scale + shift in the region."""
    _fill(normalized, x, x, grid, region, coefficients, past_cache, y)


@helper
def scale_share(threads: int, thread: int, x: Array, coefficients: Array, past_cache: bool, y: Array) -> None:
    """Fill a thread's share of y = (x - mean_hi)*power*scale + shift."""
    _fill_share(normalized, x, x, threads, thread, coefficients, past_cache, y)


@helper
def differentiate(
    dy: Array, x: Array, grid: Grid, region: Region, coefficients: Array, past_cache: bool, dx: Array
) -> None:
    """Fill dx = (dy + (a + b*(x - mean_hi)*power))*scale*power in the region."""
    _fill(input_gradient, dy, x, grid, region, coefficients, past_cache, dx)


@helper
def differentiate_share(
    threads: int, thread: int, dy: Array, x: Array, coefficients: Array, past_cache: bool, dx: Array
) -> None:
    """Fill a thread's share of dx = (dy + (a + b*(x - mean_hi)*power))*scale*power."""
    _fill_share(input_gradient, dy, x, threads, thread, coefficients, past_cache, dx)


@inlined
def _add(
    terms: Terms,
    dy: Array,
    x: Array,
    threads: int,
    thread: int,
    first: int,
    last: int,
    shift: Array,
    partial: Array,
) -> None:
    """Make a thread's share of the sums of a and a*b, the `terms` of dy, x and shift."""
    (grid, plan), flat_dy, flat_x = plan_of(x, threads), dy.reshape(x.size), x.reshape(x.size)
    tasks, end = task_share(grid, plan, threads, thread, last - first)
    for task in range(tasks, end):
        chunk, region = task_region(grid, plan, first, last, task)
        sums, offset = _start(x, grid, region, partial[chunk])
        ahead = by_run.read_ahead(grid, region)
        _reduce(terms, flat_dy, flat_x, grid, region, ahead, shift, sums, offset)
        _finish(x, grid, region, sums, partial[chunk])


@loop
def _fill(
    values: Values, dy: Array, x: Array, grid: Grid, region: Region, coefficients: Array, past_cache: bool, out: Array
) -> None:
    """Fill the region of out with the values of dy and x."""
    flat_dy, flat_x, flat_out = dy.reshape(x.size), x.reshape(x.size), out.reshape(x.size)
    spans = span_count(grid, region)
    for turn in range(spans):
        i, end = span_bounds(grid, region, spans - 1 - turn, x.size)
        _sweep(values, flat_dy, flat_x, grid, i, end, coefficients, past_cache, flat_out)


@loop
def _fill_share(
    values: Values,
    dy: Array,
    x: Array,
    threads: int,
    thread: int,
    coefficients: Array,
    past_cache: bool,
    out: Array,
) -> None:
    """Fill a thread's share of out with the values of dy and x."""
    grid, flat_dy, flat_x, flat_out = make_grid(x.shape), dy.reshape(x.size), x.reshape(x.size), out.reshape(x.size)
    first, end = share(x.size, threads, thread)
    while first < end:
        i = max(first, line_start(flat_out, end - TURN))
        _sweep(values, flat_dy, flat_x, grid, i, end, coefficients, past_cache, flat_out)
        end = i
    fence()


# ---- either layout; arrays of data are flat


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
    terms: Terms, dy: Array, x: Array, grid: Grid, region: Region, ahead: int, shift: Array, sums: Array, place: int
) -> None:
    """Add the region's a and a*b, the `terms` of dy, x and shift, to sums, from its column `place` on."""
    if grid.by_column:
        by_column.reduce(terms, dy, x, grid, region, shift, sums, place)
    else:
        by_run.reduce(terms, dy, x, grid, region, ahead, shift, sums, place)


@helper
def _finish(x: Array, grid: Grid, region: Region, sums: Array, partial: Array) -> None:
    """Add up the sums of each feature in `partial`."""
    if not grid.by_column:
        by_run.fold_sums(x, region, sums, partial)
    elif grid.columns > grid.feature:
        by_column.fold_sums(x, grid, sums, partial)


@loop
def _sweep(
    values: Values, dy: Array, x: Array, grid: Grid, i: int, end: int, coefficients: Array, past_cache: bool, out: Array
) -> None:
    """Fill out[i : end] with the values of dy and x."""
    if grid.by_column:
        by_column.sweep(values, dy, x, grid, i, end, coefficients, past_cache, out)
    else:
        by_run.sweep(values, dy, x, grid, i, end, coefficients, past_cache, out)
