"""The kernels, written once with `prange`; `serial` and `threaded` are their compiled forms.

Their arguments are described in the package's docstring.

Where a thread can have whole features, it makes their sums and applies them while their data is in its cache, in one
parallel region. Elsewhere the sums are made over the grid of chunks in one region and applied in a second.
"""

import numpy as np
from numba import prange

from bnnumba._jit import signed, thread_count
from bnnumba._types import Array
from bnnumba.kernels.formulas import frozen_coefficients, gradient_coefficients, normalize_coefficients
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
    new_partial,
    new_shift,
    sample_means,
    shift_by,
)
from bnnumba.kernels.stores import goes_past_cache


def sum_moments(x: Array, first: int, last: int, shift: Array, partial: Array, mean: Array, var: Array) -> None:
    """Fill mean and var of the features first..last; twice, where the shift turns out to be far from the mean."""
    threads = thread_count()
    near = np.empty(x.shape[1])
    sample_means(x, first, last, near, shift)
    for _ in range(2):
        shift_by(near, make_grid(x.shape), first, last, shift)
        for thread in prange(threads):
            add_moments(x, threads, signed(thread), first, last, shift, partial)
        if not finish_moments(x, first, last, near, partial, mean, var):
            break


def sum_gradients(
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
    threads = thread_count()
    shift_by(mean, make_grid(x.shape), first, last, shift)
    for thread in prange(threads):
        add_gradients(dy, x, threads, signed(thread), first, last, shift, partial)
    finish_gradients(x, first, last, partial, var, epsilon, dgamma, dbeta)


group_sum_moments, group_sum_gradients = sum_moments, sum_gradients  # of one thread, see `_jit.compile_form`


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the population variance of every feature; zeros where there is nothing to reduce."""
    first, last = signed(0), x.shape[1]
    mean, var = np.zeros(last), np.zeros(last)
    if x.size:
        grid = make_grid(x.shape)
        sum_moments(x, first, last, new_shift(grid), new_partial(grid, x), mean, var)
    return mean, var


def normalize(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> None:
    """Fill y = gamma*(x - mean)*rstd + beta, with rstd = 1/sqrt(var + epsilon), or 0 where that is 1/0."""
    first, last, threads, grid = signed(0), x.shape[1], thread_count(), make_grid(x.shape)
    coefficients = new_coefficients(grid, x)
    normalize_coefficients(mean, var, gamma, beta, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    past_cache = goes_past_cache(y, x)
    for thread in prange(threads):
        scale_share(x, threads, signed(thread), coefficients, past_cache, y)


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> tuple[Array, Array]:
    """Make the `moments` of x, and `normalize` by them: the training forward. Return mean and var."""
    threads = thread_count()
    whole_grid, whole_plan = plan_of(x, threads)
    if not whole_plan.whole or x.size == 0:
        mean, var = moments(x)
        normalize(x, mean, var, gamma, beta, epsilon, y)
        return mean, var
    mean, var = np.empty(x.shape[1]), np.empty(x.shape[1])
    shift, partial = new_shift(whole_grid), new_partial(whole_grid, x)
    coefficients, past_cache = new_coefficients(whole_grid, x), goes_past_cache(y, x)
    for thread in prange(threads):
        grid, plan = plan_of(x, threads)
        group, end = group_share(grid, plan, threads, signed(thread))
        while group < end:
            region = group_region(grid, plan, group)
            group_sum_moments(x, region.first, region.last, shift, partial, mean, var)
            normalize_coefficients(mean, var, gamma, beta, epsilon, region.first, region.last, coefficients)
            coefficients_to_columns(coefficients, grid, region.first, region.last)
            scale(x, grid, region, coefficients, past_cache, y)
            group += 1
        fence()
    return mean, var


def gradient_sums(dy: Array, x: Array, mean: Array, var: Array, epsilon: float) -> tuple[Array, Array]:
    """Return dgamma = sum(dy * x_hat) and dbeta = sum(dy), in this order."""
    first, last = signed(0), x.shape[1]
    dgamma, dbeta = np.zeros(last), np.zeros(last)
    if x.size:
        grid = make_grid(x.shape)
        shift, partial = new_shift(grid), new_partial(grid, x)
        sum_gradients(dy, x, first, last, mean, var, epsilon, shift, partial, dgamma, dbeta)
    return dgamma, dbeta


def input_gradient(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, dgamma: Array, dbeta: Array, epsilon: float, dx: Array
) -> None:
    """Fill dx = gamma*rstd * (dy - dbeta/count - x_hat * dgamma/count)."""
    first, last, threads, grid = signed(0), x.shape[1], thread_count(), make_grid(x.shape)
    coefficients, count = new_coefficients(grid, x), x.shape[0] * x.shape[2]
    gradient_coefficients(mean, var, gamma, dgamma, dbeta, epsilon, count, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    past_cache = goes_past_cache(dx, dy, x)
    for thread in prange(threads):
        differentiate_share(dy, x, threads, signed(thread), coefficients, past_cache, dx)


def frozen_input_gradient(dy: Array, var: Array, gamma: Array, epsilon: float, dx: Array) -> None:
    """Fill dx = gamma*rstd*dy, the gradient of `normalize`."""
    first, last, threads, grid = signed(0), dy.shape[1], thread_count(), make_grid(dy.shape)
    coefficients = new_coefficients(grid, dy)
    frozen_coefficients(var, gamma, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    past_cache = goes_past_cache(dx, dy)
    for thread in prange(threads):
        scale_share(dy, threads, signed(thread), coefficients, past_cache, dx)


def batch_norm_backward(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> tuple[Array, Array]:
    """Make `gradient_sums`, and from them `input_gradient`: the training backward. Return dgamma and dbeta."""
    threads = thread_count()
    whole_grid, whole_plan = plan_of(x, threads)
    if not whole_plan.whole or x.size == 0:
        dgamma, dbeta = gradient_sums(dy, x, mean, var, epsilon)
        input_gradient(dy, x, mean, var, gamma, dgamma, dbeta, epsilon, dx)
        return dgamma, dbeta
    dgamma, dbeta, count = np.empty(x.shape[1]), np.empty(x.shape[1]), x.shape[0] * x.shape[2]
    shift, partial = new_shift(whole_grid), new_partial(whole_grid, x)
    coefficients, past_cache = new_coefficients(whole_grid, x), goes_past_cache(dx, dy, x)
    for thread in prange(threads):
        grid, plan = plan_of(x, threads)
        group, end = group_share(grid, plan, threads, signed(thread))
        while group < end:
            region = group_region(grid, plan, group)
            first, last = region.first, region.last
            group_sum_gradients(dy, x, first, last, mean, var, epsilon, shift, partial, dgamma, dbeta)
            gradient_coefficients(mean, var, gamma, dgamma, dbeta, epsilon, count, first, last, coefficients)
            coefficients_to_columns(coefficients, grid, first, last)
            differentiate(dy, x, grid, region, coefficients, past_cache, dx)
            group += 1
        fence()
    return dgamma, dbeta


def frozen_backward(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> tuple[Array, Array]:
    """Make `gradient_sums` and `frozen_input_gradient` in one sweep. Return dgamma and dbeta."""
    first, last, threads, grid = signed(0), x.shape[1], thread_count(), make_grid(x.shape)
    dgamma, dbeta = np.zeros(last), np.zeros(last)
    if x.size == 0:
        return dgamma, dbeta
    shift, partial, coefficients = new_shift(grid), new_partial(grid, x), new_coefficients(grid, x)
    shift_by(mean, grid, first, last, shift)
    frozen_coefficients(var, gamma, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    past_cache = goes_past_cache(dx, dy, x)
    for thread in prange(threads):
        add_gradients_and_scale(dy, x, threads, signed(thread), shift, coefficients, past_cache, partial, dx)
    finish_gradients(x, first, last, partial, var, epsilon, dgamma, dbeta)
    return dgamma, dbeta


def update_moving(
    moving_mean: Array, moving_var: Array, mean: Array, var: Array, count: int, momentum: float, ddof: int
) -> None:
    """Move moving = momentum*moving + (1 - momentum)*batch, in place; the variance times count/max(count - ddof, 1)."""
    if count == 0:
        return
    correction = count / max(count - ddof, 1)
    for f in range(mean.size):
        moving_mean[f] = momentum * moving_mean[f] + (1.0 - momentum) * mean[f]
        moving_var[f] = momentum * moving_var[f] + (1.0 - momentum) * (var[f] * correction)


STEPS = ("sum_moments", "sum_gradients")
KERNELS = (
    "moments",
    "normalize",
    "batch_norm",
    "gradient_sums",
    "input_gradient",
    "frozen_input_gradient",
    "batch_norm_backward",
    "frozen_backward",
    "update_moving",
)
