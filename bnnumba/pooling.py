"""Moments, and how those of disjoint batches become those of their union."""

from typing import Any, NamedTuple

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.pairs import Pair, quotient


class _Fields(NamedTuple):
    mean: Array
    var: Array
    count: int | float  # type: ignore[assignment]  # hides tuple.count


class Spread(NamedTuple):
    """A mean and a variance with twice float64's digits."""

    mean: Pair
    var: Pair


class Moments(_Fields):
    """Mean and population variance (feature shape, float64) of `count` values each; a float where they had weights.

    What rounding took from mean and var goes along unseen in those of `moments`, `population_moments` and
    `merge_moments`, so that any number of them can be merged without loss.
    """

    _lows: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, spread: Spread, count: float) -> "Moments":
        """Moments that know what rounding took."""
        (mean, mean_low), (var, var_low) = spread
        moments = cls(np.asarray(mean), np.asarray(var), count)
        moments._lows = mean_low, var_low
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
    a, b : Moments of one feature shape

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
    are those of one pass over all. Moments of `batch_norm`, with weights or made by hand lack these digits.
    """
    checks.moments("a", a, Moments)
    checks.moments("b", b, Moments)
    checks.features("b.mean", b.mean, a.mean.shape)
    count_a, count_b = _plain_count(a.count), _plain_count(b.count)
    if count_a == 0 or count_b == 0:
        side, count = (a, count_a) if count_b == 0 else (b, count_b)
        return Moments.of(Spread(*(Pair(*map(np.array, each)) for each in side.spread)), count)
    return Moments.of(pooled(count_a, a.spread, count_b, b.spread), count_a + count_b)


def pooled(count_a: Any, a: Spread, count_b: Any, b: Spread) -> Spread:
    """Mean and variance of a union; the counts are numbers, or arrays of the feature shape, not both 0."""
    count = count_a + count_b
    share_a, share_b = quotient(count_a, count), quotient(count_b, count)
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite and NaN features, and of huge ones' lows
        delta = b.mean - a.mean
        mean = a.mean + delta * share_b
        var = share_a * a.var + share_b * b.var + (delta * share_a) * (delta * share_b)
    return Spread(mean, var)


def _plain_count(count: Any) -> int | float:
    return int(count) if hasattr(count, "__index__") else float(count)
