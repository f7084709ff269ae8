"""Building a layer: the feature shape that it is built for, and what its weights begin as."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from operator import index
from typing import Any

import numpy as np

from bnnumba import axes, checks
from bnnumba._types import Array
from bnnumba.state import NONE_YET

Initializer = str | float | Array | Callable[[tuple[int, ...]], Any]


def initializer(name: str, value: Any) -> Any:
    """One of "zeros" and "ones", a finite number, a real array, or a callable of the shape."""
    if isinstance(value, str):
        allowed = value in ("zeros", "ones")
    elif isinstance(value, np.ndarray):
        plain = np.ndarray.view(value, np.ndarray)  # a subclass may say anything of itself
        allowed = plain.dtype.kind in "fiu" and not isinstance(value, np.ma.MaskedArray)
    elif isinstance(value, Real):
        allowed = not isinstance(value, bool) and bool(np.isfinite(checks.as_float(value)))
    else:
        allowed = callable(value)
    if not allowed:
        expected = "'zeros', 'ones', a finite number, an array of the feature shape or a callable of the shape"
        raise ValueError(f"{name} must be {expected}, got {checks.described(value)}")
    return value


def dtype(value: Any) -> np.dtype[Any]:
    """float32 or float64, by any of NumPy's names for them."""
    try:
        kind: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {checks.described(value)}") from None
    if value is None or kind not in checks.DATA_DTYPES:
        raise ValueError(f"dtype must be float32 or float64, got {checks.shown(value)}")
    return kind


def initial_weights(layer: Any, shape: tuple[int, ...]) -> dict[str, Array]:
    """A layer's new weights by name, as its initializers want them; those that it has not are None."""

    def made(name: str, dtype: Any) -> Array:
        return _initial(name, getattr(layer, name), shape, dtype)

    beta = made("beta_initializer", layer.dtype) if layer.center else NONE_YET
    gamma = made("gamma_initializer", layer.dtype) if layer.scale else NONE_YET
    mean, var = made("moving_mean_initializer", np.float64), made("moving_variance_initializer", np.float64)
    weights = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": var}
    if layer.renorm:
        stddev = np.asarray(np.sqrt(var))
        weights.update(moving_stddev=stddev, renorm_mean=mean.copy(), renorm_stddev=stddev.copy())
    return weights


def _initial(name: str, initializer: Initializer, shape: tuple[int, ...], dtype: Any) -> Array:
    """A new array of the feature shape, as an initializer wants it."""
    if isinstance(initializer, str):
        initializer = {"zeros": 0.0, "ones": 1.0}[initializer]
    if callable(initializer):
        initializer = initializer(shape)
    elif not isinstance(initializer, np.ndarray):
        initializer = np.full(shape, initializer)
    return _initial_values(name, initializer, shape, dtype)


def feature_shape(input_shape: object, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the feature axes, which are known, of a shape whose unknown sizes are None."""
    sizes = _input_shape(input_shape)
    kept = [sizes[each] for each in axes.feature_axes(axis, len(sizes), "axis")]
    known = tuple(size for size in kept if size is not None)
    if len(known) != len(kept):
        raise ValueError(f"the sizes of the feature axes must be known to build the layer, got {tuple(kept)}")
    return known


def _input_shape(value: object) -> tuple[int | None, ...]:
    if not isinstance(value, tuple | list):
        raise TypeError(f"input_shape must be a tuple, got {checks.described(value)}")
    for size in value:
        if size is not None and (isinstance(size, bool) or not hasattr(size, "__index__")):
            raise TypeError(f"input_shape must hold ints and None, got {checks.described(size)}")
        if size is not None and index(size) < 0:
            raise ValueError(f"input_shape must hold no negative size, got {tuple(value)}")
    if not value:
        raise ValueError("input_shape must have at least one axis, got ()")
    return tuple(None if size is None else index(size) for size in value)


def _initial_values(name: str, value: object, shape: tuple[int, ...], dtype: Any) -> Array:
    """What an initializer gave, where it is real numbers that fit the dtype."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must give real numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have the feature shape {shape}, got {array.shape}")
    with np.errstate(over="ignore"):
        values: Array = np.array(array, dtype)
    if (np.isinf(values) & np.isfinite(array)).any():
        raise ValueError(f"{name} must fit {np.dtype(dtype)}, got {checks.described(value)}")
    return values
