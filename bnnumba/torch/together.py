"""Training calls of many ranks together: one exchange forward, and in autograd's backward one more."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnnumba._types import Array
from bnnumba.pooling import Moments, rows_of
from bnnumba.ranks import call_of, exchange, merged_moments
from bnnumba.torch import checks, compute
from bnnumba.torch.group import link_of
from bnnumba.torch.memory import ZERO
from bnnumba.torch.parts import Whole, gradient_sums, input_gradient, moments_of
from bnnumba.torch.registry import differentiable, recorded


class Caller(NamedTuple):
    """The layer that calls, in words; its group; and what must be the same on all ranks: in pairs, and its count."""

    layer: str
    group: Any
    settings: tuple[tuple[str, Any], ...]
    batches: int

    def exchange(self, what: str, own: Array, merge: Any) -> Array:
        """Merge an array with those of all ranks."""
        call = call_of(what, self.layer, *self.settings)._replace(step=self.batches, counter="num_batches_tracked")
        with link_of(self.group).during(self.group, call) as link:
            return exchange(own, merge, call, link)


def batch_norm_together(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    activation: str,
    moving: compute.Moving | None,
    skip_nonfinite: bool,
    caller: Caller,
) -> Tensor:
    """Return y by the statistics of all ranks' x; what is moving, counts the batch and moves towards them.

    Where another rank needs dx, y is differentiable even if nothing on this rank is: so that backward comes to all.
    """
    named = {"weight": gamma, "bias": beta}
    if moving is not None:
        named.update(running_mean=moving[0], running_var=moving[1])
    if torch._C._are_functorch_transforms_active():
        checks.no_transform()
    checks.without_data(x, residual, named, ZERO)
    graph = recorded()
    whole = _whole(moments_of(x), graph and x.requires_grad, caller)
    if whole.number == 1:
        checks.one_value_per_channel(x.shape)
    others: Any
    inputs, others = (x, residual, gamma, beta), (epsilon, activation, moving, skip_nonfinite, whole)
    if not graph:
        return _forward(*inputs, *others)[0]
    alone = whole.needs_dx and not any(each is not None and each.requires_grad for each in inputs)
    anchor = torch.empty(0, requires_grad=True) if alone else None
    y: Tensor = _differentiable_part(*inputs, anchor, *others, caller)
    return y


def _whole(part: Moments, needs_dx: bool, caller: Caller) -> Whole:
    own = np.concatenate([[float(needs_dx), float(part.count)], rows_of(part.spread).ravel()])
    merged = caller.exchange("training call", own, _merged)
    rows = torch.from_numpy(merged[2:].reshape(4, -1))
    return Whole(rows[0], rows[2], int(merged[1]), bool(merged[0]))


def _merged(lower: Array, higher: Array) -> Array:
    """Merge parts, each of whether dx is needed, a count and moments."""
    return np.concatenate([np.maximum(lower[:1], higher[:1]), merged_moments(lower[1:], higher[1:])])


def _forward(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    activation: str,
    moving: compute.Moving | None,
    skip_nonfinite: bool,
    whole: Whole,
) -> tuple[Tensor, Tensor]:
    """Return y and the statistics that made it."""
    outputs: tuple[Tensor, Tensor] = compute.forward(
        x, residual, gamma, beta, whole.mean, whole.var, epsilon, activation
    )
    if moving is not None:
        mean, var, batches, momentum = moving
        compute.move(mean, var, batches, outputs[1], whole.number, momentum, skip_nonfinite)
    return outputs


class _Part(torch.autograd.Function):
    """A rank's part of a training call; `ctx.caller` exchanges the sums."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        anchor: Tensor | None,  # noqa: ARG004  # what makes y differentiable, where nothing else does
        epsilon: float,
        activation: str,
        moving: compute.Moving | None,
        skip_nonfinite: bool,
        whole: Whole,
        caller: Caller,
    ) -> Tensor:
        y, statistics = _forward(x, residual, gamma, beta, epsilon, activation, moving, skip_nonfinite, whole)
        ctx.save_for_backward(x, y if activation else None, statistics, gamma)
        ctx.epsilon, ctx.activation, ctx.whole, ctx.caller = epsilon, activation, whole, caller
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        x, y, statistics, gamma = ctx.saved_tensors
        needs_dx, needs_dresidual, needs_dgamma, needs_dbeta, *_ = ctx.needs_input_grad
        own, dx = gradient_sums(dy, x, y, statistics, ctx.epsilon, ctx.activation), None
        if ctx.whole.needs_dx:
            sums = np.concatenate([own.dgamma.numpy(), own.dbeta.numpy()])
            of_all = ctx.caller.exchange("backward", sums, np.add).reshape(2, -1)
            if needs_dx:
                dx = input_gradient(own.dresidual, x, gamma, ctx.whole, of_all, ctx.epsilon)
        return (
            dx,
            own.dresidual if needs_dresidual else None,
            own.dgamma if needs_dgamma else None,  # autograd gives it the parameter's dtype
            own.dbeta if needs_dbeta else None,
            *(None,) * 7,
        )


_differentiable_part = differentiable(_Part)


def caller_of(layer: nn.Module, name: str, group: Any, batches: int, *settings: tuple[str, Any]) -> Caller:
    """Return what says who calls: a layer by its number among those of the group, and its name where it has one."""
    text = f"{link_of(group).number_of(layer)}{name and f' ({name})'}"
    return Caller(text, group, (*settings, ("gradients", recorded())), batches)
