"""The kernels, written once with `prange`; `serial` and `threaded` are their compiled forms.

Their arguments are described in the package's docstring.

Where a thread can have whole features, it makes their sums and applies them while their data is in its cache, in one
parallel region. Elsewhere the sums are made over the grid of chunks in one region and applied in a second.
"""

import numpy as np
from numba import prange

from bnnumba._jit import signed, thread_count
from bnnumba._types import Array
from bnnumba.kernels.formulas import (
    frozen_coefficients,
    gradient_coefficients,
    gradient_terms,
    moment_terms,
    normalize_coefficients,
)
from bnnumba.kernels.parts import (
    differentiate,
    finish_gradients,
    finish_moments,
    new_coefficients,
    new_partial,
    new_shift,
    reduce_task,
    repeat,
    sample_shift,
    scale,
)
from bnnumba.kernels.plan import group_count, group_region, reduce_tasks, sweep_region, sweep_tasks
from bnnumba.kernels.stores import goes_past_cache


def sum_moments(x: Array, first: int, last: int, shift: Array, partial: Array, mean: Array, var: Array) -> None:
    """Fill mean and var of the features first..last; twice, where the shift turns out to be far from the mean."""
    threads = thread_count()
    sample_shift(x, first, last, shift)
    for _ in range(2):
        repeat(shift, x, first, last)
        for task in prange(reduce_tasks(x, threads, last - first)):
            reduce_task(moment_terms, x, x, threads, first, last, signed(task), shift, partial)
        if not finish_moments(x, first, last, shift, partial, mean, var):
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
    for f in range(first, last):
        shift[0, f] = mean[f]
    repeat(shift, x, first, last)
    for task in prange(reduce_tasks(x, threads, last - first)):
        reduce_task(gradient_terms, dy, x, threads, first, last, signed(task), shift, partial)
    finish_gradients(x, first, last, partial, var, epsilon, dgamma, dbeta)


group_sum_moments, group_sum_gradients = sum_moments, sum_gradients  # of one thread, see `_jit.compile_form`


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the population variance of every feature; zeros where there is nothing to reduce."""
    first, last = signed(0), x.shape[1]
    mean, var = np.zeros(last), np.zeros(last)
    if x.size:
        sum_moments(x, first, last, new_shift(x), new_partial(x), mean, var)
    return mean, var


def normalize(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> None:
    """Fill y = gamma*(x - mean)*rstd + beta, with rstd = 1/sqrt(var + epsilon), or 0 where that is 1/0."""
    threads, coefficients = thread_count(), new_coefficients(x)
    normalize_coefficients(mean, var, gamma, beta, epsilon, signed(0), x.shape[1], coefficients)
    repeat(coefficients, x, signed(0), x.shape[1])
    past_cache = goes_past_cache(y, x)
    for task in prange(sweep_tasks(x, threads)):
        scale(x, sweep_region(x, threads, signed(task)), coefficients, past_cache, y)


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> tuple[Array, Array]:
    """Make the `moments` of x, and `normalize` by them: the training forward. Return mean and var."""
    threads = thread_count()
    groups = group_count(x, threads)
    if groups == 0:
        mean, var = moments(x)
        normalize(x, mean, var, gamma, beta, epsilon, y)
        return mean, var
    mean, var = np.empty(x.shape[1]), np.empty(x.shape[1])
    shift, partial, coefficients = new_shift(x), new_partial(x), new_coefficients(x)
    past_cache = goes_past_cache(y, x)
    for group in prange(groups):
        region = group_region(x, threads, signed(group))
        group_sum_moments(x, region.first, region.last, shift, partial, mean, var)
        normalize_coefficients(mean, var, gamma, beta, epsilon, region.first, region.last, coefficients)
        repeat(coefficients, x, region.first, region.last)
        scale(x, region, coefficients, past_cache, y)
    return mean, var


def gradient_sums(dy: Array, x: Array, mean: Array, var: Array, epsilon: float) -> tuple[Array, Array]:
    """Return dgamma = sum(dy * x_hat) and dbeta = sum(dy), in this order."""
    first, last = signed(0), x.shape[1]
    dgamma, dbeta = np.zeros(last), np.zeros(last)
    if x.size:
        sum_gradients(dy, x, first, last, mean, var, epsilon, new_shift(x), new_partial(x), dgamma, dbeta)
    return dgamma, dbeta


def input_gradient(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, dgamma: Array, dbeta: Array, epsilon: float, dx: Array
) -> None:
    """Fill dx = gamma*rstd * (dy - dbeta/count - x_hat * dgamma/count)."""
    threads, coefficients, count = thread_count(), new_coefficients(x), x.shape[0] * x.shape[2]
    gradient_coefficients(mean, var, gamma, dgamma, dbeta, epsilon, count, signed(0), x.shape[1], coefficients)
    repeat(coefficients, x, signed(0), x.shape[1])
    past_cache = goes_past_cache(dx, dy, x)
    for task in prange(sweep_tasks(x, threads)):
        differentiate(dy, x, sweep_region(x, threads, signed(task)), coefficients, past_cache, dx)


def frozen_input_gradient(dy: Array, var: Array, gamma: Array, epsilon: float, dx: Array) -> None:
    """Fill dx = gamma*rstd*dy, the gradient of `normalize`."""
    threads, coefficients = thread_count(), new_coefficients(dy)
    frozen_coefficients(var, gamma, epsilon, signed(0), dy.shape[1], coefficients)
    repeat(coefficients, dy, signed(0), dy.shape[1])
    past_cache = goes_past_cache(dx, dy)
    for task in prange(sweep_tasks(dy, threads)):
        scale(dy, sweep_region(dy, threads, signed(task)), coefficients, past_cache, dx)


def batch_norm_backward(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> tuple[Array, Array]:
    """Make `gradient_sums`, and from them `input_gradient`: the training backward. Return dgamma and dbeta."""
    threads = thread_count()
    groups = group_count(x, threads)
    if groups == 0:
        dgamma, dbeta = gradient_sums(dy, x, mean, var, epsilon)
        input_gradient(dy, x, mean, var, gamma, dgamma, dbeta, epsilon, dx)
        return dgamma, dbeta
    dgamma, dbeta, count = np.empty(x.shape[1]), np.empty(x.shape[1]), x.shape[0] * x.shape[2]
    shift, partial, coefficients = new_shift(x), new_partial(x), new_coefficients(x)
    past_cache = goes_past_cache(dx, dy, x)
    for group in prange(groups):
        region = group_region(x, threads, signed(group))
        first, last = region.first, region.last
        group_sum_gradients(dy, x, first, last, mean, var, epsilon, shift, partial, dgamma, dbeta)
        gradient_coefficients(mean, var, gamma, dgamma, dbeta, epsilon, count, first, last, coefficients)
        repeat(coefficients, x, first, last)
        differentiate(dy, x, region, coefficients, past_cache, dx)
    return dgamma, dbeta


def frozen_backward(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> tuple[Array, Array]:
    """Make `gradient_sums` and `frozen_input_gradient` in one sweep. Return dgamma and dbeta."""
    first, last, threads = signed(0), x.shape[1], thread_count()
    dgamma, dbeta = np.zeros(last), np.zeros(last)
    if x.size == 0:
        return dgamma, dbeta
    shift, partial, coefficients = new_shift(x), new_partial(x), new_coefficients(x)
    for f in range(last):
        shift[0, f] = mean[f]
    repeat(shift, x, first, last)
    frozen_coefficients(var, gamma, epsilon, first, last, coefficients)
    repeat(coefficients, x, signed(0), x.shape[1])
    past_cache = goes_past_cache(dx, dy, x)
    for task in prange(reduce_tasks(x, threads, last)):
        region = reduce_task(gradient_terms, dy, x, threads, first, last, signed(task), shift, partial)
        scale(dy, region, coefficients, past_cache, dx)
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
