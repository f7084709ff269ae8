"""The public functions: check, view, call, restore."""

from __future__ import annotations

from functools import partial
from math import prod
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnnumba import axes, checks
from bnnumba.activations import Activation, text_of
from bnnumba.jax import calls, derivatives
from bnnumba.jax.calls import Options
from bnnumba.jax.targets import DTYPES

Array = jax.Array


def batch_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    epsilon: float = 1e-3,
    activation: Activation | None = None,
    residual: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Normalize x by its own moments: the training forward.

        y = act(gamma * (x - mean) * rstd + beta + residual)    rstd = 1/sqrt(var + epsilon)
        mean = sum(x)/count    var = sum((x - mean)**2)/count

    Parameters
    ----------
    x : array of JAX or NumPy, at least 1-D, float32, float64, float16 or bfloat16
        On the CPU. Of NumPy's float64 JAX makes float32, unless jax_enable_x64 is set.
    gamma, beta : arrays of real floats, of the feature shape (x's sizes along `axis`), or None for 1 and 0
    axis : int or tuple of ints
        The feature axes, which are kept, as in Keras and Flax; all others are reduced.
    epsilon : real number >= 0
        A number of Python, no array. Flax's is 1e-5.
    activation : None, a name or an instance of `bnnumba.activations`
    residual : array of x's shape and dtype, or None for 0

    Returns
    -------
    y : array
        Of x's shape and dtype.
    mean, var : arrays of the feature shape
        Of the batch, float64 rounded to float32 where JAX has no float64; var is the population variance.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    RuntimeError
        If JAX's version of XLA is not known, or NUMBA_DISABLE_JIT is set.

    Notes
    -----
    Differentiable in reverse (`jax.grad`, `jax.vjp`, `jax.jacrev`), in y, mean and var, as often as one likes; not in
    forward mode. The backward pass has mean and var in float64. Under `jax.vmap`, each slice has moments of its own.
    """
    x, view, options = _problem(x, axis, epsilon, activation, residual)
    gamma, beta = _features("gamma", gamma, view, 1.0), _features("beta", beta, view, 0.0)
    outputs: tuple[Array, Array, Array] = _batch_norm(options, view, x, gamma, beta, residual)
    return outputs


def normalize(
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    epsilon: float = 1e-3,
    activation: Activation | None = None,
    residual: Array | None = None,
) -> Array:
    """Normalize x by a given mean and variance: inference, with moving statistics.

        y = act(gamma * (x - mean) * rstd + beta + residual)    rstd = 1/sqrt(var + epsilon)

    Parameters
    ----------
    mean, var : arrays of real floats, of the feature shape
    x, gamma, beta, axis, epsilon, activation, residual
        As for `batch_norm`. Where var + epsilon is 0, rstd is taken as 0.

    Returns
    -------
    array
        y, of x's shape and dtype.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `batch_norm` does.

    Notes
    -----
    Differentiable as `batch_norm`, in mean and var too.
    """
    x, view, options = _problem(x, axis, epsilon, activation, residual)
    statistics = _features("mean", mean, view), _features("var", var, view)
    affine = _features("gamma", gamma, view, 1.0), _features("beta", beta, view, 0.0)
    y: Array = _normalize(options, view, x, (*statistics, *affine), residual)
    return y


@partial(jax.jit, static_argnums=(0, 1))
def _batch_norm(options: Options, view: axes.View, x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
    inputs = _of(view, x), _flat(view, gamma), _flat(view, beta), _of(view, residual)
    y, mean, var, _ = derivatives.batch_norm(options, *calls.alike(inputs))
    return _restored(view, y, x), _unflattened(view, mean), _unflattened(view, var)


@partial(jax.jit, static_argnums=(0, 1))
def _normalize(options: Options, view: axes.View, x: Any, features: Any, residual: Any) -> Any:
    inputs = _of(view, x), tuple(_flat(view, each) for each in features), _of(view, residual)
    y, _ = derivatives.normalize(options, *calls.alike(inputs))
    return _restored(view, y, x)


# ---- views


def _view(x: Any, axis: Any) -> axes.View:
    """The view that an array of NumPy's would have in C order, as XLA's arrays are."""
    strides = tuple(x.dtype.itemsize * prod(max(size, 1) for size in x.shape[i + 1 :]) for i in range(x.ndim))
    like: Any = SimpleNamespace(shape=x.shape, strides=strides)
    return axes.canonical_view(like, axis, "axis")


def _of(view: axes.View, array: Array | None) -> Array | None:
    if array is None:
        return None
    return (array if view.order is None else array.transpose(view.order)).reshape(view.shape)


def _restored(view: axes.View, y: Array, x: Array) -> Array:
    if view.order is None:
        return y.reshape(x.shape)
    return y.reshape([x.shape[axis] for axis in view.order]).transpose(np.argsort(view.order))


def _flat(view: axes.View, features: Array) -> Array:
    turned = features if view.feature_order is None else features.transpose(view.feature_order)
    return turned.reshape(view.shape[1]).astype(calls.wide())


def _unflattened(view: axes.View, flat: Array) -> Array:
    if view.feature_order is None:
        return flat.reshape(view.feature_shape)
    turned = flat.reshape([view.feature_shape[axis] for axis in view.feature_order])
    return turned.transpose(np.argsort(view.feature_order))


# ---- checks


def _problem(x: Any, axis: Any, epsilon: Any, activation: Any, residual: Any) -> tuple[Array, axes.View, Options]:
    x = _data("x", x)
    if residual is not None:
        _like("residual", residual, x)
    view = _view(x, axis)
    return x, view, Options(checks.epsilon(epsilon), text_of(activation), residual is not None)


def _array(name: str, value: Any) -> Any:
    if not isinstance(value, jax.Array | np.ndarray):
        raise TypeError(f"{name} must be an array of JAX or NumPy, got {checks.described(value)}")
    if not isinstance(value, jax.core.Tracer | np.ndarray):
        _on_cpu(name, value)
    return jnp.asarray(value)


def _on_cpu(name: str, value: Any) -> None:
    platforms = sorted({device.platform for device in value.devices()})
    if platforms != ["cpu"]:
        raise ValueError(f"{name} must be on the CPU, got an array on {', '.join(platforms)}")


def _data(name: str, value: Any) -> Any:
    array = _array(name, value)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"{name} must be {', '.join(DTYPES)}, got {array.dtype}")
    if array.ndim == 0:
        raise TypeError(f"{name} must have at least one axis, got a 0-d array")
    return array


def _like(name: str, value: Any, x: Array) -> Any:
    array = _data(name, value)
    if array.shape != x.shape:
        raise ValueError(f"{name} must have the shape of x, {x.shape}, got {array.shape}")
    if array.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {array.dtype}")
    return array


def _features(name: str, value: Any, view: axes.View, default: float | None = None) -> Array:
    if value is None and default is not None:
        return jnp.full(view.feature_shape, default, calls.wide())
    array: Array = _array(name, value)
    checks.of_features(name, array, view.feature_shape)
    return array
