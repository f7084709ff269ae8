"""Groups of features, of which a thread has all the data: it makes their sums, and applies them while that is in cache.

The work functions of the strategy `by_groups` (see `plan`).
"""

from bnnumba._jit import helper, signed
from bnnumba.kernels.coefficients import Gradients, Statistics, put_forward
from bnnumba.kernels.plan import group_region, group_share, make_plan
from bnnumba.kernels.shares import Sums, fill_region, sum_share
from bnnumba.kernels.simd import fence
from bnnumba.kernels.statistics import (
    BACKWARD,
    FORWARD,
    Results,
    centre,
    finish_gradients,
    put_backward,
    samples,
    sum_moments,
    to_all_columns,
)
from bnnumba.kernels.stores import Sweep
from bnnumba.kernels.threads import within_work


@helper
def normalize_groups(
    threads: int, thread: int, sums: Sums, sweep: Sweep, statistics: Statistics, results: Results
) -> None:
    """Make the moments of a thread's groups, which `statistics` has too, and fill y with the values that they give."""
    grid, coefficients, one = sums.grid, sweep.coefficients, signed(1)
    plan, taken = make_plan(grid, sums.inputs.x.itemsize, threads), samples(sums.inputs.x)
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        region = group_region(grid, plan, group)
        first, last = region.first, region.last
        sum_moments(within_work, one, sums, taken, first, last, results)
        put_forward(statistics, first, last, coefficients)
        to_all_columns(coefficients, FORWARD, grid, first, last)
        fill_region(sweep, grid, region)
        group += 1
    fence()


@helper
def differentiate_groups(
    threads: int,
    thread: int,
    sums: Sums,
    sweep: Sweep,
    statistics: Statistics,
    gradients: Gradients,
    residual: Sweep | None,
) -> None:
    """Make the gradients of a thread's groups, and fill dx with the values that they give; and before, dresidual."""
    x, grid, coefficients = sums.inputs.x, sums.grid, sweep.coefficients
    plan = make_plan(grid, x.itemsize, threads)
    group, end = group_share(grid, plan, threads, thread)
    while group < end:
        region = group_region(grid, plan, group)
        first, last = region.first, region.last
        centre(statistics, grid, first, last, sums.centres)
        within_work(sum_share, signed(1), (sums, first, last, residual))
        finish_gradients(sums, statistics, first, last, gradients, True)
        put_backward(sweep.inputs, statistics, gradients, first, last, coefficients)
        to_all_columns(coefficients, BACKWARD, grid, first, last)
        fill_region(sweep, grid, region)
        group += 1
    fence()
