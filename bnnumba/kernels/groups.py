"""Groups of features, of which a thread has all the data: each is a problem of its own, as if there were no others.

The work functions of the strategy `by_groups` (see `plan`). A thread makes a group's sums, and applies them while the
group is in its cache; its room is for a group's features only.
"""

from typing import Any, NamedTuple

from bnnumba._jit import either, helper, method, signed
from bnnumba._types import Array
from bnnumba.kernels.coefficients import Gradients, Statistics
from bnnumba.kernels.formulas import Backward, Batch
from bnnumba.kernels.grid import Grid, make_grid
from bnnumba.kernels.plan import group_grid, group_share, make_plan
from bnnumba.kernels.shares import fill_all, sum_share, sums_of
from bnnumba.kernels.simd import fence, from_element
from bnnumba.kernels.statistics import (
    Results,
    centres_of,
    finish_gradients,
    new_pivots,
    samples,
    sum_moments,
)
from bnnumba.kernels.stores import Sweep
from bnnumba.kernels.threads import within_work

coefficients = method("coefficients")


class Output(NamedTuple):
    """A result, and what fills it: like a `Sweep`, but the coefficients are yet to be made, by what `by` holds."""

    inputs: Any  # see `formulas`
    by: Any  # see `statistics`
    past_cache: bool
    out: Array


@helper
def _no_sweep(absent: None, grid: Grid) -> None:
    return None


@helper
def _with_coefficients(output: Output, grid: Grid) -> Sweep:
    """Make the coefficients of a result."""
    inputs, by, past_cache, out = output
    return Sweep(inputs, coefficients(by, inputs, grid), past_cache, out)


@helper
def _no_output(absent: None, first: int, inner: int) -> None:
    return None


@helper
def _output_of(output: Output, first: int, inner: int) -> Output:
    """Return what fills a group's result; first: the group's first feature."""
    inputs, by, past_cache, out = output
    start = first * inner
    return Output(from_element(inputs, start), from_element(by, first), past_cache, from_element(out, start))


@helper
def _fill_nothing(absent: None, first: int, grid: Grid) -> None:
    return None


@helper
def _fill_group(output: Output, first: int, grid: Grid) -> None:
    fill_all(_with_coefficients(_output_of(output, first, grid.inner), grid), grid)


sweep_of = either(_no_sweep, _with_coefficients)
output_of = either(_no_output, _output_of)
fill_group = either(_fill_nothing, _fill_group)


@helper
def reduce_groups(threads: int, thread: int, x: Array, results: Results, output: Output | None) -> None:
    """Make the moments of a thread's groups, which `output` is made by, if there is one, and fill it."""
    grid, taken, one = make_grid(x.shape), samples(x), signed(1)
    plan = make_plan(grid, x.itemsize, threads)
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        first, own = group_grid(grid, plan, group)
        sums = sums_of(Batch(from_element(x, first * grid.inner)), own, new_pivots(own))
        sum_moments(within_work, one, sums, taken, from_element(results, first))
        fill_group(output, first, own)
        group += 1
    fence()


@helper
def differentiate_groups(
    threads: int,
    thread: int,
    inputs: Backward,
    statistics: Statistics,
    gradients: Gradients,
    meanwhile: Output | None,
    afterwards: Output | None,
    of_x: bool,
) -> None:
    """Make the gradient sums of a thread's groups, and fill one result in the same sweep, and one that they make."""
    x = inputs.x
    grid = make_grid(x.shape)
    plan = make_plan(grid, x.itemsize, threads)
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        first, own = group_grid(grid, plan, group)
        by, to = from_element(statistics, first), from_element(gradients, first)
        sums = sums_of(from_element(inputs, first * grid.inner), own, centres_of(by, own, x))
        within_work(sum_share, signed(1), (sums, sweep_of(output_of(meanwhile, first, grid.inner), own)))
        finish_gradients(sums, by, to, of_x)
        fill_group(afterwards, first, own)
        group += 1
    fence()


@helper
def fill_groups(threads: int, thread: int, output: Output, grid: Grid) -> None:
    """Fill a result of a thread's groups."""
    plan = make_plan(grid, output.out.itemsize, threads)
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        first, own = group_grid(grid, plan, group)
        fill_group(output, first, own)
        group += 1
    fence()
