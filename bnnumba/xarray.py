"""Moments and standardization of xarray's labelled arrays, by the names of dimensions (the extra `xarray`)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np

from bnnumba import checks, functional
from bnnumba.functional import NanPolicy
from bnnumba.pooling import Moments, constant

try:
    import xarray
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.xarray needs xarray: pip install 'bnnumba[xarray]'") from error

Dims = Hashable | Iterable[Hashable] | None


class Labelled(NamedTuple):
    """Mean, population variance and the number of values, or the sum of their weights: of obj's class each."""

    mean: Any
    var: Any
    count: Any


def moments(obj: Any, dim: Dims = None, *, skipna: bool = True, weights: Any = None) -> Labelled:
    """Compute the mean and the population variance along dimensions.

        count = sum(w)    mean = sum(w*x)/count    var = sum(w*(x - mean)**2)/count    w = 1 without weights

    Parameters
    ----------
    obj : DataArray or Dataset, of floats, bool or integers
        In NumPy's memory, or in Dask's, which is then computed. Of a Dataset, those variables that have one of the
        dimensions; others of numbers stay out.
    dim : name, or names, of what is reduced; None for all dimensions
    skipna : bool
        Whether NaN counts as absent. False makes the moments NaN.
    weights : DataArray of bool or of finite numbers >= 0, optional
        How much each value counts, along any of obj's dimensions, with the same coordinates.

    Returns
    -------
    Labelled
        (mean, var, count), each a DataArray, or a Dataset, without these dimensions: mean and var float64, with names,
        coordinates and attributes kept. Where count is 0, mean and var are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    if isinstance(obj, xarray.Dataset):
        chosen = _variables(obj, dim)
        parts = {name: moments(array, own, skipna=skipna, weights=weights) for name, (array, own) in chosen.items()}
        by_field = ({name: part[k] for name, part in parts.items()} for k in range(len(Labelled._fields)))
        return Labelled(*(xarray.Dataset(each, attrs=obj.attrs) for each in by_field))
    reduced = _reduced(obj, dim)
    found = _moments(obj, reduced, skipna, weights)
    mean, var = (np.where(np.equal(found.count, 0), np.nan, each) for each in found[:2])
    return Labelled(*(_labelled(obj, reduced, each) for each in (mean, var, found.count)))


def standardize(obj: Any, dim: Dims = None, *, skipna: bool = True, weights: Any = None) -> Any:
    """Give mean 0 and variance 1 along dimensions: anomalies in standard deviations.

        y = (x - mean)/sqrt(var)
        0 where values are equal but for rounding: var <= n*eps*var + (n*eps*mean)**2, n = count, but from 8 to 2**16

    Parameters
    ----------
    obj, dim, skipna, weights
        As for `moments`. Variables of a Dataset that have none of the dimensions stay as they are.

    Returns
    -------
    DataArray or Dataset
        Like obj, with names, coordinates and attributes kept, and no encoding; of obj's dtype, or of integers float32
        up to 16 bits and float64 beyond. In Dask's memory it is lazy, with mean and var computed at once.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    if isinstance(obj, xarray.Dataset):
        chosen = _variables(obj, dim)
        made = {n: standardize(array, own, skipna=skipna, weights=weights) for n, (array, own) in chosen.items()}
        return obj.assign(made)
    reduced = _reduced(obj, dim)
    mean, var, count = _moments(obj, reduced, skipna, weights)
    nothing = np.equal(count, 0)
    by = np.where(nothing, np.nan, mean), np.where(constant(mean, var, count), 1.0, var), None, None
    made = obj.copy(data=_library(obj).normalize(obj.data, *by, _kept(obj, reduced), epsilon=0.0))
    made.encoding = {}  # a file's integers and units would not hold these values
    return made


def _moments(obj: Any, reduced: tuple[Hashable, ...], skipna: bool, weights: Any) -> Moments:
    policy: NanPolicy = "omit" if checks.flag("skipna", skipna) and obj.dtype.kind == "f" else "propagate"
    given = None if weights is None else _weights(weights, obj)
    found: Moments = _library(obj).moments(obj.data, _kept(obj, reduced), sample_weight=given, nan_policy=policy)
    return found


def _library(obj: Any) -> Any:
    """The functions for the memory that obj has."""
    if obj.chunks is None:
        return functional
    from bnnumba import dask  # noqa: PLC0415  # an extra

    return dask


def _kept(obj: Any, reduced: tuple[Hashable, ...]) -> tuple[int, ...]:
    return tuple(axis for axis, name in enumerate(obj.dims) if name not in reduced)


def _labelled(obj: Any, reduced: tuple[Hashable, ...], values: Any) -> Any:
    """A DataArray of values for each feature, with what obj has beside its data."""
    dims = [name for name in obj.dims if name not in reduced]
    coords = {name: coord for name, coord in obj.coords.items() if set(coord.dims) <= set(dims)}
    values = np.broadcast_to(values, [obj.sizes[name] for name in dims]).copy()
    return xarray.DataArray(values, coords, dims, obj.name, obj.attrs)


def _weights(weights: Any, obj: Any) -> Any:
    """Weights as an array with obj's axes, of size 1 where they have none; of Dask's only where obj is, too."""
    if not isinstance(weights, xarray.DataArray):
        raise TypeError(f"weights must be a DataArray, got {checks.described(weights)}")
    unknown = [name for name in weights.dims if name not in obj.dims]
    if unknown:
        name = "obj" if obj.name is None else f"the variable {obj.name!r}"
        cure = "" if obj.name is None else ": of a Dataset, choose the variables that have them, obj[[...]]"
        raise ValueError(f"weights must have dimensions of {name}, {obj.dims}, got {weights.dims}{cure}")
    xarray.align(obj, weights, join="exact")
    others = [name for name in obj.dims if name not in weights.dims]
    turned = weights.expand_dims(others).transpose(*obj.dims)
    values = turned.values if obj.chunks is None else turned.data
    return values.astype(np.float64) if values.dtype == np.bool_ else values


def _reduced(obj: Any, dim: Dims) -> tuple[Hashable, ...]:
    """The dimensions that are reduced, as obj has them."""
    if not isinstance(obj, xarray.DataArray):
        raise TypeError(f"obj must be a DataArray or a Dataset, got {checks.described(obj)}")
    if obj.dtype.kind not in "fbiu":
        raise TypeError(f"obj must be of floats, bool or integers, got {obj.dtype}")
    names = _names(obj, dim)
    missing = [name for name in names if name not in obj.dims]
    if missing or not names:
        raise ValueError(f"dim must name dimensions of obj, {obj.dims}, got {checks.shown(dim)}")
    return names


def _names(obj: Any, dim: Any) -> tuple[Hashable, ...]:
    if dim is None or dim is ...:
        return tuple(obj.dims)
    if isinstance(dim, str) or not isinstance(dim, Iterable):
        return (dim,)
    return tuple(dim)


def _variables(obj: Any, dim: Dims) -> dict[Any, tuple[Any, tuple[Hashable, ...]]]:
    """The variables of numbers that have one of the dimensions, and which they have."""
    names = _names(obj, dim)
    missing = [name for name in names if name not in obj.dims]
    if missing:
        raise ValueError(f"dim must name dimensions of obj, {tuple(obj.dims)}, got {checks.shown(dim)}")
    own = {name: tuple(each for each in names if each in array.dims) for name, array in obj.data_vars.items()}
    return {name: (obj[name], own[name]) for name in own if own[name] and obj[name].dtype.kind in "fbiu"}
