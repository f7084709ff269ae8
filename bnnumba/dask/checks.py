"""Checks of Dask's arrays: of what they say of themselves, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import dask.array
import numpy as np

from bnnumba import axes, checks


def features_of(array: Any, feature_axis: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The feature axes, from 0, and the feature shape, after a check of both arguments."""
    data("array", array)
    axis = checks.axis("feature_axis", feature_axis)
    kept = axes.feature_axes(axis, array.ndim, "feature_axis")
    return kept, _known_sizes("array", tuple(array.shape[axis] for axis in kept))


def data(name: str, value: Any) -> None:
    """Refuse what is no dask array of data."""
    if not isinstance(value, dask.array.Array):
        raise TypeError(f"{name} must be a dask array, got {checks.described(value)}{_cure(value)}")
    checks.data(f"each chunk of {name}", value._meta, integers=True)


def features(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """An array of real floats of exactly the feature shape, of NumPy or of Dask."""
    if not isinstance(value, dask.array.Array):
        return checks.features(name, value, shape)
    checks.of_features(name, value, shape)
    return value


def like(name: str, value: Any, array: Any) -> None:
    """Refuse what is no dask array of array's shape and dtype, with as many chunks where sizes are unknown."""
    data(name, value)
    if not np.array_equal(value.shape, array.shape, equal_nan=True):
        raise ValueError(f"{name} must have the shape of array, {array.shape}, got {value.shape}")
    if value.dtype.char != array.dtype.char:
        raise TypeError(f"{name} must have the dtype of array, {array.dtype}, got {value.dtype}")
    as_many_chunks(name, value, array, range(array.ndim))


def as_many_chunks(name: str, value: Any, array: Any, along: Iterable[int]) -> None:
    """Refuse another number of chunks than array has, along axes of sizes that are unknown."""
    for axis in along:
        number, came = array.numblocks[axis], value.numblocks[axis]
        if math.isnan(array.shape[axis]) and came != number:
            expected = f"the chunks of array where sizes are unknown, {number} along axis {axis}"
            raise ValueError(f"{name} must have {expected}, got {came}")


def known_chunks(array: Any) -> dict[int, tuple[int, ...]]:
    """The chunks along those axes where their sizes are known."""
    return {axis: sizes for axis, sizes in enumerate(array.chunks) if not np.isnan(sizes).any()}


def _cure(value: Any) -> str:
    """What to do with data that is in no dask array."""
    if type(value).__module__.partition(".")[0] == "xarray":
        return ": use bnnumba.xarray"
    if hasattr(value, "to_dask_array"):
        return ": use .to_dask_array(), or bnnumba.dask.Standardizer"
    return ": use bnnumba itself, or bnnumba.sklearn" if hasattr(value, "__array__") else ""


def _known_sizes(name: str, shape: tuple[float, ...]) -> tuple[int, ...]:
    """The feature shape, in which Dask has NaN where a size is unknown."""
    if any(map(math.isnan, shape)):
        raise ValueError(f"{name} must have known sizes along the feature axes (compute_chunk_sizes), got {shape}")
    return tuple(map(int, shape))
