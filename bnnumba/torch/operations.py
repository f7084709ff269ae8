"""Batch normalization as operations of PyTorch, for autograd and torch.compile; what they compute is in `compute`."""

from typing import Any

import torch
from torch import Tensor

from bnnumba.torch import again, checks, compute
from bnnumba.torch.memory import HALF, ZERO, layout_of, new
from bnnumba.torch.registry import differentiable, recorded, register, watched


def _batch_norm(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    epsilon: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """Do as `compute.forward`, but move nothing."""
    outputs: tuple[Tensor, Tensor] = compute.forward(x, residual, gamma, beta, mean, var, epsilon, activation)
    return outputs


def _batch_norm_shapes(x: Tensor, residual: Tensor | None, *features: Any) -> tuple[Tensor, Tensor]:
    named = dict(zip(("weight", "bias", "running_mean", "running_var"), features, strict=False))
    checks.without_data(x, residual, named, ZERO)
    return new(x, layout_of(x)[0]), x.new_empty((3, x.shape[1]), dtype=torch.float64)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.mark_non_differentiable(output[1])
    _keep(ctx, inputs, *output)


def _keep(ctx: Any, inputs: Any, y: Tensor, statistics: Tensor) -> None:
    x, residual, gamma, _, given_mean, _, ctx.epsilon, ctx.activation, *_ = inputs
    ctx.set_materialize_grads(False)
    behind = ctx.activation != ""
    ctx.frozen, ctx.masks = given_mean is not None, behind and residual is not None
    remade = not ctx.frozen and not ctx.masks and x.element_size() > HALF  # half precision's y is rounded
    ctx.save_for_backward(x, y if behind and not remade else None, statistics, gamma)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
    """The gradients of x, residual, gamma and beta."""
    if dy is None:
        return (None,) * 8
    x, y, statistics, gamma = ctx.saved_tensors
    needs_dx, needs_dresidual, needs_dgamma, needs_dbeta, *_ = ctx.needs_input_grad
    backward = batch_norm_backward if recorded() or watched(dy) else compute.backward
    dx, dgamma, dbeta, dresidual = backward(
        *(dy, x, y, statistics, gamma, ctx.epsilon, ctx.activation, ctx.frozen),
        *(needs_dx, needs_dresidual and ctx.masks),
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
    statistics: Tensor,
    gamma: Tensor | None,
    epsilon: float,
    activation: str,
    frozen: bool,
    needs_dx: bool,
    needs_dresidual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do as `compute.backward`, but return what is empty where nothing is needed."""
    dx, dgamma, dbeta, dresidual = compute.backward(
        dy, x, y, statistics, gamma, epsilon, activation, frozen, needs_dx, needs_dresidual
    )
    return (
        x.new_empty(0) if dx is None else dx,
        dgamma,
        dbeta,
        x.new_empty(0) if dresidual is None else dresidual,
    )


def _batch_norm_backward_shapes(
    dy: Tensor, x: Tensor, y: Any, statistics: Tensor, gamma: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, activation, _, needs_dx, needs_dresidual = others
    remade = activation != "" and y is None
    dgamma, dbeta = (torch.empty_like(statistics[0] if gamma is None else gamma) for _ in range(2))
    dx, dresidual = (
        new(x, layout_of(x)[0]) if needed else x.new_empty(0) for needed in (needs_dx or remade, needs_dresidual)
    )
    return dx, dgamma, dbeta, dresidual


def _save_again(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.epsilon, ctx.activation, ctx.frozen, _, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate_again(
    ctx: Any, ddx: Tensor | None, ddgamma: Tensor | None, ddbeta: Tensor | None, ddresidual: Tensor | None
) -> tuple[Any, ...]:
    """The gradients of dy, x and gamma. The activation's slopes are held constant, as in all of PyTorch."""
    dy, x, y, statistics, gamma = ctx.saved_tensors
    if y is None and ctx.activation:
        mean, var, beta = statistics
        y = batch_norm(x.detach(), None, gamma, beta, mean, var, ctx.epsilon, ctx.activation)[0].detach()
    double_backward = again.double_backward if recorded() else batch_norm_double_backward
    ddy, dx, dgamma = double_backward(
        _behind(dy, y, ctx.activation), x, statistics, gamma, ddx, ddgamma, ddbeta, ctx.epsilon, ctx.frozen
    )
    if ddresidual is not None:
        ddy = ddresidual if ddy is None else ddy + ddresidual
    return (
        None if ddy is None else _behind(ddy, y, ctx.activation),
        dx,
        None,
        None,
        None if gamma is None else dgamma,
        *(None,) * 5,
    )


def _behind(dy: Tensor, y: Tensor | None, activation: str) -> Tensor:
    """What the activation that gave y makes of dy; there is none where y is None."""
    return dy if y is None else activation_gradient(dy, y, activation)


def _double_backward_shapes(dy: Tensor, x: Tensor, statistics: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return new(x, layout_of(x)[0]), new(x, layout_of(x)[0]), torch.empty_like(statistics[0])


def _save_result(ctx: Any, inputs: Any, output: Any) -> None:  # what PyTorch calls
    _, y, ctx.activation = inputs
    ctx.save_for_backward(y)


def _differentiate_behind(ctx: Any, ddresidual: Tensor) -> tuple[Tensor, None, None]:
    return activation_gradient(ddresidual, *ctx.saved_tensors, ctx.activation), None, None


activation_gradient = register(
    "activation_gradient",
    compute.behind,
    lambda _, y, __: new(y, layout_of(y)[0]),
    _save_result,
    _differentiate_behind,
)
batch_norm_double_backward = register("batch_norm_double_backward", compute.double_backward, _double_backward_shapes)
batch_norm_backward = register(
    "batch_norm_backward", _batch_norm_backward, _batch_norm_backward_shapes, _save_again, _differentiate_again
)
batch_norm = register("batch_norm", _batch_norm, _batch_norm_shapes, _save, _differentiate)
move = register("move", compute.move, lambda *_: None, changes=("running_mean", "running_var", "batches"))


class _Layer(torch.autograd.Function):
    """A layer's forward call as one step, since no operation of PyTorch's may be differentiated and move something."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        y, statistics = compute.forward(*arguments)
        _keep(ctx, arguments, y, statistics)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Any, ...]:
        return *_differentiate(ctx, dy), None, None


_differentiable_layer = differentiable(_Layer)


def batch_norm_layer(x: Tensor, *others: Any, moving: compute.Moving | None, skip_nonfinite: bool) -> Tensor:
    """Do as `batch_norm`, of which only y is returned; where running statistics are moving, do as `move` as well."""
    if not watched(x):
        others = *others, moving, skip_nonfinite
        return _differentiable_layer(x, *others) if recorded() else compute.forward(x, *others)[0]
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        checks.no_transform()
    y, statistics = batch_norm(x, *others)
    if moving is not None:
        mean, var, batches, momentum = moving
        move(mean, var, batches, statistics, x.numel() // max(x.shape[1], 1), momentum, skip_nonfinite)
    return y
