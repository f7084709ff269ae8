"""`normalize` of Dask's arrays."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np

from bnnumba import axes, checks, forms, functional, integers
from bnnumba._types import Array
from bnnumba.activations import Activation, activation_of
from bnnumba.dask.checks import features, features_of, known_chunks, like


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
    kept, shape = features_of(array, feature_axis)
    gamma = np.ones(shape) if gamma is None else gamma
    beta = np.zeros(shape) if beta is None else beta
    chunks, everywhere = tuple(array.chunks[axis] for axis in kept), tuple(range(array.ndim))
    operands: list[Any] = [array, everywhere]
    for name, value in (("mean", mean), ("var", var), ("gamma", gamma), ("beta", beta)):
        operands += _chunked(features(name, value, shape), chunks), kept
    epsilon = checks.epsilon(epsilon)
    activation_of(activation)
    if residual is not None:
        like("residual", residual, array)
        operands += residual.rechunk(known_chunks(array)), everywhere
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


def _chunked(features: Any, chunks: tuple[tuple[int, ...], ...]) -> Any:
    """A feature-shaped array in the chunks of the features."""
    if isinstance(features, dask.array.Array):
        return features.rechunk(chunks)
    return dask.array.from_array(np.array(features, np.float64), chunks)


def _normalize_chunk(
    x: Array, mean: Array, var: Array, gamma: Array, beta: Array, residual: Array | None = None, **options: Any
) -> Array:
    with forms.without_threads():
        return functional.normalize(x, mean, var, gamma, beta, residual=residual, **options)


def _result_dtype(x: Array, residual: Any) -> np.dtype[Any] | None:
    return integers.result_dtype(x, None, residual) if x.dtype.kind in "biu" else None
