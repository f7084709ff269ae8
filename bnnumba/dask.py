"""Batch normalization of data larger than one machine: statistics and inference on Dask's arrays (the extra `dask`)."""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import Any

import numpy as np

from bnnumba import axes, checks, forms, functional, integers, missing
from bnnumba._types import Array
from bnnumba.activations import Activation, activation_of
from bnnumba.pairs import Pair
from bnnumba.pooling import Moments, Spread, merge_moments

try:
    import dask
    import dask.array
    from dask.array.core import slices_from_chunks
    from dask.core import flatten
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.dask needs Dask: pip install 'bnnumba[dask]'") from error

FAN_IN = 16  # moments that a task merges, at most: few are held at once


def moments(
    array: Any, feature_axis: int | tuple[int, ...] = -1, *, nan_policy: functional.NanPolicy = "propagate"
) -> Moments:
    """Compute the mean and the population variance of every feature, by the scheduler or the client that is current.

        mean = sum(x)/count    var = sum((x - mean)**2)/count

    Parameters
    ----------
    array : dask array, at least 1-D, of float32, float64, float16, bfloat16, bool or integers, in any chunks
        Chunks may be empty, and of unknown sizes along the reduced axes.
    feature_axis : int or tuple of ints
        The axes that are kept; all the others are reduced.
    nan_policy : "propagate", "omit" or "raise"
        As for `bnnumba.moments`.

    Returns
    -------
    Moments
        As `bnnumba.moments` returns them. The bits depend on the values and the chunks alone: not on the scheduler, the
        workers, or whether tasks are run again.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a chunk turns out not to be.

    Notes
    -----
    One task loads a chunk and makes `bnnumba.moments` of it; a tree of tasks merges these as `merge_moments` does, in
    the order of the chunks. So a worker holds the chunks that it works on, and only moments travel. A task uses its own
    thread alone. A chunk that is not in C order is copied.
    """
    kept, _ = _features(array, feature_axis)
    missing.omits_nan(nan_policy, np.empty(0))
    merged = dask.array.reduction(  # whose blocks are Moments, as those of Dask's own variance are dicts in between
        array,
        partial(_chunk_moments, nan_policy=nan_policy),
        _merged,
        axis=tuple(axis for axis in range(array.ndim) if axis not in kept),
        dtype=object,
        split_every=FAN_IN,
        concatenate=False,
        meta=np.empty((0,) * len(kept), object),
    )
    return _joined(dask.compute(*merged.to_delayed().ravel()), merged.chunks)


def normalize(
    array: Any,
    mean: Any,
    var: Any,
    gamma: Any = None,
    beta: Any = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    epsilon: float = 1e-3,
    activation: Activation | None = None,
    residual: Any = None,
) -> Any:
    """Normalize by a given mean and variance, chunk by chunk, when the result is computed.

        y = act(gamma * (x - mean) * rstd + beta + residual)    rstd = 1/sqrt(var + epsilon)

    Parameters
    ----------
    array : dask array, as for `moments`
    mean, var : float arrays of the feature shape, of NumPy or of Dask
    gamma, beta : likewise, or None for 1 and 0
    feature_axis : int or tuple of ints
        The axes that mean, var, gamma and beta belong to.
    epsilon, activation
        As for `bnnumba.normalize`.
    residual : dask array of array's shape and dtype, or None for 0
        In any chunks, where array's are known.

    Returns
    -------
    dask array
        y, of array's shape, dtype and chunks, to the bit what `bnnumba.normalize` makes. It keeps copies of NumPy's
        arrays, so that what they hold later does not matter.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above: at once, not when the result is computed.
    """
    kept, shape = _features(array, feature_axis)
    gamma = np.ones(shape) if gamma is None else gamma
    beta = np.zeros(shape) if beta is None else beta
    chunks, everywhere = tuple(array.chunks[axis] for axis in kept), tuple(range(array.ndim))
    operands: list[Any] = [array, everywhere]
    for name, value in (("mean", mean), ("var", var), ("gamma", gamma), ("beta", beta)):
        operands += _chunked(_features_or_chunks(name, value, shape), chunks), kept
    epsilon = checks.epsilon(epsilon)
    activation_of(activation)
    if residual is not None:
        _check_like("residual", residual, array)
        known = {axis: sizes for axis, sizes in enumerate(array.chunks) if not np.isnan(sizes).any()}
        operands += residual.rechunk(known), everywhere
    return dask.array.blockwise(
        _normalize_chunk,
        everywhere,
        *operands,
        feature_axis=kept,
        epsilon=epsilon,
        activation=activation,
        meta=axes.empty_like(array._meta, _result_dtype(array._meta, residual)),
        align_arrays=False,
    )


def _features(array: Any, feature_axis: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The feature axes, from 0, and the feature shape, after a check of both arguments."""
    _check_data("array", array)
    axis = checks.axis("feature_axis", feature_axis)
    kept = axes.feature_axes(axis, array.ndim, "feature_axis")
    return kept, _known_sizes("array", tuple(array.shape[axis] for axis in kept))


def _chunked(features: Any, chunks: tuple[tuple[int, ...], ...]) -> Any:
    """A feature-shaped array in the chunks of the features."""
    if isinstance(features, dask.array.Array):
        return features.rechunk(chunks)
    return dask.array.from_array(np.array(features, np.float64), chunks)


def _chunk_moments(
    x: Array, axis: tuple[int, ...], nan_policy: functional.NanPolicy, computing_meta: bool = False, **_: Any
) -> Any:
    """The moments of a chunk, in C order: its own may change when it travels, and the order of sums with it."""
    if computing_meta:  # Dask wants any array
        return x
    kept = tuple(each for each in range(x.ndim) if each not in axis)
    with forms.without_threads():  # Dask has a task for each core
        return functional.moments(np.asanyarray(x, order="C"), kept, nan_policy=nan_policy)


def _merged(parts: Any, **_: Any) -> Moments:
    """The moments of the union, of those in nested lists; without reduced axes there are no lists."""
    found: Moments = reduce(merge_moments, flatten([parts]))
    return found


def _normalize_chunk(
    x: Array, mean: Array, var: Array, gamma: Array, beta: Array, residual: Array | None = None, **options: Any
) -> Array:
    with forms.without_threads():
        return functional.normalize(x, mean, var, gamma, beta, residual=residual, **options)


def _joined(parts: tuple[Moments, ...], chunks: tuple[tuple[int, ...], ...]) -> Moments:
    """The moments of all features, of those of their chunks."""
    mean, mean_low, var, var_low = (np.empty(tuple(map(sum, chunks))) for _ in range(4))
    for place, part in zip(slices_from_chunks(chunks), parts, strict=True):
        (mean[place], mean_low[place]), (var[place], var_low[place]) = part.spread
    count = parts[0].count
    if isinstance(count, np.ndarray):
        count = np.empty(mean.shape, count.dtype)
        for place, part in zip(slices_from_chunks(chunks), parts, strict=True):
            count[place] = part.count
    return Moments.of(Spread(Pair(mean, mean_low), Pair(var, var_low)), count)


def _result_dtype(x: Array, residual: Any) -> np.dtype[Any] | None:
    return integers.result_dtype(x, None, residual) if x.dtype.kind in "biu" else None


def _check_data(name: str, value: Any) -> None:
    if not isinstance(value, dask.array.Array):
        raise TypeError(f"{name} must be a dask array, got {checks.described(value)}")
    checks.data(f"each chunk of {name}", value._meta, integers=True)


def _known_sizes(name: str, shape: tuple[float, ...]) -> tuple[int, ...]:
    """The feature shape, in which Dask has NaN where a size is unknown."""
    if any(map(math.isnan, shape)):
        raise ValueError(f"{name} must have known sizes along the feature axes (compute_chunk_sizes), got {shape}")
    return tuple(map(int, shape))


def _features_or_chunks(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """An array of real floats of exactly the feature shape, of NumPy or of Dask."""
    if not isinstance(value, dask.array.Array):
        return checks.features(name, value, shape)
    checks.of_features(name, value, shape)
    return value


def _check_like(name: str, value: Any, array: Any) -> None:
    """Refuse what is no dask array of array's shape and dtype, with as many chunks where sizes are unknown."""
    _check_data(name, value)
    if not np.array_equal(value.shape, array.shape, equal_nan=True):
        raise ValueError(f"{name} must have the shape of array, {array.shape}, got {value.shape}")
    if value.dtype.char != array.dtype.char:
        raise TypeError(f"{name} must have the dtype of array, {array.dtype}, got {value.dtype}")
    for axis, (size, number, came) in enumerate(zip(array.shape, array.numblocks, value.numblocks, strict=True)):
        if math.isnan(size) and came != number:
            expected = f"the chunks of array where sizes are unknown, {number} along axis {axis}"
            raise ValueError(f"{name} must have {expected}, got {came}")
