"""What the backends' `batch_norm` returns."""

from typing import Any, NamedTuple


class Normalized(NamedTuple):
    """The result of a training forward, in the backend's tensors.

    y = act(gamma * (x - mean)/sqrt(var + epsilon) + beta)    mean, var: x's own, of the population
    moving = momentum*moving + (1 - momentum)*batch; as it was, where x has no values
    """

    y: Any  # x's shape and dtype
    mean: Any  # of the feature shape, float64 where the backend has it
    var: Any
    moving_mean: Any
    moving_variance: Any
