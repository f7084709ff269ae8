"""The kernels, written once; `serial` and `threaded` are their compiled forms.

Their arguments are described in the package's docstring.

Where a thread can have whole features, it makes their sums and applies them while their data is in its cache, in one
parallel region. Elsewhere the sums are made over the grid of chunks in one region and applied in a second.
"""

import numpy as np

from bnnumba._jit import helper, inlined, signed
from bnnumba._types import Array
from bnnumba.kernels.formulas import frozen_coefficients, gradient_coefficients, moved, normalize_coefficients
from bnnumba.kernels.grid import make_grid
from bnnumba.kernels.parts import (
    add_gradients,
    add_gradients_and_scale,
    add_moments,
    differentiate,
    differentiate_share,
    scale,
    scale_share,
)
from bnnumba.kernels.plan import group_region, group_share, plan_of
from bnnumba.kernels.simd import fence
from bnnumba.kernels.statistics import (
    coefficients_to_columns,
    finish_gradients,
    finish_moments,
    new_coefficients,
    new_features,
    new_partial,
    new_shift,
    sample_means,
    shift_by,
)
from bnnumba.kernels.stores import goes_past_cache
from bnnumba.kernels.threads import EachThread, each_thread, thread_count, within_work


@inlined
def sum_moments(
    each: EachThread,
    threads: int,
    x: Array,
    first: int,
    last: int,
    shift: Array,
    partial: Array,
    mean: Array,
    var: Array,
) -> None:
    """Fill mean and var of the features first..last; twice, where the shift turns out to be far from the mean."""
    near = np.empty(x.shape[1])
    sample_means(x, first, last, near, shift)
    for _ in range(2):
        shift_by(near, make_grid(x.shape), first, last, shift)
        each(add_moments, threads, (x, first, last, shift, partial))
        if not finish_moments(x, first, last, near, partial, mean, var):
            break


@inlined
def sum_gradients(
    each: EachThread,
    threads: int,
    dy: Array,
    x: Array,
    first: int,
    last: int,
    mean: Array,
    var: Array,
    epsilon: float,
    shift: Array,
    partial: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill dgamma and dbeta of the features first..last."""
    shift_by(mean, make_grid(x.shape), first, last, shift)
    each(add_gradients, threads, (dy, x, first, last, shift, partial))
    finish_gradients(x, first, last, partial, var, epsilon, dgamma, dbeta)


@helper
def normalize_groups(
    threads: int,
    thread: int,
    x: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    past_cache: bool,
    shift: Array,
    partial: Array,
    coefficients: Array,
    mean: Array,
    var: Array,
    y: Array,
) -> None:
    """Make the moments of a thread's groups of features, and normalize by them."""
    grid, plan = plan_of(x, threads)
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        region = group_region(grid, plan, group)
        first, last = region.first, region.last
        sum_moments(within_work, signed(1), x, first, last, shift, partial, mean, var)
        normalize_coefficients(mean, var, gamma, beta, epsilon, first, last, coefficients)
        coefficients_to_columns(coefficients, grid, first, last)
        scale(x, grid, region, coefficients, past_cache, y)
        group += 1
    fence()


@helper
def differentiate_groups(
    threads: int,
    thread: int,
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    past_cache: bool,
    shift: Array,
    partial: Array,
    coefficients: Array,
    dgamma: Array,
    dbeta: Array,
    dx: Array,
) -> None:
    """Make dgamma and dbeta of a thread's groups of features, and dx from them."""
    grid, plan = plan_of(x, threads)
    count = x.shape[0] * x.shape[2]
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        region = group_region(grid, plan, group)
        first, last = region.first, region.last
        sum_gradients(within_work, signed(1), dy, x, first, last, mean, var, epsilon, shift, partial, dgamma, dbeta)
        gradient_coefficients(mean, var, gamma, dgamma, dbeta, epsilon, count, first, last, coefficients)
        coefficients_to_columns(coefficients, grid, first, last)
        differentiate(dy, x, grid, region, coefficients, past_cache, dx)
        group += 1
    fence()


# ---- the kernels


def moments_into(x: Array, mean: Array, var: Array) -> None:
    """Fill the mean and the population variance of every feature; with zeros where there is nothing to reduce."""
    if x.size == 0:
        mean[:], var[:] = 0.0, 0.0
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    sum_moments(each_thread, thread_count(), x, first, last, new_shift(grid), new_partial(grid, x), mean, var)


def normalize(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> None:
    """Fill y = gamma*(x - mean)*rstd + beta, with rstd = 1/sqrt(var + epsilon), or 0 where that is 1/0."""
    if x.size == 0:
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    coefficients = new_coefficients(grid, x)
    normalize_coefficients(mean, var, gamma, beta, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    each_thread(scale_share, thread_count(), (x, coefficients, goes_past_cache(y, x), y))


def batch_norm_into(x: Array, gamma: Array, beta: Array, epsilon: float, y: Array, mean: Array, var: Array) -> None:
    """Fill mean and var of x, and `normalize` by them: the training forward."""
    threads = thread_count()
    grid, plan = plan_of(x, threads)
    if not plan.whole or x.size == 0:
        moments_into(x, mean, var)
        normalize(x, mean, var, gamma, beta, epsilon, y)
        return
    room = new_shift(grid), new_partial(grid, x), new_coefficients(grid, x)
    each_thread(normalize_groups, threads, (x, gamma, beta, epsilon, goes_past_cache(y, x), *room, mean, var, y))


def gradient_sums_into(
    dy: Array, x: Array, mean: Array, var: Array, epsilon: float, dgamma: Array, dbeta: Array
) -> None:
    """Fill dgamma = sum(dy * x_hat) and dbeta = sum(dy)."""
    if x.size == 0:
        dgamma[:], dbeta[:] = 0.0, 0.0
        return
    first, last, grid, threads = signed(0), x.shape[1], make_grid(x.shape), thread_count()
    shift, partial = new_shift(grid), new_partial(grid, x)
    sum_gradients(each_thread, threads, dy, x, first, last, mean, var, epsilon, shift, partial, dgamma, dbeta)


def input_gradient(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, dgamma: Array, dbeta: Array, epsilon: float, dx: Array
) -> None:
    """Fill dx = gamma*rstd * (dy - dbeta/count - x_hat * dgamma/count)."""
    if x.size == 0:
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    coefficients, count = new_coefficients(grid, x), x.shape[0] * x.shape[2]
    gradient_coefficients(mean, var, gamma, dgamma, dbeta, epsilon, count, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    each_thread(differentiate_share, thread_count(), (dy, x, coefficients, goes_past_cache(dx, dy, x), dx))


def frozen_input_gradient(dy: Array, var: Array, gamma: Array, epsilon: float, dx: Array) -> None:
    """Fill dx = gamma*rstd*dy, the gradient of `normalize`."""
    if dy.size == 0:
        return
    first, last, grid = signed(0), dy.shape[1], make_grid(dy.shape)
    coefficients = new_coefficients(grid, dy)
    frozen_coefficients(var, gamma, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    each_thread(scale_share, thread_count(), (dy, coefficients, goes_past_cache(dx, dy), dx))


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
    threads = thread_count()
    grid, plan = plan_of(x, threads)
    if not plan.whole or x.size == 0:
        gradient_sums_into(dy, x, mean, var, epsilon, dgamma, dbeta)
        input_gradient(dy, x, mean, var, gamma, dgamma, dbeta, epsilon, dx)
        return
    room = new_shift(grid), new_partial(grid, x), new_coefficients(grid, x)
    past_cache = goes_past_cache(dx, dy, x)
    each_thread(differentiate_groups, threads, (dy, x, mean, var, gamma, epsilon, past_cache, *room, dgamma, dbeta, dx))


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
    if x.size == 0:
        dgamma[:], dbeta[:] = 0.0, 0.0
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    shift, partial, coefficients = new_shift(grid), new_partial(grid, x), new_coefficients(grid, x)
    shift_by(mean, grid, first, last, shift)
    frozen_coefficients(var, gamma, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    past_cache = goes_past_cache(dx, dy, x)
    each_thread(add_gradients_and_scale, thread_count(), (dy, x, shift, coefficients, past_cache, partial, dx))
    finish_gradients(x, first, last, partial, var, epsilon, dgamma, dbeta)


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
    "normalize",
    "batch_norm_into",
    "gradient_sums_into",
    "input_gradient",
    "frozen_input_gradient",
    "batch_norm_backward_into",
    "frozen_backward_into",
    "update_moving",
    "update_moving_finite",
    "moments",
    "batch_norm",
    "gradient_sums",
    "batch_norm_backward",
    "frozen_backward",
)
