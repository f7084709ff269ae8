"""Batch normalization as operations of PyTorch, on the memory that tensors and arrays share; `unchecked` computes.

Axis 1 has the features. mean and var are float64; dgamma and dbeta have gamma's dtype, or float64 without a gamma.
"""

from typing import Any

import torch
from torch import Tensor

from bnnumba import axes, checks, second, unchecked
from bnnumba.kernels import serial
from bnnumba.torch.memory import array_of, features_like, features_of, new, new_features, tensor_of
from bnnumba.torch.registry import Operation


def _batch_norm(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    epsilon: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, and the mean and variance that made it: those given, or where these are None the batch's own."""
    y, array, epsilon = new(x), array_of(x), checks.epsilon(epsilon)
    view = axes.canonical_view(array, 1)
    inputs = (array,) if residual is None else (array, checks.like("residual", array_of(residual), array))
    scale, shift = view.parameter("weight", features_of(gamma), 1.0), view.parameter("bias", features_of(beta), 0.0)
    if mean is None or var is None:
        *batch, _ = unchecked.batch_norm_into(view, inputs, scale, shift, epsilon, None, relu, array_of(y))
        return y, *map(torch.from_numpy, batch)
    checks.running_statistic("running_mean", mean, x.shape[1:2])
    checks.running_statistic("running_var", var, x.shape[1:2])
    statistics = features_of(mean), features_of(var)
    unchecked.normalize_into(view, inputs, *statistics, scale, shift, epsilon, relu, array_of(y))
    return y, mean.to(torch.float64, copy=True), var.to(torch.float64, copy=True)


def _batch_norm_shapes(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return new(x), new_features(x), new_features(x)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, residual, gamma, _, given_mean, _, ctx.epsilon, relu = inputs
    y, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)
    ctx.frozen, ctx.masks = given_mean is not None, relu and residual is not None
    ctx.save_for_backward(x, y if relu else None, mean, var, gamma)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
    """The gradients of x, residual, gamma and beta."""
    if dy is None:
        return (None,) * 8
    x, y, mean, var, gamma = ctx.saved_tensors
    needs_dx, needs_dresidual, needs_dgamma, needs_dbeta, *_ = ctx.needs_input_grad
    dx, dgamma, dbeta, dresidual = batch_norm_backward(
        dy, x, y, mean, var, gamma, ctx.epsilon, ctx.frozen, needs_dx, needs_dresidual and ctx.masks
    )
    return (
        dx if needs_dx else None,
        (dresidual if ctx.masks else dy) if needs_dresidual else None,
        dgamma if needs_dgamma else None,
        dbeta if needs_dbeta else None,
        *(None,) * 4,
    )


def _batch_norm_backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None,
    epsilon: float,
    frozen: bool,
    needs_dx: bool,
    needs_dresidual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dx, dgamma, dbeta and dresidual; empty, where not needed. y is what a ReLU gave, or None without one."""
    dx, dresidual, array = new(x, needs_dx), new(x, needs_dresidual), array_of(x)
    view = axes.canonical_view(array, 1)
    inputs = [checks.like("dy", array_of(dy), array), array]
    if y is not None:
        inputs.insert(1, checks.like("y", array_of(y), array))
    sums = unchecked.backward_into(
        view,
        inputs,
        view.parameter("mean", features_of(mean)),
        view.parameter("var", features_of(var)),
        view.parameter("weight", features_of(gamma), 1.0),
        epsilon,
        weights=None,
        frozen=frozen,
        dx=array_of(dx) if needs_dx else None,
        dresidual=array_of(dresidual) if needs_dresidual else None,
    )
    return dx, *(features_like(gamma, each) for each in sums), dresidual


def _batch_norm_backward_shapes(
    dy: Tensor, x: Tensor, y: Any, mean: Tensor, var: Tensor, gamma: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    needs_dx, needs_dresidual = others[-2:]
    sums = new_features(x) if gamma is None else torch.empty_like(gamma)
    return new(x, needs_dx), sums, torch.empty_like(sums), new(x, needs_dresidual)


def _save_again(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.epsilon, ctx.frozen, _, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate_again(
    ctx: Any, ddx: Tensor | None, ddgamma: Tensor | None, ddbeta: Tensor | None, ddresidual: Tensor | None
) -> tuple[Any, ...]:
    """The gradients of dy, x and gamma. What a ReLU lets pass is held constant, as in all of PyTorch."""
    dy, x, y, mean, var, gamma = ctx.saved_tensors
    ddy, dx, dgamma = batch_norm_double_backward(
        _passed(dy, y), x, mean, var, gamma, ddx, ddgamma, ddbeta, ctx.epsilon, ctx.frozen
    )
    if ddresidual is not None:
        ddy = ddy + ddresidual
    return _passed(ddy, y), dx, None, None, None, None if gamma is None else dgamma, *(None,) * 4


def _passed(dy: Tensor, y: Tensor | None) -> Tensor:
    """What a ReLU that gave y lets pass of dy; there is none where y is None."""
    return dy if y is None else torch.where(y <= 0, 0, dy)


def _batch_norm_double_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None,
    ddx: Tensor | None,
    ddgamma: Tensor | None,
    ddbeta: Tensor | None,
    epsilon: float,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ddy, dx and dgamma, of which there are no derivatives."""
    ddy, dx, dgamma = second.batch_norm_double_backward(
        *(array_of(ddx), features_of(ddgamma), features_of(ddbeta), array_of(dy), array_of(x)),
        *(features_of(mean), features_of(var), features_of(gamma), 1),
        epsilon=epsilon,
        frozen=frozen,
    )
    return new(x).copy_(tensor_of(ddy)), new(x).copy_(tensor_of(dx)), torch.from_numpy(dgamma)


def _double_backward_shapes(dy: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return new(x), new(x), new_features(x)


def _refuse(ctx: Any, *_: Any) -> None:
    checks.no_third_derivative()


def _move(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Count a batch, and move the running statistics towards its own; momentum None is 1/batches, or 0 uncounted."""
    checks.running_statistic("running_mean", running_mean, mean.shape)
    checks.running_statistic("running_var", running_var, mean.shape)
    if batches is not None:
        batches.add_(1)
    if momentum is None:
        momentum = 0 if batches is None else 1 / int(batches)
    kept = float(1 - momentum)
    batch = mean.numpy(), var.numpy(), count, kept, 1
    if running_mean.element_size() > 2:
        serial.update_moving(running_mean.numpy(), running_var.numpy(), *batch)
        return
    wide_mean, wide_var = running_mean.float(), running_var.float()
    serial.update_moving(wide_mean.numpy(), wide_var.numpy(), *batch)
    running_mean.copy_(wide_mean)
    running_var.copy_(wide_var)


batch_norm_double_backward = Operation(
    "batch_norm_double_backward", _batch_norm_double_backward, _double_backward_shapes, lambda *_: None, _refuse
)
batch_norm_backward = Operation(
    "batch_norm_backward", _batch_norm_backward, _batch_norm_backward_shapes, _save_again, _differentiate_again
)
batch_norm = Operation("batch_norm", _batch_norm, _batch_norm_shapes, _save, _differentiate)
move = Operation("move", _move, lambda *_: None, changes=("running_mean", "running_var", "batches"))
