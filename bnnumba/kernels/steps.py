"""The passes, for any terms and values: what the kernels in `passes` and `fused` are made of.

`each` and `threads` are a form's own (see `threads`). `affine` is gamma and beta where a ReLU's result is made again,
and empty elsewhere.

Where a thread can have whole features, it makes their sums and applies them while their data is in its cache, in one
parallel region. Elsewhere the sums are made over the grid of chunks in one region and applied in a second.
"""

from collections.abc import Callable

import numpy as np

from bnnumba._jit import helper, inlined, signed
from bnnumba._types import Array, Arrays, Values
from bnnumba.kernels.formulas import (
    frozen_coefficients,
    gradient_coefficients,
    moment_terms,
    normalize_coefficients,
)
from bnnumba.kernels.grid import Grid, make_grid
from bnnumba.kernels.parts import Work, adding, fill_region
from bnnumba.kernels.plan import group_region, group_share, plan_of
from bnnumba.kernels.simd import fence
from bnnumba.kernels.statistics import (
    centre_by,
    coefficients_to_columns,
    finish_gradients,
    finish_moments,
    new_centres,
    new_coefficients,
    new_partial,
    new_shift,
    sample_means,
    sample_positions,
    shift_by,
)
from bnnumba.kernels.stores import goes_past_cache
from bnnumba.kernels.threads import EachThread, within_work

add_moments = adding(moment_terms)


@inlined
def sum_moments(
    each: EachThread,
    threads: int,
    add: Work,
    others: Arrays,
    x: Array,
    reduced: float,
    positions: Array,
    grid: Grid,
    first: int,
    last: int,
    shift: Array,
    partial: Array,
    mean: Array,
    var: Array,
    rest: Array,
) -> None:
    """Fill mean and var of the features first..last; sum twice, where the shift turns out to be far from the mean.

    rest: what rounding took from the mean. reduced: so many values, or the sum of their weights. positions: of samples,
    whose mean is the shift.
    """
    near = np.empty(x.shape[1])
    sample_means(x, positions, first, last, near, rest)
    for _ in range(2):
        shift_by(near, grid, first, last, shift)
        each(add, threads, (others, x, first, last, shift, partial))
        if not finish_moments(x, reduced, first, last, near, partial, mean, var, rest):
            break


# ---- groups of features, of which a thread has all the data


def normalizing_groups(values: Values) -> Work:
    """Make the function that makes the moments of groups, and fills y with the values that they give."""

    @helper
    def normalize_groups(
        threads: int,
        thread: int,
        others: Arrays,
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
        """Do it for a thread's groups."""
        grid, plan = plan_of(x, threads)
        reduced, positions, one = float(x.shape[0] * x.shape[2]), sample_positions(x), signed(1)
        rest = np.empty(x.shape[1])
        group, end = group_share(grid, plan, threads, thread)
        while group < end:
            region = group_region(grid, plan, group)
            first, last = region.first, region.last
            each, add = within_work, add_moments
            sum_moments(each, one, add, (), x, reduced, positions, grid, first, last, shift, partial, mean, var, rest)
            normalize_coefficients(mean, var, gamma, beta, epsilon, first, last, coefficients)
            coefficients_to_columns(coefficients, grid, first, last)
            fill_region(values, others, x, grid, region, coefficients, past_cache, y)
            group += 1
        fence()

    return normalize_groups


def differentiating_groups(add_up: Callable[..., Arrays], values: Values) -> Work:
    """Make the function that makes dgamma and dbeta of groups, and fills results[0] with the values that they give.

    add_up: makes the sums of a group, and returns what goes with x in the values.
    """

    @helper
    def differentiate_groups(
        threads: int,
        thread: int,
        others: Arrays,
        x: Array,
        mean: Array,
        var: Array,
        gamma: Array,
        affine: Arrays,
        epsilon: float,
        past_cache: bool,
        shift: Array,
        partial: Array,
        coefficients: Array,
        dgamma: Array,
        dbeta: Array,
        results: Arrays,
    ) -> None:
        """Do it for a thread's groups."""
        grid, plan = plan_of(x, threads)
        count = x.shape[0] * x.shape[2]
        group, end = group_share(grid, plan, threads, thread)
        while group < end:
            region = group_region(grid, plan, group)
            first, last = region.first, region.last
            centre_by(mean, var, affine, epsilon, grid, first, last, shift)
            beside_x = add_up(others, x, first, last, shift, partial, coefficients, results)
            finish_gradients(x, first, last, partial, mean, var, epsilon, dgamma, dbeta)
            gradient_coefficients(mean, var, gamma, affine, dgamma, dbeta, epsilon, count, first, last, coefficients)
            coefficients_to_columns(coefficients, grid, first, last)
            fill_region(values, beside_x, x, grid, region, coefficients, past_cache, results[0])
            group += 1
        fence()

    return differentiate_groups


def adding_up(add: Work) -> Callable[..., Arrays]:
    """Make the function that adds up a group's terms, for `differentiating_groups`."""

    @inlined
    def add_up(
        others: Arrays,
        x: Array,
        first: int,
        last: int,
        shift: Array,
        partial: Array,
        coefficients: Array,
        results: Arrays,
    ) -> Arrays:
        within_work(add, signed(1), (others, x, first, last, shift, partial))
        return others

    return add_up


def adding_up_and_masking(add_and_mask: Work) -> Callable[..., Arrays]:
    """Make the function that meanwhile fills results[1]: while it is in cache, the values take it in place of dy."""

    @inlined
    def add_up(
        others: Arrays,
        x: Array,
        first: int,
        last: int,
        shift: Array,
        partial: Array,
        coefficients: Array,
        results: Arrays,
    ) -> Arrays:
        within_work(
            add_and_mask,
            signed(1),
            (others, x, first, last, shift, coefficients, False, partial, results[1]),
        )
        return results[1:]

    return add_up


# ---- whole passes


@inlined
def fill_moments(each: EachThread, threads: int, x: Array, mean: Array, var: Array, rest: Array) -> None:
    if x.size == 0:
        mean[:], var[:], rest[:] = 0.0, 0.0, 0.0
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    reduced, positions = float(x.shape[0] * x.shape[2]), sample_positions(x)
    shift, partial = new_shift(grid), new_partial(grid, x)
    add, others = add_moments, ()
    sum_moments(each, threads, add, others, x, reduced, positions, grid, first, last, shift, partial, mean, var, rest)


@inlined
def fill_normalized(
    each: EachThread,
    threads: int,
    fill: Work,
    others: Arrays,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    y: Array,
) -> None:
    if x.size == 0:
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    coefficients = new_coefficients(grid, x)
    normalize_coefficients(mean, var, gamma, beta, epsilon, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    each(fill, threads, (others, x, coefficients, goes_past_cache(y, x, *others), y))


@inlined
def fill_batch_norm(
    each: EachThread,
    threads: int,
    normalize_groups: Work,
    fill: Work,
    others: Arrays,
    x: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    y: Array,
    mean: Array,
    var: Array,
) -> None:
    grid, plan = plan_of(x, threads)
    if not plan.whole or x.size == 0:
        fill_moments(each, threads, x, mean, var, np.empty(mean.size))
        fill_normalized(each, threads, fill, others, x, mean, var, gamma, beta, epsilon, y)
        return
    room = new_shift(grid), new_partial(grid, x), new_coefficients(grid, x)
    past_cache = goes_past_cache(y, x, *others)
    each(normalize_groups, threads, (others, x, gamma, beta, epsilon, past_cache, *room, mean, var, y))


@inlined
def fill_gradient_sums(
    each: EachThread,
    threads: int,
    add: Work,
    others: Arrays,
    x: Array,
    mean: Array,
    var: Array,
    affine: Arrays,
    epsilon: float,
    dgamma: Array,
    dbeta: Array,
) -> None:
    if x.size == 0:
        dgamma[:], dbeta[:] = 0.0, 0.0
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    shift, partial = new_centres(grid, x), new_partial(grid, x)
    centre_by(mean, var, affine, epsilon, grid, first, last, shift)
    each(add, threads, (others, x, first, last, shift, partial))
    finish_gradients(x, first, last, partial, mean, var, epsilon, dgamma, dbeta)


@inlined
def fill_input_gradient(
    each: EachThread,
    threads: int,
    fill: Work,
    others: Arrays,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    affine: Arrays,
    dgamma: Array,
    dbeta: Array,
    epsilon: float,
    dx: Array,
) -> None:
    if x.size == 0:
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    coefficients, count = new_coefficients(grid, x), x.shape[0] * x.shape[2]
    gradient_coefficients(mean, var, gamma, affine, dgamma, dbeta, epsilon, count, first, last, coefficients)
    coefficients_to_columns(coefficients, grid, first, last)
    each(fill, threads, (others, x, coefficients, goes_past_cache(dx, x, *others), dx))


@inlined
def fill_in_groups(
    each: EachThread,
    threads: int,
    differentiate_groups: Work,
    others: Arrays,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    affine: Arrays,
    epsilon: float,
    results: Arrays,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill the results group by group: where the plan has whole features."""
    grid = make_grid(x.shape)
    room = new_centres(grid, x), new_partial(grid, x), new_coefficients(grid, x)
    past_cache = goes_past_cache(results[0], x, *others)
    given = others, x, mean, var, gamma, affine, epsilon, past_cache
    each(differentiate_groups, threads, (*given, *room, dgamma, dbeta, results))


@inlined
def fill_backward(
    each: EachThread,
    threads: int,
    differentiate_groups: Work,
    add: Work,
    fill: Work,
    others: Arrays,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    affine: Arrays,
    epsilon: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    if x.size and plan_of(x, threads)[1].whole:
        groups, results = differentiate_groups, (dx,)
        fill_in_groups(each, threads, groups, others, x, mean, var, gamma, affine, epsilon, results, dgamma, dbeta)
        return
    fill_gradient_sums(each, threads, add, others, x, mean, var, affine, epsilon, dgamma, dbeta)
    fill_input_gradient(each, threads, fill, others, x, mean, var, gamma, affine, dgamma, dbeta, epsilon, dx)


@helper
def new_frozen_coefficients(var: Array, gamma: Array, epsilon: float, x: Array) -> Array:
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    coefficients = new_coefficients(grid, x)
    if x.size:  # otherwise there may be features without a column
        frozen_coefficients(var, gamma, epsilon, first, last, coefficients)
        coefficients_to_columns(coefficients, grid, first, last)
    return coefficients


@inlined
def fill_frozen(
    each: EachThread, threads: int, scale: Work, dy: Array, var: Array, gamma: Array, epsilon: float, dx: Array
) -> None:
    coefficients = new_frozen_coefficients(var, gamma, epsilon, dy)
    each(scale, threads, ((), dy, coefficients, goes_past_cache(dx, dy), dx))


@inlined
def fill_in_one_sweep(
    each: EachThread,
    threads: int,
    add_and_fill: Work,
    others: Arrays,
    x: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    coefficients: Array,
    out: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill the gradient sums, and out with values of dy."""
    if x.size == 0:
        dgamma[:], dbeta[:] = 0.0, 0.0
        return
    first, last, grid = signed(0), x.shape[1], make_grid(x.shape)
    shift, partial = new_centres(grid, x), new_partial(grid, x)
    centre_by(mean, var, (), epsilon, grid, first, last, shift)
    past_cache = goes_past_cache(out, x, *others)
    each(add_and_fill, threads, (others, x, first, last, shift, coefficients, past_cache, partial, out))
    finish_gradients(x, first, last, partial, mean, var, epsilon, dgamma, dbeta)
