"""Per-feature work before and after the loops over data: shifts, merged sums, moments and gradients."""

import numpy as np

from bnnumba._jit import helper
from bnnumba._types import Array, Arrays, Vector
from bnnumba.kernels.formulas import (
    accumulate,
    get_sums,
    normalize_coefficients,
    power_of_two,
    put_row,
    put_sums,
    reciprocal_std,
)
from bnnumba.kernels.grid import Grid, chunk_count
from bnnumba.kernels.simd import (
    LANES,
    any_lane,
    choose,
    double,
    element,
    equal,
    fma,
    is_double,
    less,
    load,
    narrow,
    new_values,
    splat,
    store,
)

# The shift is the mean of a few samples. It is too far from the mean of all where (mean - shift)**2 > FAR * var. Then
# float32 data's var would be off by about (1 + FAR) * 2**-53 of it, where 4 * 2**-24 is promised, and float64 data's
# mean, and with it y, by sqrt(FAR) * 2**-53 of the standard deviation. With 16 samples that happens to one feature in
# 10**4.
SAMPLES_64, FAR_64 = 16, 1.0
SAMPLES_32, FAR_32 = 1, 2.0**20


@helper
def new_features(x: Array) -> tuple[Array, Array]:
    """Make two arrays with an element for each feature."""
    return np.empty(x.shape[1]), np.empty(x.shape[1])


@helper
def new_shift(grid: Grid) -> Array:
    """Make room for the shift of every column; the other rows are not read."""
    return np.empty((4, grid.feature * column_repeats(grid)))


@helper
def new_centres(grid: Grid, x: Array) -> Array:
    """Make room for mean_hi and power of every column; and for scale and shift, where a ReLU's result is made again."""
    return new_values((4, grid.feature * column_repeats(grid)), x)


@helper
def new_partial(grid: Grid, x: Array) -> Array:
    """Make room for every chunk's sums of a and of a*b, and the excess of each (see `accumulate`), per feature."""
    return np.empty((chunk_count(grid), 4 if is_double(x) else 2, grid.feature))


@helper
def new_coefficients(grid: Grid, x: Array) -> Array:
    """Make room for up to 6 coefficients per column, and one vector more: the first columns again."""
    return new_values((6, grid.feature * column_repeats(grid) + LANES), x)


@helper
def column_repeats(grid: Grid) -> int:
    """Return how many columns each feature has."""
    return grid.fold * grid.inner if grid.by_column else 1


@helper
def to_columns(row: Array, grid: Grid, first: int, last: int) -> None:
    """Give each feature's value in row[first:last] to all its columns, and the first columns' to those past the end.

    Features have one column each where a thread has not all of them.
    """
    if not grid.by_column or last - first < grid.feature:
        return
    if grid.inner > 1:
        for f in range(grid.feature - 1, -1, -1):
            for i in range(grid.inner):
                row[f * grid.inner + i] = row[f]
    period = grid.feature * grid.inner
    step = LANES if period >= LANES else 1
    for c in range(period, row.size, step):
        n = min(step, row.size - c)
        store(row, c, n, load(row, c - period, n))


@helper
def shift_by(values: Array, grid: Grid, first: int, last: int, shift: Array) -> None:
    """Make the values of the features first..last the shift of all their columns."""
    row = shift[0]
    for f in range(first, last):
        row[f] = values[f]
    to_columns(row, grid, first, last)


@helper
def centre_by(
    mean: Array, var: Array, affine: Arrays, epsilon: float, grid: Grid, first: int, last: int, centres: Array
) -> None:
    """Make mean_hi, and the power of two of rstd, the centres of all columns of the features first..last.

    affine: gamma and beta, where a ReLU's result is made again, for which their coefficients go into further rows.
    """
    if len(affine) > 0:
        normalize_coefficients(mean, var, affine[0], affine[1], epsilon, first, last, centres)
    else:
        for f in range(first, last, LANES):
            n = min(LANES, last - f)
            put_row(centres, 0, f, n, load(mean, f, n))
            put_row(centres, 1, f, n, power_of_two(reciprocal_std(load(var, f, n), epsilon), centres))
    coefficients_to_columns(centres, grid, first, last)


@helper
def coefficients_to_columns(coefficients: Array, grid: Grid, first: int, last: int) -> None:
    for row in coefficients:
        to_columns(row, grid, first, last)


@helper
def sample_positions(x: Array) -> Array:
    """Make the numbers of a few positions, spread evenly over the data."""
    count = x.shape[0] * x.shape[2]
    taken = min(SAMPLES_64 if is_double(x) else SAMPLES_32, count)
    positions: Array = np.arange(taken) * count // taken
    return positions


@helper
def sample_weighted_positions(x: Array, weights: Array) -> Array:
    """Make the same, but each the next that has a weight; there must be one."""
    positions, inner = sample_positions(x), x.shape[2]
    for k in range(positions.size):
        while weights[positions[k] // inner, 0, positions[k] % inner] == 0.0:
            positions[k] = (positions[k] + 1) % weights.size
    return positions


@helper
def sample_means(x: Array, positions: Array, first: int, last: int, near: Array, rest: Array) -> None:
    """Put in `near` a value near each feature's mean: the mean of the elements at some positions.

    It is the first of them plus the mean of their differences to it, so that equal elements give it exactly.
    """
    _, feature, inner = x.shape
    for k in range(positions.size):
        o, i = divmod(positions[k], inner)
        for f in range(first, last):
            value = element(x, (o * feature + f) * inner + i)
            if k == 0:
                near[f], rest[f] = value, 0.0
            else:
                rest[f] += value - near[f]
    for f in range(first, last):
        near[f] += rest[f] / positions.size


@helper
def merge(partial: Array, x: Array, first: int, last: int) -> None:
    """Add up the chunks of each feature of x, in the grid's order, into partial[0]."""
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        sum_a, sum_ab, excess_a, excess_ab = get_sums(partial[0], f, n, x)
        for chunk in range(1, partial.shape[0]):
            a, ab, less_a, less_ab = get_sums(partial[chunk], f, n, x)
            sum_a, excess_a = accumulate(sum_a, excess_a, a, less_a, x)
            sum_ab, excess_ab = accumulate(sum_ab, excess_ab, ab, less_ab, x)
        put_sums(partial[0], f, n, (sum_a, sum_ab, excess_a, excess_ab), x)


@helper
def finish_moments(
    x: Array, reduced: float, first: int, last: int, near: Array, partial: Array, mean: Array, var: Array, rest: Array
) -> bool:
    """Turn the sums of d = x - near and d*d over so many values, or with weights that add up to it, into mean and var.

    `rest` takes what rounding took from the mean.
    Where `near` was so far from the mean that var lost digits, put the mean there and return True: the sums must be
    made again.
    """
    merge(partial, x, first, last)
    count, zero, nan = splat(reduced), splat(0.0), splat(np.nan)
    far = splat(FAR_64 if is_double(x) else FAR_32)
    again = False
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        total_d, sum_dd, excess_d, excess_dd = get_sums(partial[0], f, n, x)
        sum_d: Vector = total_d - excess_d
        excess_d = (sum_d - total_d) + excess_d
        distance: Vector = sum_d / count
        centre: Vector = load(near, f, n) + distance
        # sum_dd - sum_d**2/count and its quotient by count, each with what its rounding takes.
        square = distance * sum_d
        missing = fma(zero - distance, count, sum_d) - excess_d
        excess: Vector = excess_dd + fma(distance, sum_d, zero - square) + distance * (missing - excess_d)
        squares, excess = accumulate(sum_dd, excess, zero - square, zero, partial)
        quotient: Vector = (squares - excess) / count
        spread: Vector = quotient + (fma(zero - quotient, count, squares) - excess) / count
        spread = choose(less(spread, zero), zero, spread)
        finite = equal(sum_d - sum_d, zero)
        centre, spread = choose(finite, centre, nan), choose(finite, spread, nan)
        _, less_mean = accumulate(load(near, f, n), zero, distance, zero, partial)
        store(rest, f, n, missing / count - less_mean)
        too_far = less(far * spread, distance * distance)
        store(near, f, n, choose(too_far, centre, load(near, f, n)))
        again = again or any_lane(too_far)
        store(mean, f, n, centre)
        store(var, f, n, spread)
    return again


@helper
def finish_gradients(
    x: Array,
    first: int,
    last: int,
    partial: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Turn the sums of dy and dy*(x - mean_hi)*power into dbeta and dgamma."""
    merge(partial, x, first, last)
    for f in range(first, last, LANES):
        n = min(LANES, last - f)
        sum_dy, sum_product, excess_dy, excess_product = get_sums(partial[0], f, n, x)
        total: Vector = sum_dy - excess_dy
        rstd, means = reciprocal_std(load(var, f, n), epsilon), load(mean, f, n)
        power, mean_lo = power_of_two(rstd, x), means - double(narrow(means, x))
        store(dbeta, f, n, total)
        store(dgamma, f, n, ((sum_product - excess_product) - mean_lo * power * total) * (rstd / power))
