"""Standardizing inputs as a step of scikit-learn's pipelines (the extra `sklearn`)."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import numpy as np

from bnnumba import axes
from bnnumba._types import Array
from bnnumba.functional import moments, normalize
from bnnumba.pairs import Pair, quotient
from bnnumba.pooling import Spread, pooled

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.sklearn needs scikit-learn: pip install 'bnnumba[sklearn]'") from error

EPS = np.finfo(np.float64).eps


class Standardizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Give every feature mean 0 and variance 1, as scikit-learn's StandardScaler does, for any feature axes.

        transform: y = (x - mean_)/scale_    inverse_transform: x = y*scale_ + mean_    scale_ = sqrt(var_)

    mean_ and var_ are those of all values that `fit`, or every `partial_fit` since, has seen; NaN counts as missing and
    stays NaN. A feature that is constant but for rounding, var_ <= n*eps*var_ + (n*eps*mean_)**2 with n its values and
    eps = 2**-52, has scale_ 1.

    Parameters
    ----------
    feature_axis : int or tuple of ints
        The axes that are kept, as for `moments`: -1, the columns of a table; (-2, -1) each pixel of an image.

    Attributes
    ----------
    mean_, var_, scale_ : arrays of the feature shape, float64; NaN where a feature has no value
    n_samples_seen_ : int, or an array of the feature shape where features lack values
        How many values each feature has had.
    n_features_in_ : int
        The number of features.

    Notes
    -----
    X is an array of float64, float32 or float16, at least 2-D, or what scikit-learn's `check_array` makes one of;
    results have its dtype. Infinity is a ValueError; differences that overflow give NaN. Names of features, and
    `set_output`, are for those of a table's columns. Batches are merged as by `merge_moments`: however data is split,
    the result is that of one pass.
    """

    _count: Any  # of each feature's values
    _spread: Spread  # with more digits than mean_ and var_, and zeros where there is no value

    def __init__(self, feature_axis: int | tuple[int, ...] = -1) -> None:
        self.feature_axis = feature_axis

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take mean and variance from X, and forget what was seen before."""
        return self._see(X, first=True)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Take X, too, into mean and variance: for data that comes in batches, or that does not fit into memory."""
        return self._see(X, first=not hasattr(self, "mean_"))

    def transform(self, X: Any) -> Array:
        """Return (X - mean_)/scale_; ValueError for other features than those seen, NotFittedError before `fit`."""
        x = self._fitting(X)
        var = np.where(self._constant(), 1.0, self.var_)
        return normalize(x, self.mean_, var, feature_axis=self.feature_axis, epsilon=0)

    def inverse_transform(self, X: Any) -> Array:
        """Return X*scale_ + mean_; the same errors."""
        x, zeros, ones = self._fitting(X, named=False), np.zeros_like(self.mean_), np.ones_like(self.mean_)
        return normalize(x, zeros, ones, self.scale_, self.mean_, feature_axis=self.feature_axis, epsilon=0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags

    def _see(self, X: Any, first: bool) -> Self:
        other = copy(self)
        other._take(X, first)
        self.__dict__ = other.__dict__  # at once: an interrupt before leaves all as it was
        return self

    def _take(self, X: Any, first: bool) -> None:
        x = self._named(X, first) if first else self._fitting(X)
        count, spread = _statistics(x, self.feature_axis)
        if not first:
            spread = pooled(self._count, self._spread, count, spread)
            count = self._count + count
        self._count, self._spread = count, spread
        self.mean_, self.var_ = (np.where(count == 0, np.nan, each.high) for each in spread)
        self.scale_ = np.where(self._constant(), 1.0, np.sqrt(self.var_))
        self.n_samples_seen_ = count.copy() if np.unique(count).size > 1 else int(count.max(initial=0))
        self.n_features_in_ = count.size

    def _constant(self) -> Any:
        """Where var_ is what rounding makes of constants (Chan, Golub, LeVeque 1983), by scikit-learn's bound."""
        part = self._count * EPS
        with np.errstate(over="ignore"):  # of the means near float64's largest number
            return self.var_ <= part * self.var_ + (part * self.mean_) ** 2

    def _fitting(self, X: Any, named: bool = True) -> Array:
        """X as an array whose features are those seen; their names are compared too, where they have any."""
        check_is_fitted(self)
        x = self._named(X, first=False) if named else self._array(X)
        _check_features(self.mean_.shape, axes.canonical_view(x, self.feature_axis).feature_shape)
        return x

    def _named(self, X: Any, first: bool) -> Array:
        """X as an array; scikit-learn counts its features, and reads their names, where they are a table's columns."""
        x = self._array(X)
        columns = x.ndim == 2 and axes.canonical_view(x, self.feature_axis).feature_axes == (1,)
        validate_data(self, X if columns else x, reset=first, skip_check_array=True, ensure_2d=columns)
        return x

    def _array(self, X: Any) -> Array:
        """X by scikit-learn's rules."""
        _check_not_masked("X", X)
        dtypes = np.float64, np.float32, np.float16
        rules = {"dtype": dtypes, "ensure_all_finite": "allow-nan", "allow_nd": True}
        array: Array = check_array(X, **rules, input_name="X", estimator=self)
        return array


def _statistics(x: Array, feature_axis: int | tuple[int, ...]) -> tuple[Any, Spread]:
    """How many values each feature of x has, and their mean and variance; 0 where it has none."""
    found = moments(x, feature_axis)
    if not np.isnan(found.mean).any():
        return np.full(found.mean.shape, found.count), found.spread
    # Values in the place of the missing ones change the moments as merging does, and that is taken back: first zeros,
    # which give the mean; then that mean, where the variance loses no digits, and equal values stay equal.
    kept = axes.canonical_view(x, feature_axis).feature_axes
    reduced = tuple(axis for axis in range(x.ndim) if axis not in kept)
    missing, filled = np.isnan(x), x.copy()
    lacking = missing.sum(reduced)
    count = found.count - lacking
    growth = quotient(found.count, np.maximum(count, 1))
    value = np.zeros(lacking.shape, x.dtype)
    for _ in range(2):
        np.copyto(filled, np.expand_dims(value, reduced), where=missing)
        spread, there = moments(filled, feature_axis).spread, Pair(value.astype(np.float64), np.zeros(value.shape))
        distance = (spread.mean - there) * growth
        mean = there + distance
        value = mean.high.astype(x.dtype)
    var = spread.var * growth - distance * distance * quotient(lacking, found.count)
    negative = var.high < 0  # by rounding
    return count, Spread(mean, Pair(*(np.where(negative, 0, each) for each in var)))


def _check_features(seen: tuple[int, ...], came: tuple[int, ...]) -> None:
    if came != seen:
        raise ValueError(f"X has features of shape {came}, but Standardizer has seen features of shape {seen}")


def _check_not_masked(name: str, value: object) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: give {name}.filled(np.nan)")
