"""Second derivatives that PyTorch can differentiate again, as often as one likes: of its own operations, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def double_backward(
    dy: Tensor,
    x: Tensor,
    statistics: Tensor,
    gamma: Tensor | None,
    ddx: Tensor | None,
    ddgamma: Tensor | None,
    ddbeta: Tensor | None,
    epsilon: float,
    frozen: bool,
) -> tuple[Tensor | None, ...]:
    """Return ddy, dx and dgamma, as `compute.double_backward` does; None where the gradients depend on none of them."""
    if ddx is None and ddgamma is None and ddbeta is None:
        return None, None, None
    with torch.enable_grad():
        inputs = [None if each is None else _apart(each) for each in (dy, x, gamma)]
        results = _backward(inputs[0], inputs[1], inputs[2], statistics[:2] if frozen else None, epsilon)
        pairs = zip(results, (ddx, ddgamma, ddbeta), strict=True)
        given = [(result, dd.to(result.dtype)) for result, dd in pairs if dd is not None]
        outputs, weights = zip(*given, strict=True)
        wanted = [each for each in inputs if each is not None]
        found: Any = torch.autograd.grad(outputs, wanted, weights, create_graph=True, allow_unused=True)
    return (*found, None)[:3]


def _apart(tensor: Tensor) -> Tensor:
    """The same tensor, from which what is made of it here depends by no other way: dy may depend on x."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _backward(
    dy: Any, x: Any, gamma: Tensor | None, constants: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dgamma and dbeta, as functions of dy, x and gamma; constants: mean and var, if they are constants."""
    dy, x = dy.double(), x.double()
    reduced, features = [axis for axis in range(x.ndim) if axis != 1], (1, -1) + (1,) * (x.ndim - 2)
    if constants is None:
        var, mean = torch.var_mean(x, reduced, correction=0, keepdim=True)
    else:
        mean, var = constants.view(2, *features)
    spread = var + epsilon
    rstd = torch.where(spread == 0, 0.0, torch.where(spread == 0, 1.0, spread).rsqrt())
    x_hat = (x - mean) * rstd
    dbeta, dgamma = dy.sum(reduced, keepdim=True), (dy * x_hat).sum(reduced, keepdim=True)
    if constants is None:
        dy = dy - (dbeta + x_hat * dgamma) / (x.numel() / x.shape[1])
    dx = dy * rstd if gamma is None else dy * rstd * gamma.double().view(features)
    return dx, dgamma.flatten(), dbeta.flatten()
