"""Standardizing inputs as a step of scikit-learn's pipelines (the extra `sklearn`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnumba import axes
from bnnumba._types import Array
from bnnumba.functional import moments, normalize
from bnnumba.standardizing import Seen, Standardizing

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.sklearn needs scikit-learn: pip install 'bnnumba[sklearn]'") from error

SAMPLE = 256  # along the first axis: where these have NaN, all data is read as such that has


class Standardizer(Standardizing, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Give every feature mean 0 and variance 1, as scikit-learn's StandardScaler does, for any feature axes.

        transform: y = (x - mean_)/scale_    inverse_transform: x = y*scale_ + mean_    scale_ = sqrt(var_)

    StandardScaler's drop-in for dense data, with its arguments and attributes. mean_ and var_ are those of all values
    that `fit`, or every `partial_fit` since, has seen; NaN counts as missing and stays NaN. A feature that is constant
    but for rounding, var_ <= n*eps*var_ + (n*eps*mean_)**2 with eps = 2**-52 and n its n_samples_seen_, but at least 8
    and at most 2**16, has scale_ 1.

    Parameters
    ----------
    feature_axis : int or tuple of ints
        The axes that are kept, as for `moments`: -1, the columns of a table; (-2, -1) each pixel of an image.
    with_mean, with_std : bool
        Whether mean_ is subtracted, and whether scale_ divides.
    copy : bool
        False: `transform` and `inverse_transform` write to X, where that is a float array.

    Attributes
    ----------
    mean_, var_, scale_ : arrays of the feature shape, float64; NaN where a feature has no value
        var_ and scale_ are None without with_std, mean_ without either.
    n_samples_seen_ : int, or an array of the feature shape where features lack values; float with weights
        How many values each feature has had, or the sum of their weights.
    n_features_in_ : int
        The number of features.

    Notes
    -----
    X is an array of float64, float32 or float16, at least 2-D, or what scikit-learn's `check_array` makes one of;
    results have its dtype. An array of integers is read as it is, and gives float32, or float64 for more than 16 bits.
    sample_weight, of shape (n_samples,), says how much each of the first axis counts. Infinity is a ValueError;
    differences that overflow give NaN. Names of features, and `set_output`, are for those of a table's columns. Batches
    are merged as by `merge_moments`: however data is split, no digits are lost.
    """

    def transform(self, X: Any, copy: bool | None = None) -> Array:
        """Return (X - mean_)/scale_; ValueError for other features than those seen, NotFittedError before `fit`."""
        x = self._fitting(X)
        return normalize(x, **self._forward(), out=self._place(x, copy))

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Array:
        """Return X*scale_ + mean_; the same errors."""
        x = self._fitting(X, named=False)
        return normalize(x, **self._backward(), out=self._place(x, copy))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags

    def _look_at(self, X: Any, sample_weight: Any, first: bool) -> Seen:
        x = self._named(X, first) if first else self._fitting(X)
        weights = None
        if sample_weight is not None and (self.with_mean or self.with_std):  # otherwise rows are counted, as there
            weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
            weights = weights.reshape(-1, *(1,) * (x.ndim - 1))
        return _statistics(x, self.feature_axis, weights)

    def _place(self, x: Array, copy: bool | None) -> Array | None:
        """Where the result goes: to x itself, if it is not to be copied, and can hold it."""
        wanted = self.copy if copy is None else copy
        return None if wanted or x.dtype.kind != "f" or not x.flags.writeable else x

    def _fitting(self, X: Any, named: bool = True) -> Array:
        """X as an array whose features are those seen; their names are compared too, where they have any."""
        check_is_fitted(self)
        x = self._named(X, first=False) if named else self._array(X)
        self._check_features(axes.canonical_view(x, self.feature_axis).feature_shape)
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
        whole = isinstance(X, np.ndarray) and X.dtype.kind in "biu"  # which are read as they are
        dtypes = None if whole else (np.float64, np.float32, np.float16)
        rules = {"dtype": dtypes, "ensure_all_finite": "allow-nan", "allow_nd": True}
        array: Array = check_array(X, **rules, input_name="X", estimator=self)
        return array


def _statistics(x: Array, feature_axis: int | tuple[int, ...], weights: Array | None) -> Seen:
    few = x[:SAMPLE]
    likely = few.dtype.kind == "f" and bool(np.isnan(few.min(initial=0)))
    found = moments(x, feature_axis, sample_weight=weights, nan_policy="omit" if likely else "propagate")
    if np.isnan(found.mean).any():
        found = moments(x, feature_axis, sample_weight=weights, nan_policy="omit")
    return Seen(np.broadcast_to(found.count, found.mean.shape), found.spread)


def _check_not_masked(name: str, value: object) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: give {name}.filled(np.nan)")
