"""The kernels without activation and residual, written once; `serial` and `threaded` are their compiled forms.

Their arguments are described in the package's docstring.
"""

import numpy as np

from bnnumba._jit import signed
from bnnumba._types import Array
from bnnumba.kernels.formulas import gradient_terms, moved, normalized
from bnnumba.kernels.formulas import input_gradient as input_gradient_values
from bnnumba.kernels.grid import make_weighted_grid
from bnnumba.kernels.parts import adding, adding_and_filling, adding_by, filling
from bnnumba.kernels.pooling import fill_pooled
from bnnumba.kernels.statistics import (
    new_features,
    new_partial,
    new_shift,
    sample_weighted_positions,
)
from bnnumba.kernels.steps import (
    adding_up,
    differentiating_groups,
    fill_backward,
    fill_batch_norm,
    fill_frozen,
    fill_gradient_sums,
    fill_in_one_sweep,
    fill_input_gradient,
    fill_moments,
    fill_normalized,
    new_frozen_coefficients,
    normalizing_groups,
    sum_moments,
)
from bnnumba.kernels.threads import each_thread, thread_count
from bnnumba.kernels.weighted import reduce as reduce_weighted
from bnnumba.kernels.weighted import subtract_share, sum_weights

scale, differentiate, add_gradients = filling(normalized), filling(input_gradient_values), adding(gradient_terms)
add_weighted = adding_by(reduce_weighted, make_weighted_grid)
add_gradients_and_scale = adding_and_filling(gradient_terms, normalized)
normalize_groups = normalizing_groups(normalized)
differentiate_groups = differentiating_groups(adding_up(add_gradients), input_gradient_values)


# ---- the kernels


def moments_into(x: Array, mean: Array, var: Array) -> None:
    """Fill the mean and the population variance of every feature; with zeros where there is nothing to reduce."""
    fill_moments(each_thread, thread_count(), x, mean, var, np.empty(mean.size))


def moments_and_rest_into(x: Array, mean: Array, var: Array, rest: Array) -> None:
    """Fill mean and var, and what rounding took from the mean: the mean is mean + rest, with twice the digits."""
    fill_moments(each_thread, thread_count(), x, mean, var, rest)


def weighted_moments_into(x: Array, weights: Array, mean: Array, var: Array) -> float:
    """Fill mean = sum(w*x)/count and var = sum(w*(x - mean)**2)/count, and return count = sum(w).

    Where w is 0, x may be anything. With a count of 0, mean and var are 0.
    """
    reduced = sum_weights(weights)
    if x.size == 0 or reduced == 0.0:
        mean[:], var[:] = 0.0, 0.0
        return reduced
    first, last, grid = signed(0), x.shape[1], make_weighted_grid(x.shape)
    each, threads, others = each_thread, thread_count(), (weights,)
    rest = np.empty(mean.size)
    positions, shift, partial = sample_weighted_positions(x, weights), new_shift(grid), new_partial(grid, x)
    sum_moments(
        each, threads, add_weighted, others, x, reduced, positions, grid, first, last, shift, partial, mean, var, rest
    )
    return reduced


def normalize(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> None:
    """Fill y = gamma*(x - mean)*rstd + beta, with rstd = 1/sqrt(var + epsilon), or 0 where that is 1/0."""
    fill_normalized(each_thread, thread_count(), scale, (), x, mean, var, gamma, beta, epsilon, y)


def batch_norm_into(x: Array, gamma: Array, beta: Array, epsilon: float, y: Array, mean: Array, var: Array) -> None:
    """Fill mean and var of x, and `normalize` by them: the training forward."""
    fill_batch_norm(each_thread, thread_count(), normalize_groups, scale, (), x, gamma, beta, epsilon, y, mean, var)


def gradient_sums_into(
    dy: Array, x: Array, mean: Array, var: Array, epsilon: float, dgamma: Array, dbeta: Array
) -> None:
    """Fill dgamma = sum(dy * x_hat) and dbeta = sum(dy)."""
    fill_gradient_sums(each_thread, thread_count(), add_gradients, (dy,), x, mean, var, (), epsilon, dgamma, dbeta)


def input_gradient(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, dgamma: Array, dbeta: Array, epsilon: float, dx: Array
) -> None:
    """Fill dx = gamma*rstd * (dy - dbeta/count - x_hat * dgamma/count)."""
    each, threads = each_thread, thread_count()
    fill_input_gradient(each, threads, differentiate, (dy,), x, mean, var, gamma, (), dgamma, dbeta, epsilon, dx)


def frozen_input_gradient(dy: Array, var: Array, gamma: Array, epsilon: float, dx: Array) -> None:
    """Fill dx = gamma*rstd*dy, the gradient of `normalize`."""
    fill_frozen(each_thread, thread_count(), scale, dy, var, gamma, epsilon, dx)


def batch_norm_backward_into(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill the gradient sums, and the `input_gradient` from them: the training backward."""
    each, threads, groups = each_thread, thread_count(), differentiate_groups
    add, fill = add_gradients, differentiate
    fill_backward(each, threads, groups, add, fill, (dy,), x, mean, var, gamma, (), epsilon, dx, dgamma, dbeta)


def frozen_backward_into(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill the gradient sums and the `frozen_input_gradient` in one sweep."""
    each, threads, coefficients = each_thread, thread_count(), new_frozen_coefficients(var, gamma, epsilon, x)
    work = add_gradients_and_scale
    fill_in_one_sweep(each, threads, work, (dy,), x, mean, var, epsilon, coefficients, dx, dgamma, dbeta)


def subtract_weighted(dy: Array, weights: Array, change: Array) -> None:
    """Make change = dy - w*change, in place; where w is 0, change may be anything."""
    each_thread(subtract_share, thread_count(), (dy, weights, change))


def pool_into(count_a: Array, a: Array, count_b: Array, b: Array, union: Array) -> None:
    """Fill the rows of union with the moments of two batches together; where one count is 0, with the other's."""
    fill_pooled(count_a, a, count_b, b, union)


def update_moving(
    moving_mean: Array, moving_var: Array, mean: Array, var: Array, count: int, momentum: float, ddof: int
) -> None:
    """Move moving = momentum*moving + (1 - momentum)*batch, in place; the variance times count/max(count - ddof, 1)."""
    if count == 0:
        return
    correction = count / max(count - ddof, 1)
    for f in range(mean.size):
        moving_mean[f] = moved(moving_mean[f], mean[f], momentum)
        moving_var[f] = moved(moving_var[f], var[f] * correction, momentum)


def update_moving_finite(
    moving_mean: Array, moving_var: Array, mean: Array, var: Array, count: int, momentum: float, ddof: int
) -> None:
    """Do as `update_moving`, but leave the features whose batch mean or variance is NaN or infinite."""
    if count == 0:
        return
    correction = count / max(count - ddof, 1)
    for f in range(mean.size):
        if np.isfinite(mean[f]) and np.isfinite(var[f]):
            moving_mean[f] = moved(moving_mean[f], mean[f], momentum)
            moving_var[f] = moved(moving_var[f], var[f] * correction, momentum)


# ---- the same, with new arrays for what belongs to features


def moments(x: Array) -> tuple[Array, Array]:
    mean, var = new_features(x)
    moments_into(x, mean, var)
    return mean, var


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> tuple[Array, Array]:
    mean, var = new_features(x)
    batch_norm_into(x, gamma, beta, epsilon, y, mean, var)
    return mean, var


def gradient_sums(dy: Array, x: Array, mean: Array, var: Array, epsilon: float) -> tuple[Array, Array]:
    dgamma, dbeta = new_features(x)
    gradient_sums_into(dy, x, mean, var, epsilon, dgamma, dbeta)
    return dgamma, dbeta


def batch_norm_backward(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> tuple[Array, Array]:
    dgamma, dbeta = new_features(x)
    batch_norm_backward_into(dy, x, mean, var, gamma, epsilon, dx, dgamma, dbeta)
    return dgamma, dbeta


def frozen_backward(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> tuple[Array, Array]:
    dgamma, dbeta = new_features(x)
    frozen_backward_into(dy, x, mean, var, gamma, epsilon, dx, dgamma, dbeta)
    return dgamma, dbeta


KERNELS = (
    "moments_into",
    "moments_and_rest_into",
    "weighted_moments_into",
    "normalize",
    "batch_norm_into",
    "gradient_sums_into",
    "input_gradient",
    "frozen_input_gradient",
    "batch_norm_backward_into",
    "frozen_backward_into",
    "subtract_weighted",
    "pool_into",
    "update_moving",
    "update_moving_finite",
    "moments",
    "batch_norm",
    "gradient_sums",
    "batch_norm_backward",
    "frozen_backward",
)
