"""The only axis arithmetic: any array to its canonical view (outer, feature, inner), and back.

| array | copies |
|---|---|
| C or Fortran order, or a transpose of them, and the feature axes are adjacent in memory | none |
| the same, but the feature axes are apart in memory | one of each array of the data's size |
| sliced, broadcast, with a negative stride, unaligned, or of another byte order | one of each such array |
"""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bnnumba import buffers, checks
from bnnumba._types import Array
from bnnumba.kernels import _integers

DOUBLE = np.dtype(np.float64)
AS = {"e": np.dtype(np.uint16), "h": _integers.INT16, "H": _integers.UINT16, "?": np.dtype(np.uint8)}  # by dtype


class View(NamedTuple):
    """How an array becomes (outer, feature, inner).

    order: the array's axes, outermost of the view first. feature_order: likewise of a feature-shaped array. None where
    there is nothing to turn.
    """

    order: tuple[int, ...] | None
    shape: tuple[int, int, int]
    feature_shape: tuple[int, ...]
    feature_order: tuple[int, ...] | None
    reduced: int
    feature_axes: tuple[int, ...]
    sizes: tuple[int, ...]  # of the array

    def of(self, array: Array) -> Array:
        """The array's canonical view, or a canonical copy where there is none."""
        array = _bits(array)
        if self.order is None and _ready(array):
            return array.reshape(self.shape)
        array = self._turned(array)
        if not _plain(array):
            array = np.array(array, dtype=_native(array), order="C")
        return _writeable(array).reshape(self.shape)

    def for_result(self, out: Array) -> Array:
        """Where a kernel writes what goes to `out`: its canonical view, or a new array that `deliver` copies from."""
        out = _bits(out)
        if self.order is None and _ready(out):
            return out.reshape(self.shape)
        array = self._turned(out)
        return array.reshape(self.shape) if _plain(array) else np.empty(self.shape, _native(out))

    def deliver(self, result: Array, out: Array) -> Array:
        """Copy a kernel's result to `out`, where it is not a view of it."""
        if result.base is None:
            array = self._turned(_bits(out))
            array[...] = result.reshape(array.shape)
        return out

    def parameter(self, name: str, value: Any, default: float | None = None) -> Array:
        """Check and flatten what a caller gave as a feature-shaped array; None may stand for a default everywhere."""
        if type(value) is np.ndarray and value.dtype is DOUBLE and value.flags.carray:
            if value.shape == self.feature_shape and value.ndim == 1:
                return value
        elif value is None and default is not None:
            return _constant(self.shape[1], default)
        return self.flatten(checks.features(name, value, self.feature_shape, self.sizes))

    def of_weights(self, weights: Array, x: Array) -> Array:
        """What has x's axes and broadcasts to it, in float64: (outer, 1, inner), or where it varies by feature as x."""
        outer, feature, inner = self.shape
        sizes = list(x.shape)
        if all(weights.shape[axis] == 1 for axis in self.feature_axes):
            feature, sizes = 1, [1 if axis in self.feature_axes else size for axis, size in enumerate(sizes)]
        turned = self._turned(np.broadcast_to(weights, sizes))
        return np.array(turned, np.float64, order="C").reshape(outer, feature, inner)

    def new_features(self) -> tuple[Array, Array]:
        """Two flat arrays for a kernel's results."""
        return buffers.empty(self.shape[1], DOUBLE), buffers.empty(self.shape[1], DOUBLE)

    def flatten(self, features: Array) -> Array:
        """A feature-shaped array as the kernels take it: flat, contiguous, float64, in the view's order of features."""
        return flat_double(features if self.feature_order is None else features.transpose(self.feature_order))

    def unflatten(self, flat: Array) -> Array:
        """A kernel's flat result in the feature shape."""
        if self.feature_order is None:
            return flat if len(self.feature_shape) == 1 else flat.reshape(self.feature_shape)
        turned = flat.reshape([self.feature_shape[axis] for axis in self.feature_order])
        return np.ascontiguousarray(turned.transpose(np.argsort(self.feature_order)))

    def _turned(self, array: Array) -> Array:
        array = _base_class(array)
        return array if self.order is None else array.transpose(self.order)


def canonical_view(x: Array, feature_axis: Any, name: str = "feature_axis") -> View:
    """The view of x; errors name the argument as `name`."""
    axis = feature_axis if type(feature_axis) is int else checks.axis(name, feature_axis)
    return _view(x.shape, x.strides, axis, name)


def empty_like(x: Array, dtype: np.dtype[Any] | None = None) -> Array:
    """A new array of x's shape and memory order, in native byte order; of x's dtype unless another is given."""
    return buffers.empty_like(x, _native(x) if dtype is None else dtype)


def flat_copy(array: Array) -> Array:
    """A new array like a feature-shaped one, flat, contiguous and native, in its own dtype."""
    return np.array(array, dtype=_native(array), order="C").reshape(array.size)


def flat_double(array: Array) -> Array:
    """A feature-shaped array, flat, contiguous and float64; a view, or itself, where it is so already."""
    if array.dtype is not DOUBLE or type(array) is not np.ndarray or not _plain(array):
        given, array = array, buffers.empty(array.size, DOUBLE)
        array.reshape(given.shape)[...] = given
    return _writeable(array if array.ndim == 1 else array.reshape(array.size))


def feature_axes(axis: int | tuple[int, ...], ndim: int, name: str) -> tuple[int, ...]:
    """The feature axes of an array with `ndim` axes: from 0, ascending."""
    given = axis if isinstance(axis, tuple) else (axis,)
    for item in given:
        if not -ndim <= item < ndim:
            raise np.exceptions.AxisError(f"{name} {item} is out of bounds for an array with {ndim} axes")
    positive = sorted(item % ndim for item in given)
    if len(set(positive)) != len(positive):
        raise ValueError(f"{name} must not repeat an axis, got {given} for an array with {ndim} axes")
    return tuple(positive)


@lru_cache(maxsize=1024)
def _view(shape: tuple[int, ...], strides: tuple[int, ...], axis: int | tuple[int, ...], name: str) -> View:
    kept = feature_axes(axis, len(shape), name)
    # Axes of one element have no place in memory: they go first, and do not part what is adjacent.
    by_memory = sorted(range(len(shape)), key=lambda a: (shape[a] != 1, -abs(strides[a])))
    features = [a for a in by_memory if a in kept]
    last = by_memory.index(features[-1]) if features and shape[features[-1]] != 1 else -1
    outer = [a for a in by_memory[: last + 1] if a not in kept]
    inner = [a for a in by_memory[last + 1 :] if a not in kept]
    sizes = [prod(shape[a] for a in group) for group in (outer, features, inner)]
    feature_order = tuple(kept.index(a) for a in features)
    order = tuple(outer + features + inner)
    return View(
        None if order == tuple(range(len(shape))) else order,
        (sizes[0], sizes[1], sizes[2]),
        tuple(shape[a] for a in kept),
        None if feature_order == tuple(sorted(feature_order)) else feature_order,
        sizes[0] * sizes[2],
        kept,
        shape,
    )


def _ready(array: Array) -> bool:
    """Whether an array is as the kernels take it, but for its shape: a cheap test for the common case."""
    return type(array) is np.ndarray and array.flags.carray and array.dtype.isnative


def _bits(array: Array) -> Array:
    """Half precision, 16-bit integers and bool as the kernels take them; anything else as it is."""
    if array.itemsize > 2:
        return array
    kind = AS.get(array.dtype.char)
    if kind is None:
        if array.itemsize == 1:
            return array
        kind = np.dtype(np.int16)  # of bfloat16, whose letter is of no meaning
    return array.view(kind if array.dtype.isnative else kind.newbyteorder())


def _plain(array: Array) -> bool:
    flags = array.flags
    return bool(flags.c_contiguous and flags.aligned and array.dtype.isnative)


def _base_class(array: Array) -> Array:
    return array if type(array) is np.ndarray else array.view(np.ndarray)


def _native(array: Array) -> np.dtype[Any]:
    return array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")


@lru_cache(maxsize=64)
def _constant(size: int, value: float) -> Array:
    return np.full(size, value)


class _Unlocked:
    """The memory of a read-only array, offered as writeable: only the type changes, the kernels do not write to it.

    Numba takes a read-only array for another type, and would compile every kernel once more for each mixture of them.
    """

    def __init__(self, array: Array) -> None:
        self._keep_alive = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def _writeable(array: Array) -> Array:
    return array if array.flags.writeable else np.asarray(_Unlocked(array)).view(array.dtype)
