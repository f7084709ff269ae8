"""One region of work in either layout, and the merging of the chunks' partial sums."""

import numpy as np

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Terms
from bnnumba.kernels import channels_first, channels_last
from bnnumba.kernels.formulas import FLOAT32, accumulate, reciprocal_std
from bnnumba.kernels.grid import Region, chunk_count, make_grid
from bnnumba.kernels.plan import reduce_region
from bnnumba.kernels.simd import LANES, fence, fma, load, store

# The shift is the mean of a few samples. It is too far from the mean of all where (mean - shift)**2 > FAR * var: the
# relative error of var is about (1 + FAR) * 2**-53; float64 data is promised 4 * 2**-53, float32 data 4 * 2**-24.
# With 16 samples that happens to one feature in 10**4.
SAMPLES_64, FAR_64 = 16, 1.0
SAMPLES_32, FAR_32 = 4, 2.0**20


@inlined
def reduce_task(
    terms: Terms,
    dy: Array,
    x: Array,
    threads: int,
    first: int,
    last: int,
    task: int,
    shift: Array,
    partial: Array,
) -> Region:
    """Make one task of the sums of a and a*b, the `terms` of dy, x and shift, and return its region."""
    grid = make_grid(x.shape)
    chunk, region = reduce_region(x, threads, first, last, task)
    if grid.inner == 1:
        channels_last.reduce(terms, dy.reshape(x.size), x.reshape(x.size), grid, region, shift[0], partial[chunk])
    else:
        channels_first.reduce(terms, dy.reshape(x.size), x.reshape(x.size), grid, region, shift[0], partial[chunk])
    return region


@helper
def scale(x: Array, region: Region, coefficients: Array, past_cache: bool, y: Array) -> None:
    """Fill y = (x - mean_hi)*power*scale + shift in the region."""
    grid = make_grid(x.shape)
    flat, result = x.reshape(x.size), y.reshape(x.size)
    if grid.inner == 1:
        channels_last.scale(flat, grid, region, coefficients, past_cache, result)
    else:
        channels_first.scale(flat, grid, region, coefficients, past_cache, result)
    fence()


@helper
def differentiate(dy: Array, x: Array, region: Region, coefficients: Array, past_cache: bool, dx: Array) -> None:
    """Fill dx = (dy + (a + b*(x - mean_hi)*power))*scale*power in the region."""
    grid = make_grid(x.shape)
    flat_dy, flat_x, result = dy.reshape(x.size), x.reshape(x.size), dx.reshape(x.size)
    if grid.inner == 1:
        channels_last.differentiate(flat_dy, flat_x, grid, region, coefficients, past_cache, result)
    else:
        channels_first.differentiate(flat_dy, flat_x, grid, region, coefficients, past_cache, result)
    fence()


@helper
def new_shift(x: Array) -> Array:
    grid = make_grid(x.shape)
    return np.empty((2, grid.fold * grid.feature))


@helper
def new_partial(x: Array) -> Array:
    """Make room for every chunk's sums of a and of a*b, and the excess of each (see `accumulate`), per feature."""
    grid = make_grid(x.shape)
    return np.empty((chunk_count(grid), 4, grid.feature))


@helper
def new_coefficients(x: Array) -> Array:
    """Make room for up to 5 coefficients per column, and one vector more: the first columns again, for a wrap."""
    grid = make_grid(x.shape)
    return np.empty((5, grid.fold * grid.feature + LANES), x.dtype)


@helper
def repeat(rows: Array, x: Array, first: int, last: int) -> None:
    """Where all of x's features are there, copy them over the columns that follow."""
    feature = x.shape[1]
    if last - first == feature:
        for row in rows:
            for c in range(feature, row.size):
                row[c] = row[c - feature]


@helper
def sample_shift(x: Array, first: int, last: int, shift: Array) -> None:
    """Put in shift[0] a value near each feature's mean: the mean of a few elements, spread evenly over the data.

    It is the first of them plus the mean of their differences to it, so that equal elements give it exactly.
    """
    outer, _, inner = x.shape
    taken = min(SAMPLES_32 if x.dtype == FLOAT32 else SAMPLES_64, outer * inner)
    for f in range(first, last):
        shift[0, f] = x[0, f, 0]
        shift[1, f] = 0.0
    for k in range(1, taken):
        o, i = divmod(k * (outer * inner) // taken, inner)
        for f in range(first, last):
            shift[1, f] += np.float64(x[o, f, i]) - shift[0, f]
    for f in range(first, last):
        shift[0, f] += shift[1, f] / taken


@helper
def merge(partial: Array, x: Array, first: int, last: int) -> None:
    """Add up the chunks of each feature of x, in the grid's order, into partial[0]."""
    chunks, _, feature = partial.shape
    flat = partial.reshape(partial.size)
    for k in range(2):
        for f in range(first, last, LANES):
            n = min(LANES, last - f)
            i, j = k * feature + f, (2 + k) * feature + f
            total, excess = load(flat, i, n), load(flat, j, n)
            for chunk in range(1, chunks):
                start = 4 * chunk * feature
                total, excess = accumulate(total, excess + load(flat, start + j, n), load(flat, start + i, n), x)
            store(flat, i, n, total)
            store(flat, j, n, excess)


@helper
def finish_moments(x: Array, first: int, last: int, shift: Array, partial: Array, mean: Array, var: Array) -> bool:
    """Turn the sums of d = x - shift and d*d into mean and var.

    Where the shift was so far from the mean that var lost digits, put the mean in its place and return True: the sums
    must be made again.
    """
    merge(partial, x, first, last)
    count = x.shape[0] * x.shape[2]
    far = FAR_32 if x.dtype == FLOAT32 else FAR_64
    again = False
    for f in range(first, last):
        sum_d, sum_dd, excess_dd = partial[0, 0, f], partial[0, 1, f], partial[0, 3, f]
        distance = sum_d / count
        mean[f] = shift[0, f] + distance
        square = distance * sum_d
        rest = fma(distance, sum_d, -square) + excess_dd
        var[f] = max(((sum_dd - square) - rest) / count, 0.0)
        if not np.isfinite(sum_d):
            mean[f] = var[f] = np.nan
        elif distance * distance > far * var[f]:
            shift[0, f] = mean[f]
            again = True
    return again


@helper
def finish_gradients(
    x: Array, first: int, last: int, partial: Array, var: Array, epsilon: float, dgamma: Array, dbeta: Array
) -> None:
    """Turn the sums of dy and dy*(x - mean) into dbeta and dgamma."""
    merge(partial, x, first, last)
    for f in range(first, last):
        dbeta[f] = partial[0, 0, f]
        dgamma[f] = partial[0, 1, f] * reciprocal_std(var[f], epsilon)
