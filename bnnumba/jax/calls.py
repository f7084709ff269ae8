"""The targets as functions of JAX's arrays. They have no derivatives: `derivatives` has.

    data        (outer, feature, inner)
    features    (feature,), float32, or float64 where JAX has that
    rows        (rows, feature, 2) of uint32: the bits of float64 (rows, feature)

Under vmap, what is mapped over becomes more features: one call computes them all.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from bnnumba.activations import activation_of
from bnnumba.jax.targets import Target, prepare

Array = jax.Array

DATA, TWO_ROWS, FOUR_ROWS, FEATURES = "data", 2, 4, "features"  # what a result is


class Options(NamedTuple):
    """What must be known when a call is traced: JAX tells compiled functions apart by it.

    activation: a text of `activations.text_of`: instances of different classes may be equal. residual: whether there is
    one.
    """

    epsilon: float
    activation: str
    residual: bool

    @property
    def masks(self) -> bool:
        """Whether the gradient of the residual is another than dy."""
        return self.residual and self.activation != ""


def forward(options: Options, x: Array, gamma: Array, beta: Array, residual: Array | None) -> tuple[Array, ...]:
    """Return y; the rows mean, var, gamma and beta; mean and var as features."""
    call = _call(_target("forward", options, x), options, (DATA, FOUR_ROWS, FEATURES, FEATURES))
    return call(x, gamma, beta, *_given(residual))


def inference(options: Options, x: Array, features: tuple[Array, ...], residual: Array | None) -> tuple[Array, ...]:
    """Return y; and the rows mean, var, gamma and beta, which are the features."""
    call = _call(_target("inference", options, x), options, (DATA, FOUR_ROWS))
    return call(x, *features, *_given(residual))


def backward(kind: str, options: Options, dy: Array, x: Array, rows: Array, y: Array | None) -> tuple[Array, ...]:
    """Return dx; the rows dgamma and dbeta; these as features; and where it `masks`, dresidual.

    kind: "backward" of `forward`, or "frozen", of `inference`. y: the forward's, where `takes_y` says so.
    """
    results = (DATA, TWO_ROWS, FEATURES, FEATURES, *[DATA] * options.masks)
    return _call(_target(kind, options, x), options, results)(dy, x, rows, *_given(y))


def alike(arrays: Any) -> Any:
    """Let arrays vary along the same axes of a `shard_map`: one that did not has then the sum of all gradients."""
    every = frozenset().union(*map(_varying, jax.tree.leaves(arrays)))

    def varied(array: Array) -> Array:
        missing = tuple(every - _varying(array))
        return jax.lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(varied, arrays)


def _varying(array: Array) -> frozenset[Any]:
    kind: Any = jax.typeof(array)
    axes: frozenset[Any] = kind.mat.varying if hasattr(kind, "mat") else kind.vma  # as before JAX 0.10
    return axes


def takes_y(kind: str, options: Options, x: Array) -> bool:
    """Whether such a backward reads the forward's y."""
    return _target(kind, options, x).takes_y


def behind(options: Options, dy: Array, y: Array) -> Array:
    """Return dresidual: dy behind the activation that gave y."""
    (dresidual,) = _call(_target("behind", options, y), options, (DATA,))(dy, y)
    return dresidual


def wide() -> np.dtype[Any]:
    """The dtype of features: float64, or float32 where JAX has no float64."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def _target(kind: str, options: Options, x: Array) -> Target:
    act = activation_of(options.activation or None)
    return Target(kind, x.dtype.name, type(act).__name__ if act is not None else "", options.residual)


def _given(array: Array | None) -> tuple[Array, ...]:
    return () if array is None else (array,)


@cache
def _call(target: Target, options: Options, results: tuple[Any, ...]) -> Callable[..., tuple[Array, ...]]:
    """The function that calls a target with data first, and returns such results."""
    parameters: tuple[float, ...] = activation_of(options.activation or None) or ()
    slope = parameters[0] if parameters else 0.0
    attributes = {"epsilon": np.float64(options.epsilon), "slope": np.float64(slope)}

    @custom_vmap
    def call(*arguments: Array) -> tuple[Array, ...]:
        data = arguments[0]
        name = prepare(target, data.size * data.dtype.itemsize)
        arguments = alike(arguments)
        shapes = [_result(each, arguments[0]) for each in results]
        return tuple(jax.ffi.ffi_call(name, shapes)(*arguments, **attributes))

    @call.def_vmap
    def call_mapped(size: int, mapped: Any, *arguments: Array) -> Any:
        every = [a if has else jnp.broadcast_to(a, (size, *a.shape)) for a, has in zip(arguments, mapped, strict=True)]
        found = call(*map(_folded, every))
        return tuple(_unfolded(each, size) for each in found), (True,) * len(found)

    return call


def _result(kind: Any, data: Array) -> Any:
    """What describes a result; it varies along the axes of a `shard_map` that the data varies along."""
    shape, dtype = {
        DATA: (data.shape, data.dtype),
        FEATURES: ((data.shape[1],), wide()),
    }.get(kind, ((kind, data.shape[1], 2), np.dtype(np.uint32)))
    return jax.eval_shape(lambda data: jnp.broadcast_to(jnp.sum(data).astype(dtype), shape), data)


def _folded(array: Array) -> Array:
    """An array with an axis more, the first, as one without: its features are all features along that axis."""
    axis = 1 if array.ndim == 4 else 0
    moved = jnp.moveaxis(array, 0, axis)
    size, feature = moved.shape[axis : axis + 2]
    return moved.reshape(*moved.shape[:axis], size * feature, *moved.shape[axis + 2 :])


def _unfolded(array: Array, size: int) -> Array:
    axis = 1 if array.ndim == 3 else 0
    parted = array.reshape(*array.shape[:axis], size, array.shape[axis] // size, *array.shape[axis + 1 :])
    return jnp.moveaxis(parted, axis, 0)
