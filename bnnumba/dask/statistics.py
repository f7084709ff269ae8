"""`moments` of Dask's arrays."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import dask
import dask.array
import numpy as np
from dask.array.core import slices_from_chunks
from dask.core import flatten

from bnnumba import checks, forms, functional, missing
from bnnumba._types import Array
from bnnumba.dask.checks import as_many_chunks, features_of, known_chunks
from bnnumba.pairs import Pair
from bnnumba.pooling import Moments, Spread, merge_moments

FAN_IN = 16  # moments that a task merges, at most: few are held at once


def moments(
    array: Any,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    mask: Any = None,
    sample_weight: Any = None,
    nan_policy: functional.NanPolicy = "propagate",
    compute: bool = True,
) -> Moments:
    """Compute the mean and the population variance of every feature, by the scheduler or the client that is current.

        mean = sum(x)/count    var = sum((x - mean)**2)/count

    Parameters
    ----------
    array : dask array, at least 1-D, of float32, float64, float16, bfloat16, bool or integers, in any chunks
        Chunks may be empty, and of unknown sizes along the reduced axes.
    feature_axis : int or tuple of ints
        The axes that are kept; all the others are reduced.
    mask, sample_weight
        As for `bnnumba.moments`: arrays of NumPy or of Dask that broadcast to array. Along axes of unknown sizes, they
        have size 1 or array's chunks.
    nan_policy : "propagate", "omit" or "raise"
        As for `bnnumba.moments`.
    compute : bool
        False returns at once, with what `dask.compute` makes numbers of, together with other results.

    Returns
    -------
    Moments
        As `bnnumba.moments` returns them; with compute=False mean, var and count are dask arrays, and their Moments
        lack the digits that go along unseen. The bits depend on the values and the chunks alone: not on the scheduler,
        the workers, or whether tasks are run again.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, at once; if a chunk or its weights turn out not to be, when that is computed.

    Notes
    -----
    One task loads a chunk and makes `bnnumba.moments` of it; a tree of tasks merges these as `merge_moments` does, in
    the order of the chunks. So a worker holds the chunks that it works on, and only moments travel. A task uses its own
    thread alone. A chunk that is not in C order is copied.
    """
    kept, _ = features_of(array, feature_axis)
    missing.omits_nan(nan_policy, np.empty(0))
    weights = _weights_of(array, mask, sample_weight)
    by_feature = nan_policy == "omit" or not set(kept).isdisjoint(weights.axes)
    merged = _merged_moments(array, kept, weights, nan_policy)
    if not checks.flag("compute", compute):
        return _lazy(merged, by_feature, np.dtype(np.int64 if sample_weight is None else np.float64))
    return _joined(dask.compute(*merged.to_delayed().ravel()), merged.chunks, by_feature)


class _Weights(NamedTuple):
    """A mask or weights by name, if there are any: a dask array that has only those of the axes where they vary."""

    name: str
    values: Any = None
    axes: tuple[int, ...] = ()


def _weights_of(array: Any, mask: Any, sample_weight: Any) -> _Weights:
    name, given = checks.mask_or_weight(mask, sample_weight)
    if given is None:
        return _Weights(name)
    if not isinstance(given, dask.array.Array):
        given = dask.array.from_array(checks.numpy_array(name, given))
    checks.kind_of_weights(name, given.dtype)
    sizes = (1,) * (array.ndim - given.ndim) + given.shape
    varying = tuple(axis for axis, size in enumerate(sizes) if size != 1)
    shared = [most if axis in varying else 1 for axis, most in enumerate(array.shape)]
    if not np.array_equal(sizes, shared, equal_nan=True):
        unknown = np.isnan(array.shape).any() and not np.isnan(given.shape).any()
        cure = ": where sizes are unknown, give chunks as array has them, or compute_chunk_sizes" if unknown else ""
        raise ValueError(f"{name} must broadcast to array's shape {array.shape}, got {given.shape}{cure}")
    given = given[(None,) * (array.ndim - given.ndim)]
    given = given.rechunk({axis: sizes for axis, sizes in known_chunks(array).items() if axis in varying})
    as_many_chunks(name, given, array, varying)
    return _Weights(name, given[tuple(slice(None) if axis in varying else 0 for axis in range(array.ndim))], varying)


def _merged_moments(array: Any, kept: tuple[int, ...], weights: _Weights, nan_policy: str) -> Any:
    """A dask array whose blocks are Moments, as those of Dask's own variance are dicts in between."""
    everywhere, others = tuple(range(array.ndim)), () if weights.values is None else (weights.values, weights.axes)
    options = {"kept": kept, "kind": weights.name, "varying": weights.axes, "nan_policy": nan_policy}
    nothing, features = np.empty((0,) * array.ndim, object), np.empty((0,) * len(kept), object)
    parts = dask.array.blockwise(
        _of_chunk, everywhere, array, everywhere, *others, **options, meta=nothing, align_arrays=False
    )
    reduced = tuple(axis for axis in everywhere if axis not in kept)
    how = {"dtype": object, "split_every": FAN_IN, "concatenate": False, "meta": features}
    return dask.array.reduction(parts, _itself, _merged, axis=reduced, **how)


def _of_chunk(
    x: Array,
    weights: Array | None = None,
    *,
    kept: tuple[int, ...],
    kind: str,
    varying: tuple[int, ...],
    nan_policy: functional.NanPolicy,
) -> Moments:
    """The moments of a chunk, in C order: its own may change when it travels, and the order of sums with it."""
    given: dict[str, Any] = {}
    if weights is not None:
        sizes = tuple(x.shape[axis] for axis in varying)
        if weights.shape != sizes:  # one of size 1 would count for all
            raise ValueError(f"a chunk of {kind} must have the sizes of array's, {sizes}, got {weights.shape}")
        given[kind] = np.expand_dims(weights, tuple(axis for axis in range(x.ndim) if axis not in varying))
    with forms.without_threads():  # Dask has a task for each core
        return functional.moments(np.asanyarray(x, order="C"), kept, nan_policy=nan_policy, **given)


def _itself(part: Any, **_: Any) -> Any:
    return part


def _merged(parts: Any, **_: Any) -> Moments:
    """The moments of the union, of those in nested lists; without reduced axes there are no lists."""
    found: Moments = reduce(merge_moments, flatten([parts]))
    return found


def _joined(parts: tuple[Moments, ...], chunks: tuple[tuple[int, ...], ...], by_feature: bool) -> Moments:
    """The moments of all features, of those of their chunks."""
    mean, mean_low, var, var_low = (np.empty(tuple(map(sum, chunks))) for _ in range(4))
    count = np.empty(mean.shape, np.asarray(parts[0].count).dtype)
    for place, part in zip(slices_from_chunks(chunks), parts, strict=True):
        (mean[place], mean_low[place]), (var[place], var_low[place]) = part.spread
        count[place] = part.count
    return Moments.of(Spread(Pair(mean, mean_low), Pair(var, var_low)), count if by_feature else parts[0].count)


def _lazy(merged: Any, by_feature: bool, count_dtype: np.dtype[Any]) -> Moments:
    """Moments of dask arrays, of blocks that are Moments."""
    mean, var = (merged.map_blocks(_field, name, dtype=np.float64, meta=np.empty(())) for name in ("mean", "var"))
    if by_feature:
        return Moments(mean, var, merged.map_blocks(_field, "count", dtype=count_dtype, meta=np.empty((), count_dtype)))
    first = merged.to_delayed().ravel()[0]
    return Moments(mean, var, dask.array.from_delayed(dask.delayed(_count)(first), (), count_dtype))


def _field(part: Moments, name: str) -> Array:
    return np.broadcast_to(getattr(part, name), part.mean.shape)


def _count(part: Moments) -> Array:
    """The count that all features share."""
    return np.asarray(part.count)
