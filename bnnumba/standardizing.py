"""What both Standardizers know, of scikit-learn's data and of Dask's: statistics, and what normalizes by them."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np

from bnnumba._types import Array
from bnnumba.pooling import Spread, constant, pooled


class Seen(NamedTuple):
    """How many values each feature has had, or what they weigh; their mean and variance, 0 where there are none."""

    count: Any  # an array of the feature shape; hides tuple.count
    spread: Spread

    def and_also(self, other: Seen) -> Seen:
        """What was seen together."""
        return Seen(self.count + other.count, pooled(self.count, self.spread, other.count, other.spread))

    @property
    def mean(self) -> Array:
        """NaN where a feature has had no value."""
        return np.where(self.count == 0, np.nan, self.spread.mean.high)

    @property
    def var(self) -> Array:
        """NaN where a feature has had no value."""
        return np.where(self.count == 0, np.nan, self.spread.var.high)

    @property
    def scaling_var(self) -> Array:
        """The variance; 1 where it is what rounding makes of equal values."""
        var = self.var
        return np.where(constant(self.mean, var, self.count), 1.0, var)


class Standardizing:
    """Give every feature mean 0 and variance 1: the attributes, and the numbers that `normalize` takes."""

    _seen: Seen

    def __init__(
        self,
        feature_axis: int | tuple[int, ...] = -1,
        *,
        copy: bool = True,
        with_mean: bool = True,
        with_std: bool = True,
    ) -> None:
        self.feature_axis = feature_axis
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Take mean and variance from X, and forget what was seen before."""
        return self._with(X, sample_weight, first=True)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Take X, too, into mean and variance: for data that comes in batches, or that does not fit into memory."""
        return self._with(X, sample_weight, first=not hasattr(self, "_seen"))

    def _with(self, X: Any, sample_weight: Any, first: bool) -> Self:
        other = copy(self)
        seen = other._look_at(X, sample_weight, first)
        other._know(seen if first else self._seen.and_also(seen))
        self.__dict__ = other.__dict__  # at once: an interrupt before leaves all as it was
        return self

    def _look_at(self, X: Any, sample_weight: Any, first: bool) -> Seen:
        """Check X and its weights, note what its features are called, and return its statistics."""
        raise NotImplementedError

    def _know(self, seen: Seen) -> None:
        self._seen = seen
        self.mean_ = seen.mean if self.with_mean or self.with_std else None
        self.var_ = seen.var if self.with_std else None
        self.scale_ = np.sqrt(seen.scaling_var) if self.with_std else None
        count = seen.count
        self.n_samples_seen_ = count.copy() if np.unique(count).size > 1 else count.max(initial=0).item()
        self.n_features_in_ = count.size

    def _check_features(self, shape: tuple[int, ...]) -> None:
        """Refuse features other than those seen."""
        seen = self._seen.count.shape
        if shape != seen:
            raise ValueError(f"X has features of shape {shape}, but Standardizer has seen features of shape {seen}")

    def _forward(self) -> dict[str, Any]:
        """What `normalize` is given to standardize."""
        shape = self._seen.count.shape
        mean = self._seen.mean if self.with_mean else np.zeros(shape)
        var = self._seen.scaling_var if self.with_std else np.ones(shape)
        return {"mean": mean, "var": var, "feature_axis": self.feature_axis, "epsilon": 0}

    def _backward(self) -> dict[str, Any]:
        """What `normalize` is given to undo that."""
        shape = self._seen.count.shape
        zeros, ones = np.zeros(shape), np.ones(shape)
        scale = np.sqrt(self._seen.scaling_var) if self.with_std else ones
        offset = self._seen.mean if self.with_mean else zeros
        by = {"mean": zeros, "var": ones, "gamma": scale, "beta": offset}
        return {**by, "feature_axis": self.feature_axis, "epsilon": 0}
