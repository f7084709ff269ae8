"""Moments, and how those of disjoint batches become those of their union."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.kernels import serial
from bnnumba.pairs import Pair

EPS = np.finfo(np.float64).eps
COUNTS = 8, 2**16  # of values, at least and at most, by which `constant` measures


class _Fields(NamedTuple):
    mean: Array
    var: Array
    count: Any  # an int, a float or an array of these; hides tuple.count


class Spread(NamedTuple):
    """A mean and a variance with twice float64's digits."""

    mean: Pair
    var: Pair


_STORED = ("mean", "mean_low", "var", "var_low", "count")


class Moments(_Fields):
    """Mean and population variance (feature shape, float64) of `count` values each.

    count is an int, or a float where values had weights; where features differ in it, an array of the feature shape.

    What rounding took from mean and var goes along unseen in those of `moments`, `population_moments` and
    `merge_moments`, so that any number of them can be merged without loss. Copies and pickles keep it; for other files,
    `to_dict` and `from_dict` do.
    """

    _lows: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, spread: Spread, count: Any) -> Moments:
        """Moments that know what rounding took."""
        (mean, mean_low), (var, var_low) = spread
        moments = cls(np.asarray(mean), np.asarray(var), count)
        moments._lows = mean_low, var_low
        return moments

    def to_dict(self) -> dict[str, Any]:
        """Return all digits, as for `np.savez(**...)`: mean, mean_low, var, var_low of the feature shape, and count."""
        (mean, mean_low), (var, var_low) = self.spread
        return {"mean": mean, "mean_low": mean_low, "var": var, "var_low": var_low, "count": self.count}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Moments:
        """Return the Moments that `to_dict` stored, with all digits.

        Parameters
        ----------
        stored : mapping, such as an open npz file, or a dict read from JSON, where arrays are lists

        Raises
        ------
        TypeError, ValueError
            If stored is no such mapping.
        """
        if not isinstance(stored, Mapping) or set(stored) != set(_STORED):
            raise ValueError(f"stored must be a mapping of {', '.join(_STORED)}, got {checks.described(stored)}")
        arrays = {name: np.asarray(stored[name]) for name in _STORED}
        count, shape = arrays.pop("count"), arrays["mean"].shape
        for name, array in arrays.items():  # of JSON, where all are whole, they may have lost their points
            arrays[name] = array.astype(np.float64) if array.dtype.kind in "iu" else array
            checks.features(name, arrays[name], shape)
        mean, mean_low, var, var_low = (array.astype(np.float64) for array in arrays.values())
        moments = cls.of(Spread(Pair(mean, mean_low), Pair(var, var_low)), count if count.ndim else count.item())
        checks.moments("stored", moments, cls)
        return moments

    @property
    def spread(self) -> Spread:
        """Mean and variance, with all their digits."""
        mean, var = (np.asarray(each, np.float64) for each in (self.mean, self.var))
        mean_low, var_low = self._lows or (np.zeros_like(mean), np.zeros_like(var))
        return Spread(Pair(mean, mean_low), Pair(var, var_low))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Pool the moments of two disjoint batches into those of their union.

        count = a.count + b.count    delta = b.mean - a.mean    mean = a.mean + delta*b.count/count
        var = (a.count*a.var + b.count*b.var)/count + delta**2 * a.count*b.count/count**2

    Parameters
    ----------
    a, b : Moments of one feature shape; either count may be an array, and that of the union then is one

    Returns
    -------
    Moments
        New arrays; a side with count = 0 leaves the other as it is.

    Raises
    ------
    TypeError, ValueError
        If a or b is not a Moments tuple, or their shapes differ.

    Notes
    -----
    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979; with
    twice float64's digits, so that however data is split, and in whatever order its moments are merged, mean and var
    are those of one pass over all. Moments of `batch_norm` or made by hand lack these digits.
    """
    checks.moments("a", a, Moments)
    checks.moments("b", b, Moments)
    checks.features("b.mean", b.mean, a.mean.shape)
    count_a, count_b = _plain_count(a.count), _plain_count(b.count)
    return Moments.of(pooled(count_a, a.spread, count_b, b.spread), count_a + count_b)


def constant(mean: Any, var: Any, count: Any) -> Any:
    """Where a variance is what rounding makes of equal values (Chan, Golub, LeVeque 1983), as scikit-learn says.

    But for the number of values: our sums lose no more with more of them, and weights may be of any unit.
    """
    part = np.clip(count, *COUNTS) * EPS
    with np.errstate(over="ignore"):  # of the means near float64's largest number
        return var <= part * var + (part * mean) ** 2


def pooled(count_a: Any, a: Spread, count_b: Any, b: Spread) -> Spread:
    """Mean and variance of a union, in new arrays; the counts are numbers, or arrays of the feature shape.

    Where one is 0, the other side stays as it is.
    """
    shape = a.mean.high.shape
    return spread_of(pooled_rows(count_a, rows_of(a), count_b, rows_of(b)), shape)


def rows_of(spread: Spread) -> Array:
    """A spread as the kernels take it, of shape (4, features)."""
    return np.concatenate([each.ravel() for pair in spread for each in pair]).reshape(4, -1)


def spread_of(rows: Array, shape: tuple[int, ...]) -> Spread:
    """The spread that such rows are, with arrays of the feature shape."""
    mean, mean_low, var, var_low = (row.reshape(shape) for row in rows)
    return Spread(Pair(mean, mean_low), Pair(var, var_low))


def pooled_rows(count_a: Any, a: Array, count_b: Any, b: Array) -> Array:
    """Do what `pooled` does."""
    numbers = [np.full(a.shape[1], np.ravel(count), np.float64) for count in (count_a, count_b)]
    union = np.empty_like(a)
    serial.pool_into(numbers[0], a, numbers[1], b, union)
    return union


def _plain_count(count: Any) -> Any:
    if isinstance(count, np.ndarray):
        return count.astype(np.float64 if count.dtype.kind == "f" else np.int64)
    return int(count) if hasattr(count, "__index__") else float(count)
