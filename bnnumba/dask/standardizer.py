"""Standardizing Dask's arrays and tables, lazily, by scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np

from bnnumba import checks, forms, functional
from bnnumba.dask.checks import features_of
from bnnumba.dask.inference import normalize
from bnnumba.dask.statistics import moments
from bnnumba.standardizing import Seen, Standardizing

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.dask.Standardizer needs scikit-learn: pip install 'bnnumba[sklearn]'") from error


class Standardizer(Standardizing, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Give every feature of Dask's arrays and DataFrames mean 0 and variance 1, as `bnnumba.sklearn.Standardizer` does.

        transform: y = (x - mean_)/scale_    inverse_transform: x = y*scale_ + mean_    scale_ = sqrt(var_)

    `fit` and `partial_fit` compute, once over the data; `transform` and `inverse_transform` are lazy. NaN counts as
    missing and stays NaN. A feature that is constant but for rounding has scale_ 1.

    Parameters
    ----------
    feature_axis : int or tuple of ints
        The axes that are kept, as for `moments`: -1, the columns of a table.
    with_mean, with_std : bool
        Whether mean_ is subtracted, and whether scale_ divides.
    copy : bool
        As in scikit-learn, but it changes nothing: results are new.

    Attributes
    ----------
    mean_, var_, scale_, n_samples_seen_, n_features_in_
        As of `bnnumba.sklearn.Standardizer`, arrays of NumPy.
    feature_names_in_ : array of the columns' names; only of a DataFrame

    Notes
    -----
    X is a dask array of floats, bool or integers, in any chunks, or a DataFrame of Dask's with such columns, which are
    brought to one dtype. Results are of the same class, with X's chunks, index and names. sample_weight, of shape
    (n_samples,), says how much each of the first axis counts; for a DataFrame it is a Series of Dask's with its
    partitions. Infinity makes mean_ and var_ of its feature NaN. Anything else, or other features than those seen, is a
    TypeError or a ValueError; NotFittedError before `fit`.
    """

    feature_names_in_: Any

    def transform(self, X: Any) -> Any:
        """Return (X - mean_)/scale_."""
        self._check(X)
        return _each(X, self._forward())

    def inverse_transform(self, X: Any) -> Any:
        """Return X*scale_ + mean_."""
        self._check(X)
        return _each(X, self._backward())

    def _look_at(self, X: Any, sample_weight: Any, first: bool) -> Seen:
        if first:
            self._name(X)
        else:
            self._check(X)
        array, weights = _array(X), None
        if sample_weight is not None and (self.with_mean or self.with_std):  # otherwise rows are counted
            weights = _column(sample_weight, array.ndim)
        found = moments(array, self.feature_axis, sample_weight=weights, nan_policy="omit")
        return Seen(found.count, found.spread)

    def _name(self, X: Any) -> None:
        """Note the names of a table's columns; an array has none."""
        self.__dict__.pop("feature_names_in_", None)
        if _is_table(X):
            self.feature_names_in_ = np.asarray(X.columns, object)

    def _check(self, X: Any) -> None:
        """Refuse features other than those seen."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        if names is not None and _is_table(X) and list(X.columns) != list(names):
            raise ValueError(f"X must have the columns that were seen, {checks.shown(list(names))}, in their order")
        self._check_features(features_of(_array(X), self.feature_axis)[1])


def _is_table(X: Any) -> bool:
    return hasattr(X, "to_dask_array")


def _array(X: Any) -> Any:
    """What a table holds, as an array."""
    return _numbers(X).to_dask_array() if _is_table(X) else X


def _numbers(table: Any) -> Any:
    """A table whose parts are arrays of numbers; mixtures that pandas makes objects of become float64."""
    if table._meta.to_numpy().dtype.kind in "fbiu":
        return table
    others = [name for name, dtype in table.dtypes.items() if dtype.kind not in "fbiu"]
    if others:
        raise TypeError(f"X must have columns of numbers, got {table.dtypes[others[0]]} in {checks.shown(others)}")
    return table.astype(np.float64)


def _column(sample_weight: Any, ndim: int) -> Any:
    """A weight for each of the first axis of an array of so many axes."""
    given = sample_weight.to_dask_array() if hasattr(sample_weight, "to_dask_array") else sample_weight
    weights = dask.array.asarray(given)
    if weights.ndim != 1:
        raise ValueError(f"sample_weight must have shape (n_samples,), got {weights.shape}")
    weights = weights.astype(np.float64) if weights.dtype == np.bool_ else weights
    return weights[(slice(None), *(None,) * (ndim - 1))]


def _each(X: Any, by: dict[str, Any]) -> Any:
    """Normalize each chunk, or each part of a table, when it is computed."""
    return _numbers(X).map_partitions(_of_part, by) if _is_table(X) else normalize(X, **by)


def _of_part(part: Any, by: dict[str, Any]) -> Any:
    with forms.without_threads():
        return type(part)(functional.normalize(part.to_numpy(), **by), part.index, part.columns)
