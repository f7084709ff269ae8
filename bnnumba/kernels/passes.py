"""The kernels, written once; `serial` and `threaded` are their compiled forms (see `_jit.compile_form`).

The package's docstring tells what they share, `_guards` what each kind of argument is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnnumba._jit import by_precision, either, helper
from bnnumba.kernels.cells import cells_of
from bnnumba.kernels.coefficients import Gradients, Statistics
from bnnumba.kernels.formulas import Backward, Batch, Forward, Frozen, Residual
from bnnumba.kernels.grid import make_grid, make_weighted_grid
from bnnumba.kernels.groups import Output, differentiate_groups, fill_groups, reduce_groups, sweep_of
from bnnumba.kernels.plan import make_plan
from bnnumba.kernels.pooling import fill_pooled
from bnnumba.kernels.shares import fill_share, sum_share, sums_of
from bnnumba.kernels.statistics import (
    ByGradients,
    ByMoments,
    ByNothing,
    ByScale,
    Results,
    centres_of,
    finish_gradients,
    new_pivots,
    rest_of,
    samples,
    sum_moments,
    weighted_samples,
)
from bnnumba.kernels.stores import goes_past_cache, shared
from bnnumba.kernels.threads import each_thread, thread_count
from bnnumba.kernels.weighted import WeightedBatch, subtract_share, sum_weights

if TYPE_CHECKING:
    from bnnumba._types import (
        Act,
        Cells,
        Change,
        Data,
        FeatureResult,
        Features,
        Moving,
        Numbers,
        Result,
        Rows,
        RowsResult,
        Weights,
    )
    from bnnumba.kernels.grid import Grid

__all__ = [
    "activation_gradient",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_backward_into",
    "batch_norm_into",
    "cell_moments_into",
    "frozen_backward",
    "frozen_backward_into",
    "frozen_input_gradient",
    "gradient_sums",
    "gradient_sums_into",
    "input_gradient",
    "moments",
    "moments_and_rest_into",
    "moments_into",
    "normalize",
    "pool_into",
    "subtract_weighted",
    "update_moving",
    "update_moving_finite",
    "weighted_moments_into",
]

# ---- moments


def moments(x: Numbers) -> tuple[Features, Features]:
    """Return mean and var, as `moments_into` fills them."""
    mean, var = _new_features(x)
    moments_into(x, mean, var)
    return mean, var


def moments_into(x: Numbers, mean: FeatureResult, var: FeatureResult) -> None:
    """Fill the mean and the population variance of every feature; with zeros where there is nothing to reduce."""
    _fill_moments(x, Results(mean, var, None, None))


def moments_and_rest_into(x: Numbers, mean: FeatureResult, var: FeatureResult, rest: FeatureResult) -> None:
    """Fill mean and var, and what rounding took from the mean: the mean is mean + rest, with twice the digits."""
    _fill_moments(x, Results(mean, var, rest, None))


def weighted_moments_into(
    x: Numbers, weights: Weights, mean: FeatureResult, var: FeatureResult, rest: FeatureResult | None = None
) -> float:
    """Fill mean = sum(w*x)/count and var = sum(w*(x - mean)**2)/count, and return count = sum(w).

    Where w is 0, x may be anything. With a count of 0, mean and var are 0. rest is what rounding took from the mean.
    """
    results = Results(mean, var, rest_of(rest, mean.size), None)
    total = sum_weights(weights)
    if x.size == 0 or total == 0.0:
        results.mean[:], results.var[:], results.rest[:] = 0.0, 0.0, 0.0
        return total
    grid = make_weighted_grid(x.shape)
    sums = sums_of(WeightedBatch(x, weights), grid, new_pivots(grid))
    sum_moments(each_thread, thread_count(), sums, weighted_samples(x, weights, total), results)
    return total


def cell_moments_into(
    x: Numbers,
    mean: FeatureResult,
    var: FeatureResult,
    rest: FeatureResult,
    count: FeatureResult,
    omit: int,
    weights: Cells | None = None,
) -> None:
    """Do as `weighted_moments_into`, where each element has a weight of its own, and each feature so its own count.

    With omit, NaN does not count. weights = None: all others count once, which takes omit = True.
    """
    results = Results(mean, var, rest, count)
    if x.size == 0:
        mean[:], var[:], rest[:], count[:] = 0.0, 0.0, 0.0, 0.0
        return
    grid = make_grid(x.shape)
    sums = sums_of(cells_of(weights, x, bool(omit)), grid, new_pivots(grid))
    sum_moments(each_thread, thread_count(), sums, samples(x), results)
    for f in range(count.size):
        if count[f] == 0.0:
            mean[f], var[f], rest[f] = 0.0, 0.0, 0.0


def pool_into(count_a: Features, a: Rows, count_b: Features, b: Rows, union: RowsResult) -> None:
    """Fill the rows of union with the moments of two batches together; where one count is 0, with the other's."""
    fill_pooled(count_a, a, count_b, b, union)


def update_moving(
    moving_mean: Moving, moving_var: Moving, mean: Features, var: Features, count: int, momentum: float, ddof: int
) -> None:
    """Move moving = momentum*moving + (1 - momentum)*batch, in place; the variance times count/max(count - ddof, 1)."""
    _move((moving_mean, moving_var), (mean, var), count, momentum, ddof, False)


def update_moving_finite(
    moving_mean: Moving, moving_var: Moving, mean: Features, var: Features, count: int, momentum: float, ddof: int
) -> None:
    """Do as `update_moving`, but leave the features whose batch mean or variance is NaN or infinite."""
    _move((moving_mean, moving_var), (mean, var), count, momentum, ddof, True)


# ---- forward


def normalize(
    x: Numbers,
    mean: Features,
    var: Features,
    gamma: Features,
    beta: Features,
    epsilon: float,
    y: Result,
    residual: Data | None = None,
    activation: Act | None = None,
) -> None:
    """Fill y = act(gamma*(x - mean)*rstd + beta + residual), with rstd = 1/sqrt(var + epsilon), or 0 where that is 1/0.

    y may be x or residual.
    """
    _fill(_to_y(Forward(x, residual, activation), Statistics(mean, var, gamma, beta, epsilon), y))


def batch_norm(
    x: Data,
    gamma: Features,
    beta: Features,
    epsilon: float,
    y: Result,
    residual: Data | None = None,
    activation: Act | None = None,
) -> tuple[Features, Features]:
    """Fill y as `batch_norm_into` does, and return mean and var."""
    mean, var = _new_features(x)
    batch_norm_into(x, gamma, beta, epsilon, y, mean, var, residual, activation)
    return mean, var


def batch_norm_into(
    x: Data,
    gamma: Features,
    beta: Features,
    epsilon: float,
    y: Result,
    mean: FeatureResult,
    var: FeatureResult,
    residual: Data | None = None,
    activation: Act | None = None,
) -> None:
    """Fill mean and var of x, and `normalize` by them: the training forward."""
    statistics, results = Statistics(mean, var, gamma, beta, epsilon), Results(mean, var, None, None)
    grid, threads, output = make_grid(x.shape), thread_count(), _to_y(Forward(x, residual, activation), statistics, y)
    if x.size and make_plan(grid, x.itemsize, threads).by_groups:
        each_thread(reduce_groups, threads, (x, results, output))
        return
    _sum_moments(x, results)
    _fill_by_shares(output, grid)


# ---- backward: dresidual is dy behind the activation, told by y


def gradient_sums(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    epsilon: float,
    dresidual: Result | None = None,
    activation: Act | None = None,
    y: Data | None = None,
) -> tuple[Features, Features]:
    """Return dgamma and dbeta, as `gradient_sums_into` fills them."""
    dgamma, dbeta = _new_features(x)
    gradient_sums_into(dy, x, mean, var, epsilon, dgamma, dbeta, dresidual, activation, y)
    return dgamma, dbeta


def gradient_sums_into(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    epsilon: float,
    dgamma: FeatureResult,
    dbeta: FeatureResult,
    dresidual: Result | None = None,
    activation: Act | None = None,
    y: Data | None = None,
) -> None:
    """Fill dgamma = sum(dresidual * x_hat) and dbeta = sum(dresidual); and dresidual, where it is given."""
    inputs, statistics = Backward(x, dy, y, activation), Statistics(mean, var, None, None, epsilon)
    _fill_gradients(inputs, statistics, Gradients(dgamma, dbeta), _residual(dresidual, inputs, False), False)


def input_gradient(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    gamma: Features,
    dgamma: Features,
    dbeta: Features,
    epsilon: float,
    dx: Result,
) -> None:
    """Fill dx = gamma*rstd * (dy - dbeta/count - x_hat * dgamma/count). dx may be dy or x."""
    inputs, statistics = Backward(x, dy, None, None), Statistics(mean, var, gamma, None, epsilon)
    _fill(_to_dx(inputs, statistics, Gradients(dgamma, dbeta), dx))


def frozen_input_gradient(dy: Data, var: Features, gamma: Features, epsilon: float, dx: Result) -> None:
    """Fill dx = gamma*rstd*dy, the gradient of `normalize`. dx may be dy."""
    _fill(_to_frozen_dx(Frozen(dy, None, None), Statistics(None, var, gamma, None, epsilon), dx))


def batch_norm_backward(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    gamma: Features,
    epsilon: float,
    dx: Result,
    dresidual: Result | None = None,
    activation: Act | None = None,
    y: Data | None = None,
    beta: Features | None = None,
) -> tuple[Features, Features]:
    """Fill dx, and dresidual, as `batch_norm_backward_into` does; return dgamma and dbeta."""
    dgamma, dbeta = _new_features(x)
    batch_norm_backward_into(dy, x, mean, var, gamma, epsilon, dx, dgamma, dbeta, dresidual, activation, y, beta)
    return dgamma, dbeta


def batch_norm_backward_into(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    gamma: Features,
    epsilon: float,
    dx: Result,
    dgamma: FeatureResult,
    dbeta: FeatureResult,
    dresidual: Result | None = None,
    activation: Act | None = None,
    y: Data | None = None,
    beta: Features | None = None,
) -> None:
    """Fill the gradient sums, and the `input_gradient` of dresidual from them: the training backward.

    With beta in place of y, y is made again from x: a read less, for a forward without a residual. It has the bits of
    the forward's, but half precision's is not rounded.
    """
    inputs, statistics = Backward(x, dy, y, activation), Statistics(mean, var, gamma, beta, epsilon)
    gradients, grid, threads = Gradients(dgamma, dbeta), make_grid(x.shape), thread_count()
    output = _to_dx(_with_dresidual(dresidual, inputs), statistics, gradients, dx)
    if x.size and make_plan(grid, x.itemsize, threads).by_groups:
        residual = _residual(dresidual, inputs, True)
        each_thread(differentiate_groups, threads, (inputs, statistics, gradients, residual, output, True))
        return
    _sum_gradients(inputs, statistics, gradients, _residual(dresidual, inputs, False), True)
    _fill_by_shares(output, grid)


def frozen_backward(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    gamma: Features,
    epsilon: float,
    dx: Result,
    dresidual: Result | None = None,
    activation: Act | None = None,
    y: Data | None = None,
) -> tuple[Features, Features]:
    """Fill dx, and dresidual, as `frozen_backward_into` does; return dgamma and dbeta."""
    dgamma, dbeta = _new_features(x)
    frozen_backward_into(dy, x, mean, var, gamma, epsilon, dx, dgamma, dbeta, dresidual, activation, y)
    return dgamma, dbeta


def frozen_backward_into(
    dy: Data,
    x: Data,
    mean: Features,
    var: Features,
    gamma: Features,
    epsilon: float,
    dx: Result,
    dgamma: FeatureResult,
    dbeta: FeatureResult,
    dresidual: Result | None = None,
    activation: Act | None = None,
    y: Data | None = None,
) -> None:
    """Fill the gradient sums, and the `frozen_input_gradient` of dresidual.

    Without dresidual, and where dx is no input, that is one sweep.
    """
    inputs, statistics = Backward(x, dy, y, activation), Statistics(mean, var, gamma, None, epsilon)
    if dresidual is None and (shared(dx, dy) or shared(dx, x)):  # sums may have to be made again, see `extremes`
        _fill_gradients(inputs, statistics, Gradients(dgamma, dbeta), None, False)
        _fill(_to_frozen_dx(Frozen(dy, y, activation), statistics, dx))
        return
    meanwhile = _frozen_meanwhile(dresidual, inputs, statistics, dx)
    _fill_gradients(inputs, statistics, Gradients(dgamma, dbeta), meanwhile, False)
    if dresidual is not None:
        behind = _with_dresidual(dresidual, inputs)
        _fill(_to_frozen_dx(Frozen(behind.dy, behind.y, behind.activation), statistics, dx))


def activation_gradient(dy: Data, y: Data, activation: Act, dresidual: Result) -> None:
    """Fill dresidual = dy * act'(v), told by y = act(v). dresidual may be dy or y."""
    _fill(Output(Residual(dy, y, activation), ByNothing(), goes_past_cache(dresidual, dy, y), dresidual))


def subtract_weighted(dy: Data, weights: Weights, change: Change) -> None:
    """Make change = dy - w*change, in place; where w is 0, change may be anything."""
    each_thread(subtract_share, thread_count(), (dy, weights, change))


# ---- parts that each form has for itself


def _fill_moments(x: Data, results: Results) -> None:
    threads = thread_count()
    if x.size and make_plan(make_grid(x.shape), x.itemsize, threads).wide:
        each_thread(reduce_groups, threads, (x, results, None))
    else:
        _sum_moments(x, results)


def _sum_moments(x: Data, results: Results) -> None:
    """Fill the moments, by chunks."""
    mean, var, rest, _ = results
    if x.size == 0:
        mean[:], var[:], rest_of(rest, mean.size)[:] = 0.0, 0.0, 0.0
        return
    grid = make_grid(x.shape)
    sums = sums_of(Batch(x), grid, new_pivots(grid))
    sum_moments(each_thread, thread_count(), sums, samples(x), results)


def _fill(output: Output) -> None:
    """Fill a result."""
    grid, threads = make_grid(output.out.shape), thread_count()
    if make_plan(grid, output.out.itemsize, threads).wide:
        each_thread(fill_groups, threads, (output, grid))
    else:
        _fill_by_shares(output, grid)


def _fill_by_shares(output: Output, grid: Grid) -> None:
    """Fill a result, of which each thread takes a share of the elements."""
    if output.out.size:
        each_thread(fill_share, thread_count(), (sweep_of(output, grid), grid))


def _fill_gradients(
    inputs: Backward, statistics: Statistics, gradients: Gradients, meanwhile: Output | None, of_x: bool
) -> None:
    """Fill the sums; and in the same sweep over the data what `meanwhile` says. of_x: whether the moments are x's."""
    x, threads = inputs.x, thread_count()
    if x.size and make_plan(make_grid(x.shape), x.itemsize, threads).wide:
        each_thread(differentiate_groups, threads, (inputs, statistics, gradients, meanwhile, None, of_x))
    else:
        _sum_gradients(inputs, statistics, gradients, meanwhile, of_x)


def _sum_gradients(
    inputs: Backward, statistics: Statistics, gradients: Gradients, meanwhile: Output | None, of_x: bool
) -> None:
    """Do the same, by chunks."""
    x = inputs.x
    if x.size == 0:
        dgamma, dbeta = gradients
        dgamma[:], dbeta[:] = 0.0, 0.0
        return
    grid = make_grid(x.shape)
    sums = sums_of(inputs, grid, centres_of(statistics, grid, x))
    each_thread(sum_share, thread_count(), (sums, sweep_of(meanwhile, grid)))
    finish_gradients(sums, statistics, gradients, of_x)


@helper
def _new_features(x: Data) -> tuple[Features, Features]:
    return np.empty(x.shape[1]), np.empty(x.shape[1])


@helper
def _move(moving: Any, batch: Any, count: int, momentum: float, ddof: int, only_finite: bool) -> None:
    if count:
        move_features(moving, batch, momentum, count / max(count - ddof, 1), only_finite)


@helper
def move_features(moving: Any, batch: Any, momentum: float, correction: float, only_finite: bool) -> None:
    (moving_mean, moving_var), (mean, var) = moving, batch
    for f in range(mean.size):
        if not only_finite or (np.isfinite(mean[f]) and np.isfinite(var[f])):
            moving_mean[f] = momentum * moving_mean[f] + (1.0 - momentum) * mean[f]
            moving_var[f] = momentum * moving_var[f] + (1.0 - momentum) * (var[f] * correction)


@helper
def _to_y(inputs: Forward, statistics: Statistics, y: Data) -> Output:
    return Output(inputs, ByMoments(statistics), goes_past_cache(y, inputs.x, inputs.residual), y)


@helper
def _to_dx(inputs: Backward, statistics: Statistics, gradients: Gradients, dx: Data) -> Output:
    return Output(inputs, ByGradients(statistics, gradients), goes_past_cache(dx, inputs.x, inputs.dy, inputs.y), dx)


@helper
def _to_frozen_dx(inputs: Frozen, statistics: Statistics, dx: Data) -> Output:
    return Output(inputs, ByScale(statistics), goes_past_cache(dx, inputs.dy, inputs.y), dx)


@helper
def _no_residual(absent: None, inputs: Backward, in_cache: bool) -> None:
    return None


@helper
def _to_residual(dresidual: Data, inputs: Backward, in_cache: bool) -> Output:
    x, dy, y, activation = inputs
    past_cache = not in_cache and goes_past_cache(dresidual, x, dy, y)
    return Output(Residual(dy, y, activation), ByNothing(), past_cache, dresidual)


@helper
def _frozen_dx_of(absent: None, inputs: Backward, statistics: Statistics, dx: Data) -> Output:
    x, dy, y, activation = inputs
    return Output(Frozen(dy, y, activation), ByScale(statistics), goes_past_cache(dx, x, dy, y), dx)


@helper
def _residual_first(dresidual: Data, inputs: Backward, statistics: Statistics, dx: Data) -> Output:
    return _to_residual(dresidual, inputs, False)


@helper
def _unchanged(absent: None, inputs: Backward) -> Backward:
    return inputs


@helper
def _of_dresidual(dresidual: Data, inputs: Backward) -> Backward:
    return Backward(inputs.x, dresidual, None, None)


@helper
def _as_exact(dresidual: Data, inputs: Backward) -> Backward:
    exact: Backward = _unless_half(dresidual, inputs)
    return exact


# What fills dresidual; None where dresidual is.
_residual = either(_no_residual, _to_residual)
# What the frozen backward fills in the sweep that makes the sums: dresidual, or where that is None dx.
_frozen_meanwhile = either(_frozen_dx_of, _residual_first)
# The inputs with dresidual for dy behind the activation, where it is given and holds what is not rounded.
_unless_half = by_precision(_unchanged, _of_dresidual)
_with_dresidual = either(_unchanged, _as_exact)
