"""Batch normalization of JAX's arrays for the Keras layer: by `bnnumba.jax`."""

from __future__ import annotations

from typing import Any

import jax

import bnnumba.jax
from bnnumba.activations import Act, public
from bnnumba.keras.normalized import Normalized


def refusal(_: Any) -> str:
    """Why Keras's own call must be taken; empty where it need not."""
    platform = jax.default_backend()
    return "" if platform == "cpu" else f"JAX computes on {platform}"


def batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    moving: tuple[Any, Any],
    axis: int,
    epsilon: float,
    momentum: float,
    activation: Act | None,
) -> Normalized:
    """Normalize x by its own moments, see `Normalized`."""
    y, mean, var = bnnumba.jax.batch_norm(x, gamma, beta, axis=axis, epsilon=epsilon, activation=public(activation))
    moved = moving
    if x.size > 0:
        pairs = zip(moving, (mean, var), strict=True)
        moved = tuple((momentum * old + (1.0 - momentum) * new).astype(old.dtype) for old, new in pairs)
    return Normalized(y, mean, var, *moved)


def normalize(
    x: Any,
    mean: Any,
    var: Any,
    gamma: Any,
    beta: Any,
    axis: int,
    epsilon: float,
    activation: Act | None,
) -> Any:
    """Normalize x by a mean and a variance."""
    return bnnumba.jax.normalize(x, mean, var, gamma, beta, axis=axis, epsilon=epsilon, activation=public(activation))
