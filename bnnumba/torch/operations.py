"""Batch normalization as operations of PyTorch. Axis 1 has the features.

statistics are mean, var and beta, as (3, features) in float64. dgamma and dbeta have gamma's dtype, or float64 without
one.
"""

from typing import Any

import torch
from torch import Tensor

from bnnumba import checks, second
from bnnumba.forms import THREADED_BYTES, THREADED_NORMALIZE_BYTES, run_either
from bnnumba.torch.kernels import BACKWARD_AT, BATCH_NORM_AT, move_at
from bnnumba.torch.memory import HALF, NO_FEATURES, ZERO, address, array_of, dense, dense_like, features, layout_of, new
from bnnumba.torch.registry import Operation, within_threads


@within_threads
def _batch_norm(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    epsilon: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Return y and the statistics that made it, with mean and var, or where these are None the batch's own."""
    checks.tensor("input", x, ZERO)
    (order, shape), epsilon = layout_of(x), checks.epsilon(epsilon)
    channels, given = shape[1], mean is not None and var is not None
    data, y, statistics = dense(x, order), new(x, order), torch.empty(3, channels, dtype=torch.float64)
    if residual is not None:
        residual = dense_like("residual", residual, x, order)
    gamma, *scale = NO_FEATURES if gamma is None else features("weight", gamma, channels)
    beta, *shift = NO_FEATURES if beta is None else features("bias", beta, channels)
    mean, *running_mean = NO_FEATURES if mean is None else features("running_mean", mean, channels)
    var, *running_var = NO_FEATURES if var is None else features("running_var", var, channels)
    run_either(
        *BATCH_NORM_AT,
        x.nbytes < (THREADED_NORMALIZE_BYTES if given else THREADED_BYTES),
        (
            ZERO[x.dtype],
            address("input", data),
            None if residual is None else address("residual", residual),
            relu or None,
            given or None,
            *running_mean,
            *running_var,
            *scale,
            *shift,
            epsilon,
            *shape,
            y.data_ptr(),
            statistics.data_ptr(),
        ),
    )
    return y, statistics


def _batch_norm_shapes(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return new(x, layout_of(x)[0]), x.new_empty((3, x.shape[1]), dtype=torch.float64)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, residual, gamma, _, given_mean, _, ctx.epsilon, relu = inputs
    y, statistics = output
    ctx.mark_non_differentiable(statistics)
    ctx.set_materialize_grads(False)
    ctx.frozen, ctx.masks = given_mean is not None, relu and residual is not None
    ctx.remade = relu and not ctx.frozen and not ctx.masks and x.element_size() > HALF  # half precision's y is rounded
    ctx.save_for_backward(x, y if relu and not ctx.remade else None, statistics, gamma)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
    """The gradients of x, residual, gamma and beta."""
    if dy is None:
        return (None,) * 8
    x, y, statistics, gamma = ctx.saved_tensors
    needs_dx, needs_dresidual, needs_dgamma, needs_dbeta, *_ = ctx.needs_input_grad
    dx, dgamma, dbeta, dresidual = batch_norm_backward(
        *(dy, x, y, statistics, gamma, ctx.epsilon, ctx.remade, ctx.frozen),
        *(needs_dx, needs_dresidual and ctx.masks),
    )
    return (
        dx if needs_dx else None,
        (dresidual if ctx.masks else dy) if needs_dresidual else None,
        dgamma if needs_dgamma else None,
        dbeta if needs_dbeta else None,
        *(None,) * 4,
    )


@within_threads
def _batch_norm_backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    gamma: Tensor | None,
    epsilon: float,
    remade: bool,
    frozen: bool,
    needs_dx: bool,
    needs_dresidual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dx, dgamma, dbeta and dresidual; empty, where not needed.

    y is what a ReLU gave, or None; then if `remade`, the training backward, with dx at any rate, makes it again.
    """
    needs_dx = needs_dx or remade
    checks.tensor("x", x, ZERO)
    order, shape = layout_of(x)
    channels, data, dy = shape[1], dense(x, order), dense_like("dy", dy, x, order)
    if y is not None:
        y = dense_like("y", y, x, order)
    checks.statistics_tensor(statistics, channels, torch.float64)
    wide, *scale = NO_FEATURES if gamma is None else features("weight", gamma, channels)
    dtype = torch.float64 if wide is None else wide.dtype
    dgamma, dbeta = torch.empty(channels, dtype=dtype), torch.empty(channels, dtype=dtype)
    dx, dresidual = new(x, order) if needs_dx else x.new_empty(0), new(x, order) if needs_dresidual else x.new_empty(0)
    run_either(
        *BACKWARD_AT,
        x.nbytes < THREADED_BYTES,
        (
            ZERO[x.dtype],
            address("dy", dy),
            None if y is None else address("y", y),
            address("x", data),
            address("statistics", statistics),
            *scale,
            remade or None,
            frozen or None,
            epsilon,
            *shape,
            dx.data_ptr() if needs_dx else None,
            dresidual.data_ptr() if needs_dresidual else None,
            dgamma.data_ptr(),
            dbeta.data_ptr(),
            dtype is torch.float64,
        ),
    )
    if gamma is not None and gamma.dtype is not dtype:
        dgamma, dbeta = dgamma.to(gamma.dtype), dbeta.to(gamma.dtype)
    return dx, dgamma, dbeta, dresidual


def _batch_norm_backward_shapes(
    dy: Tensor, x: Tensor, y: Any, statistics: Tensor, gamma: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, remade, _, needs_dx, needs_dresidual = others
    dgamma, dbeta = (torch.empty_like(statistics[0] if gamma is None else gamma) for _ in range(2))
    dx, dresidual = (
        new(x, layout_of(x)[0]) if needed else x.new_empty(0) for needed in (needs_dx or remade, needs_dresidual)
    )
    return dx, dgamma, dbeta, dresidual


def _save_again(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.epsilon, ctx.remade, ctx.frozen, _, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate_again(
    ctx: Any, ddx: Tensor | None, ddgamma: Tensor | None, ddbeta: Tensor | None, ddresidual: Tensor | None
) -> tuple[Any, ...]:
    """The gradients of dy, x and gamma. What a ReLU lets pass is held constant, as in all of PyTorch."""
    dy, x, y, statistics, gamma = ctx.saved_tensors
    if ctx.remade:
        mean, var, beta = statistics
        y, _ = batch_norm(x.detach(), None, gamma, beta, mean, var, ctx.epsilon, True)
        y = y.detach()
    ddy, dx, dgamma = batch_norm_double_backward(
        _passed(dy, y), x, statistics, gamma, ddx, ddgamma, ddbeta, ctx.epsilon, ctx.frozen
    )
    if ddresidual is not None:
        ddy = ddy + ddresidual
    return _passed(ddy, y), dx, None, None, None if gamma is None else dgamma, *(None,) * 5


def _passed(dy: Tensor, y: Tensor | None) -> Tensor:
    """What a ReLU that gave y lets pass of dy; there is none where y is None."""
    return dy if y is None else torch.where(y <= 0, 0, dy)


@within_threads
def _batch_norm_double_backward(
    dy: Tensor,
    x: Tensor,
    statistics: Tensor,
    gamma: Tensor | None,
    ddx: Tensor | None,
    ddgamma: Tensor | None,
    ddbeta: Tensor | None,
    epsilon: float,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ddy, dx and dgamma, of which there are no derivatives."""
    ddy, dx, dgamma = second.batch_norm_double_backward(
        *(array_of(ddx), array_of(ddgamma), array_of(ddbeta), array_of(dy), array_of(x)),
        *(array_of(statistics[0]), array_of(statistics[1]), array_of(gamma), 1),
        epsilon=epsilon,
        frozen=frozen,
    )
    order = layout_of(x)[0]
    ddy, dx = (new(x, order).copy_(torch.from_numpy(each)) for each in (ddy, dx))
    return ddy, dx, torch.from_numpy(dgamma)


def _double_backward_shapes(dy: Tensor, x: Tensor, statistics: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return new(x, layout_of(x)[0]), new(x, layout_of(x)[0]), torch.empty_like(statistics[0])


def _refuse(ctx: Any, *_: Any) -> None:
    checks.no_third_derivative()


def _move(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Count a batch, and move the running statistics towards its own; momentum None is 1/batches, or 0 uncounted."""
    channels = statistics.shape[-1]
    checks.statistics_tensor(statistics, channels, torch.float64)
    if batches is not None:
        checks.counter_tensor("num_batches_tracked", batches, torch.int64)
    mean, *mean_at = features("running_mean", running_mean, channels)
    var, *var_at = features("running_var", running_var, channels)
    counter = 0 if batches is None else address("num_batches_tracked", batches)
    kept = None if momentum is None else float(momentum)
    move_at(*mean_at, *var_at, counter, address("statistics", statistics), channels, count, kept)
    for running, moved in ((running_mean, mean), (running_var, var)):
        if moved is not running:
            running.copy_(moved)


batch_norm_double_backward = Operation(
    "batch_norm_double_backward", _batch_norm_double_backward, _double_backward_shapes, lambda *_: None, _refuse
)
batch_norm_backward = Operation(
    "batch_norm_backward", _batch_norm_backward, _batch_norm_backward_shapes, _save_again, _differentiate_again
)
batch_norm = Operation("batch_norm", _batch_norm, _batch_norm_shapes, _save, _differentiate)
move = Operation("move", _move, lambda *_: None, changes=("running_mean", "running_var", "batches"))
