"""Per-feature work before and after the loops over data: pivots, merged sums, moments and gradients."""

from typing import Any, NamedTuple

import numpy as np

from bnnumba._jit import either, helper, inlined, loop, method
from bnnumba._types import Array, Vector
from bnnumba.kernels.coefficients import (
    Gradients,
    Statistics,
    put,
    put_again,
    put_centres,
    put_forward,
    put_frozen,
    reciprocal_std,
    sum_power,
    x_power,
)
from bnnumba.kernels.extremes import large, resum, scale_dy, small
from bnnumba.kernels.formulas import Backward, Forward, Frozen, Residual
from bnnumba.kernels.grid import Grid, column_repeats
from bnnumba.kernels.shares import Sums, sum_share
from bnnumba.kernels.simd import (
    LANES,
    any_lane,
    binade,
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
from bnnumba.kernels.sums import accumulate, get_sums, put_sums
from bnnumba.kernels.threads import EachThread

# The pivot is the mean of a few samples. It is too far from the mean of all where (mean - pivot)**2 > FAR * var. Then
# float32 data's var would be off by about (1 + FAR) * 2**-53 of it, where 4 * 2**-24 is promised, and float64 data's
# mean, and with it y, by sqrt(FAR) * 2**-53 of the standard deviation. With 16 samples that happens to one feature in
# 10**4.
SAMPLES_64, FAR_64 = 16, 1.0
SAMPLES_32, FAR_32 = 1, 2.0**20


# Rows of coefficients, the first and the one behind the last: of sums, and where they make y again; of y; of dx.
CENTRES, WITH_Y, FORWARD, BACKWARD, NONE = (0, 2), (0, 5), (1, 5), (0, 9), (0, 0)


class Samples(NamedTuple):
    """The numbers of a few positions, and their weights; and the number of values per feature, or of all weights."""

    positions: Array
    weights: Array
    number: float


class Results(NamedTuple):
    """The moments of every feature.

    rest: what rounding took from the mean; None where that is not wanted. counts: None where all have the same count.
    """

    mean: Array
    var: Array
    rest: Any
    counts: Any


# ---- room for what each column has: by column, one of each element of a (folded) row; by run, one of each feature


@helper
def new_pivots(grid: Grid) -> Array:
    """Make room for a pivot, in one row."""
    return np.empty((1, grid.feature * column_repeats(grid)))


@helper
def new_coefficients(grid: Grid, x: Array, rows: tuple[int, int]) -> Array:
    """Make room for the coefficients up to the last of some rows; and for one vector more: the first columns again.

    No more, since C's library returns what is very large to the system, and to get it anew takes longer than to use it.
    """
    return new_values((rows[1], grid.feature * column_repeats(grid) + LANES), x)


@helper
def to_columns(row: Array, grid: Grid) -> None:
    """Give each feature's value to all its columns, and the first columns' to those past the end."""
    if not grid.by_column:
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
def to_all_columns(coefficients: Array, rows: tuple[int, int], grid: Grid) -> None:
    """Give the values of some rows, the first and the one behind the last, to all columns."""
    for row in coefficients[rows[0] : rows[1]]:
        to_columns(row, grid)


@helper
def centres_of(statistics: Statistics, grid: Grid, x: Array) -> Array:
    """Make the centres of all columns."""
    centres = new_coefficients(grid, x, BACKWARD)
    put_centres(statistics.beta, statistics, grid.feature, centres)
    to_all_columns(centres, CENTRES if statistics.beta is None else WITH_Y, grid)
    return centres


# ---- what a result's coefficients are made of


class ByMoments(NamedTuple):
    """y's: the moments, gamma and beta."""

    statistics: Statistics

    @helper
    def coefficients(self, inputs: Forward, grid: Grid) -> Array:
        """Make the coefficients of all columns."""
        out = new_coefficients(grid, inputs.x, FORWARD)
        put_forward(self.statistics, grid.feature, out)
        to_all_columns(out, FORWARD, grid)
        return out


class ByGradients(NamedTuple):
    """dx's: those, and the gradient sums."""

    statistics: Statistics
    gradients: Gradients

    @helper
    def coefficients(self, inputs: Backward, grid: Grid) -> Array:
        """Make the coefficients of all columns."""
        out = new_coefficients(grid, inputs.x, BACKWARD)
        put_backward(inputs, self.statistics, self.gradients, grid.feature, out)
        to_all_columns(out, BACKWARD, grid)
        return out


class ByScale(NamedTuple):
    """The frozen dx's: gamma and the variance."""

    statistics: Statistics

    @helper
    def coefficients(self, inputs: Frozen, grid: Grid) -> Array:
        """Make the coefficients of all columns."""
        out = new_coefficients(grid, inputs.dy, FORWARD)
        put_frozen(self.statistics, grid.feature, out)
        to_all_columns(out, FORWARD, grid)
        return out


class ByNothing(NamedTuple):
    """dresidual's: it has none."""

    @helper
    def coefficients(self, inputs: Residual, grid: Grid) -> Array:
        """Make none."""
        return new_coefficients(grid, inputs.dy, NONE)


# ---- moments


@helper
def samples(x: Array) -> Samples:
    """Choose a few positions, spread evenly over the data."""
    count = x.shape[0] * x.shape[2]
    taken = min(SAMPLES_64 if is_double(x) else SAMPLES_32, count)
    positions, weights = np.empty(taken, np.int64), np.empty(taken)
    for k in range(taken):
        positions[k], weights[k] = k * count // taken, 1.0
    return Samples(positions, weights, float(count))


@helper
def weighted_samples(x: Array, weights: Array, total: float) -> Samples:
    """Choose of as many parts of the data the positions of most weight, that of the most in all first.

    So (pivot - mean)**2 <= var * the number of positions, whatever lies where next to nothing counts. total: the sum of
    all weights.
    """
    positions, most, _ = samples(x)
    taken, first = positions.size, 0
    for k in range(taken):
        end = positions[k + 1] if k + 1 < taken else weights.size
        most[k] = 0.0
        for position in range(positions[k], end):
            weight = element(weights, position)
            if weight > most[k]:
                positions[k], most[k] = position, weight
        if most[k] > most[first]:
            first = k
    positions[0], positions[first] = positions[first], positions[0]
    most[0], most[first] = most[first], most[0]
    return Samples(positions, most, total)


@helper
def _new_rest(absent: None, features: int) -> Array:
    return np.empty(features)


@helper
def _given_rest(rest: Array, features: int) -> Array:
    return rest


rest_of = either(_new_rest, _given_rest)


@helper
def _no_counts(inputs: Any, partial: Array, counts: None) -> None:
    pass


@loop
def _same_count(absent: None, number: float, f: int, n: int) -> Vector:
    return splat(number)


@loop
def _own_count(counts: Array, number: float, f: int, n: int) -> Vector:
    return load(counts, f, n)


put_counts = method("merge_counts", _no_counts)
count_of = either(_same_count, _own_count)


@inlined
def sum_moments(each: EachThread, threads: int, sums: Sums, taken: Samples, results: Results) -> None:
    """Fill the moments of all features; sum twice, where the pivot turns out to be far from the mean."""
    grid, features = sums.grid, sums.grid.feature
    pivot, rest = np.empty(features), rest_of(results.rest, features)
    put_pivots(sums.inputs, taken, pivot, rest)
    for _ in range(2):
        row = sums.centres[0]
        for f in range(features):
            row[f] = pivot[f]
        to_columns(row, grid)
        each(sum_share, threads, (sums, None))
        put_counts(sums.inputs, sums.partial, results.counts)
        if not _finish_moments(sums, taken.number, pivot, Results(results.mean, results.var, rest, results.counts)):
            break


@helper
def _sample_means(inputs: Any, taken: Samples, pivot: Array, rest: Array) -> None:
    """Put in `pivot` a value near each feature's mean: the mean of the samples.

    It is the first of them plus the mean of their differences to it, so that equal elements give it exactly.
    """
    x, weights = inputs.x, 0.0
    _, feature, inner = x.shape
    for k in range(taken.positions.size):
        o, i = divmod(taken.positions[k], inner)
        weight = taken.weights[k]
        weights += weight
        for f in range(pivot.size):
            if k == 0:
                pivot[f], rest[f] = element(x, (o * feature + f) * inner + i), 0.0
            elif weight != 0.0:
                rest[f] += weight * (element(x, (o * feature + f) * inner + i) - pivot[f])
    for f in range(pivot.size):
        pivot[f] += rest[f] / weights


put_pivots = method("pivots", _sample_means)


@helper
def _merge(partial: Array, x: Array) -> None:
    """Add up the chunks of each feature of x, in the grid's order, into partial[0]."""
    for f in range(0, partial.shape[2], LANES):
        n = min(LANES, partial.shape[2] - f)
        sum_a, sum_ab, excess_a, excess_ab = get_sums(partial[0], f, n, x)
        for chunk in range(1, partial.shape[0]):
            a, ab, less_a, less_ab = get_sums(partial[chunk], f, n, x)
            sum_a, excess_a = accumulate(sum_a, excess_a, a, less_a, x)
            sum_ab, excess_ab = accumulate(sum_ab, excess_ab, ab, less_ab, x)
        put_sums(partial[0], f, n, (sum_a, sum_ab, excess_a, excess_ab), x)


@helper
def _finish_moments(sums: Sums, number: float, pivot: Array, results: Results) -> bool:
    """Turn the sums of d = x - pivot and d*d into moments. number: of values per feature, or the sum of the weights.

    Where the pivot was so far from the mean that var lost digits, put the mean there and return True: the sums must be
    made again.
    """
    x, partial = sums.inputs.x, sums.partial
    mean, var, rest, counts = results
    _merge(partial, x)
    zero, nan = splat(0.0), splat(np.nan)
    far = splat(FAR_64 if is_double(x) else FAR_32)
    again = False
    for f in range(0, pivot.size, LANES):
        n = min(LANES, pivot.size - f)
        count = count_of(counts, number, f, n)
        total_d, sum_dd, excess_d, excess_dd = get_sums(partial[0], f, n, x)
        sum_d: Vector = total_d - excess_d
        excess_d = (sum_d - total_d) + excess_d
        distance: Vector = sum_d / count
        centre: Vector = load(pivot, f, n) + distance
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
        _, less_mean = accumulate(load(pivot, f, n), zero, distance, zero, partial)
        store(rest, f, n, missing / count - less_mean)
        too_far = less(far * spread, distance * distance)
        store(pivot, f, n, choose(too_far, centre, load(pivot, f, n)))
        again = again or any_lane(too_far)
        store(mean, f, n, centre)
        store(var, f, n, spread)
    return again


# ---- gradients


@helper
def finish_gradients(sums: Sums, statistics: Statistics, gradients: Gradients, of_x: bool) -> None:
    """Turn the sums of dy and dy*(x - mean_hi)*x_power into dbeta and dgamma. of_x: whether the moments are x's."""
    x, partial, features = sums.inputs.x, sums.partial, sums.grid.feature
    mean, var = statistics.mean, statistics.var
    dgamma, dbeta = gradients
    _merge(partial, x)
    for f in range(0, features, LANES):
        n = min(LANES, features - f)
        sum_dy, sum_product, excess_dy, excess_product = get_sums(partial[0], f, n, x)
        total: Vector = sum_dy - excess_dy
        product: Vector = sum_product - excess_product
        variance, means = load(var, f, n), load(mean, f, n)
        rstd, mean_lo = reciprocal_std(variance, statistics.epsilon), means - double(narrow(means, x))
        power = sum_power(variance, rstd, statistics.epsilon, x)
        store(dbeta, f, n, total)
        store(dgamma, f, n, (product - mean_lo * power * total) * (rstd / power))
        if any_lane(small(product, x.shape[0] * x.shape[2], x)) or any_lane(large(binade(product) + binade(total), x)):
            resum(sums, statistics, f, n, product, gradients, of_x)


@helper
def put_backward(inputs: Backward, statistics: Statistics, gradients: Gradients, features: int, out: Array) -> None:
    """Fill x_power and mean_hi, what makes y again where there is a beta, and a, b, dy_power and factor.

    They are for dx = (dy*dy_power + (a + b*(x - mean_hi)*x_power))*factor.
    """
    put_again(statistics.beta, statistics, features, out)
    dgamma, dbeta = gradients
    x, epsilon = inputs.x, statistics.epsilon
    count = x.shape[0] * x.shape[2]
    for f in range(0, features, LANES):
        n = min(LANES, features - f)
        variance, mean, gamma = load(statistics.var, f, n), load(statistics.mean, f, n), load(statistics.gamma, f, n)
        rstd, size = reciprocal_std(variance, epsilon), binade(load(dgamma, f, n)) + binade(load(dbeta, f, n))
        power: Vector = splat(1.0)
        factor: Vector = gamma * rstd
        mean_hi, of_x = narrow(mean, out), x_power(variance, rstd, epsilon, out)
        put(out, 0, f, n, of_x)
        store(out, out.shape[1] + f, n, mean_hi)
        doubted = any_lane(small(size, count, x)) or any_lane(small(factor, 1, x))
        if doubted or any_lane(large(size, x)) or any_lane(large(factor, x)):
            power, factor = scale_dy(inputs, statistics, gradients, f, n, out)
        sum_dy, share = load(dbeta, f, n) * power, load(dgamma, f, n) * power / splat(float(count))
        put(out, 5, f, n, (mean - double(mean_hi)) * rstd * share - sum_dy / splat(float(count)))
        put(out, 6, f, n, splat(0.0) - (rstd / of_x) * share)
        put(out, 7, f, n, power)
        put(out, 8, f, n, factor)
