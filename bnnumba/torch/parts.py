"""One rank's part of a batch that many ranks share: its moments, its sums, and its share of the gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnnumba import checks, forms
from bnnumba._types import Array
from bnnumba.pairs import Pair
from bnnumba.pooling import Moments, Spread
from bnnumba.torch import compute
from bnnumba.torch.memory import canonical, dense, dense_like, layout_of, new, zero_of
from bnnumba.torch.registry import within_threads


class Whole(NamedTuple):
    """What all ranks know of a batch: mean and var, float64 (features,), of how many values; if any rank needs dx."""

    mean: Tensor
    var: Tensor
    number: int
    needs_dx: bool


class Sums(NamedTuple):
    """Gradients' sums over a part, float64 (features,); and dy behind the activation."""

    dgamma: Tensor
    dbeta: Tensor
    dresidual: Tensor


@within_threads
def moments_of(x: Tensor) -> Moments:
    """Return the moments of each feature, with all digits that merging them with other parts' needs."""
    zero_of("input", x)
    order, shape = layout_of(x)
    mean, var, rest = (np.empty(shape[1]) for _ in range(3))
    forms.moments_and_rest_into(canonical(dense(x, order), shape), mean, var, rest)
    return Moments.of(Spread(Pair(mean, rest), Pair(var, np.zeros_like(var))), shape[0] * shape[2])


def gradient_sums(dy: Tensor, x: Tensor, y: Tensor | None, statistics: Tensor, epsilon: float, activation: str) -> Sums:
    """Return the sums of dresidual * x_hat and of dresidual, and dresidual itself; y: what the activation gave."""
    _, dgamma, dbeta, dresidual = compute.backward(
        dy, x, y, statistics, None, epsilon, activation, False, False, y is not None
    )
    return Sums(dgamma, dbeta, dy if dresidual is None else dresidual)


@within_threads
def input_gradient(
    dresidual: Tensor, x: Tensor, gamma: Tensor | None, whole: Whole, sums: Array, epsilon: float
) -> Tensor:
    """Return dx = gamma*rstd * (dresidual - (dbeta + x_hat*dgamma)/count), with sums = dgamma, dbeta of all parts."""
    order, shape = layout_of(x)
    dresidual, dx = dense_like("dy", dresidual, x, order), new(x, order)
    scale = np.ones(shape[1]) if gamma is None else gamma.detach().to(torch.float64, copy=True).numpy()
    share = shape[0] * shape[2] / whole.number if whole.number else 0.0  # the kernel divides by the count of its own x
    forms.input_gradient(
        *(canonical(each, shape) for each in (dresidual, dense(x, order))),
        *(whole.mean.numpy(), whole.var.numpy(), scale, *(each * share for each in sums)),
        *(checks.epsilon(epsilon), canonical(dx, shape)),
    )
    return dx
