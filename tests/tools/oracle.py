"""Batch normalization as whole-array NumPy in extended precision: what the package is compared with.

Nothing here is shared with the kernels: reductions keep their axes, so that every array broadcasts against x. All
arithmetic is np.longdouble, 64 bits of mantissa on x86; where that is float64 only, the bounds of float64 data have no
room left for the oracle's own rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bnnumba.activations import LeakyRelu

WIDE = np.longdouble


class Forward(NamedTuple):
    """Everything of one forward pass; per-feature arrays have size 1 along the reduced axes."""

    mean: np.ndarray
    var: np.ndarray
    rstd: np.ndarray
    x_hat: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    y: np.ndarray


class Backward(NamedTuple):
    """Everything of one backward pass."""

    dx: np.ndarray
    dgamma: np.ndarray
    dbeta: np.ndarray
    dy: np.ndarray
    forward: Forward


def kept_axes(ndim, feature_axis):
    axes = feature_axis if isinstance(feature_axis, tuple) else (feature_axis,)
    return sorted(axis % ndim for axis in axes)


def reduced_axes(ndim, feature_axis):
    kept = kept_axes(ndim, feature_axis)
    return tuple(axis for axis in range(ndim) if axis not in kept)


def feature_shape(shape, feature_axis):
    return tuple(shape[axis] for axis in kept_axes(len(shape), feature_axis))


def position_shape(shape, feature_axis):
    """The shape that a mask broadcasts to."""
    kept = kept_axes(len(shape), feature_axis)
    return [1 if axis in kept else size for axis, size in enumerate(shape)]


def count(shape, feature_axis):
    return int(np.prod([shape[axis] for axis in reduced_axes(len(shape), feature_axis)], dtype=int))


def along(features, shape, feature_axis):
    """A feature-shaped array as one that broadcasts against x."""
    kept = kept_axes(len(shape), feature_axis)
    return np.asarray(features, WIDE).reshape([size if axis in kept else 1 for axis, size in enumerate(shape)])


def _sum(array, feature_axis):
    return array.sum(axis=reduced_axes(array.ndim, feature_axis), keepdims=True)


def moments(x, feature_axis=-1, weights=None):
    """Mean and population variance, about the first element, which makes equal elements exact."""
    x = np.asarray(x, WIDE)
    if weights is not None:
        return _weighted_moments(x, feature_axis, weights)
    reduced = reduced_axes(x.ndim, feature_axis)
    first = _sum(x[tuple(slice(0, 1) if axis in reduced else slice(None) for axis in range(x.ndim))], feature_axis)
    n = max(count(x.shape, feature_axis), 1)
    d = x - first
    mean = _sum(d, feature_axis) / n
    return first + mean, _sum((d - mean) ** 2, feature_axis) / n


def _weighted_moments(x, feature_axis, weights):
    """By the positions that have a weight, taken out of the data one by one; about one that has the most."""
    kept = kept_axes(x.ndim, feature_axis)
    rows = np.moveaxis(x, kept, range(-len(kept), 0)) if kept else x
    shape = feature_shape(x.shape, feature_axis)
    w = np.broadcast_to(weights, position_shape(x.shape, feature_axis)).astype(WIDE).reshape(-1)
    rows = rows.reshape(w.size, int(np.prod(shape, dtype=int)))[w != 0]
    w = w[w != 0][:, None]
    if not w.size:
        return along(np.zeros(shape), x.shape, feature_axis), along(np.zeros(shape), x.shape, feature_axis)
    heaviest = rows[np.argmax(w)]
    d = rows - heaviest
    mean = (w * d).sum(axis=0) / w.sum()
    var = (w * (d - mean) ** 2).sum(axis=0) / w.sum()
    return tuple(along(each.reshape(shape), x.shape, feature_axis) for each in (heaviest + mean, var))


def reciprocal_std(var, epsilon):
    spread = var + WIDE(epsilon)
    return np.where(spread == 0, WIDE(0), 1 / np.sqrt(np.where(spread == 0, WIDE(1), spread)))


def normalize(x, mean, var, gamma=None, beta=None, feature_axis=-1, epsilon=1e-3):
    x = np.asarray(x, WIDE)
    shape = feature_shape(x.shape, feature_axis)
    gamma = along(np.ones(shape) if gamma is None else gamma, x.shape, feature_axis)
    beta = along(np.zeros(shape) if beta is None else beta, x.shape, feature_axis)
    mean, var = along(mean, x.shape, feature_axis), along(var, x.shape, feature_axis)
    rstd = reciprocal_std(var, epsilon)
    x_hat = (x - mean) * rstd
    return Forward(mean, var, rstd, x_hat, gamma, beta, gamma * x_hat + beta)


def batch_norm(x, gamma=None, beta=None, feature_axis=-1, epsilon=1e-3, weights=None):
    return normalize(x, *moments(x, feature_axis, weights), gamma, beta, feature_axis, epsilon)


def backward(dy, x, mean, var, gamma=None, feature_axis=-1, epsilon=1e-3, frozen=False, weights=None):
    dy = np.asarray(dy, WIDE)
    forward = normalize(x, mean, var, gamma, None, feature_axis, epsilon)
    n = max(count(dy.shape, feature_axis), 1)
    dbeta, dgamma = _sum(dy, feature_axis), _sum(dy * forward.x_hat, feature_axis)
    through_moments = 0 if frozen else dbeta / n + forward.x_hat * dgamma / n
    if weights is not None and not frozen:
        w = np.asarray(weights, WIDE)
        n = np.broadcast_to(w, position_shape(dy.shape, feature_axis)).sum()
        through_moments = np.where(w == 0, 0, w * (dbeta + forward.x_hat * dgamma) / (n or 1))
    return Backward(forward.gamma * forward.rstd * (dy - through_moments), dgamma, dbeta, dy, forward)


class Activation(NamedTuple):
    """What may stand behind the normalization, by NumPy, and by a function of torch.nn.functional; NaN passes."""

    forward: Callable
    slope: Callable  # told by y, 1 where that is NaN
    edges: tuple[float, ...]  # where the slope jumps
    torch: tuple  # the function's name, and its further arguments


LEAKY = LeakyRelu(0.3)
ACTIVATIONS = {
    None: Activation(lambda v: v, np.ones_like, (), ("identity",)),
    "relu": Activation(lambda v: np.maximum(v, 0), lambda y: np.where(y <= 0, 0, 1), (0,), ("relu",)),
    "relu6": Activation(lambda v: np.clip(v, 0, 6), lambda y: np.where((y <= 0) | (y >= 6), 0, 1), (0, 6), ("relu6",)),
    LEAKY: Activation(
        lambda v: np.where(v < 0, v.dtype.type(0.3) * v, v),
        lambda y: np.where(y <= 0, 0.3, 1),
        (0,),
        ("leaky_relu", 0.3),
    ),
}


def act(exact, activation=None, residual=None):
    """A Forward's y with a residual and an activation behind it."""
    v = exact.y if residual is None else exact.y + np.asarray(residual, WIDE)
    return exact._replace(y=ACTIVATIONS[activation].forward(v))


def behind(dy, y, activation=None):
    """The gradient of what the activation was applied to, in dy's dtype."""
    return dy * ACTIVATIONS[activation].slope(y).astype(dy.dtype)


def update_moving(moving, batch, momentum):
    """One step of one moving statistic, in the dtype's own extended precision."""
    return WIDE(momentum) * moving + (1 - WIDE(momentum)) * batch
