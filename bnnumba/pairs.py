"""Numbers of twice float64's digits, as the unevaluated sum of two; of arrays, element by element.

Operations cost a handful of float64 ones each, and err by a few units of 2**-104 (Dekker 1971, Knuth 1969).
"""

from typing import Any, NamedTuple

import numpy as np

from bnnumba._types import Array

HALVES = 2.0**27 + 1  # times this, a float64 parts into two of 26 bits each


class Pair(NamedTuple):
    """high + low, where high is the sum rounded to float64."""

    high: Array
    low: Array

    def __add__(self, other: "Pair") -> "Pair":  # type: ignore[override]  # not as tuples are added
        high, rest = _two_sum(self.high, other.high)
        low, rest_of_low = _two_sum(self.low, other.low)
        return _renormalized(*_renormalized(high, rest + low), rest_of_low)

    def __sub__(self, other: "Pair") -> "Pair":
        return self + Pair(-other.high, -other.low)

    def __mul__(self, other: "Pair") -> "Pair":  # type: ignore[override]  # likewise
        high = self.high * other.high
        return _renormalized(
            high, _product_rest(high, self.high, other.high), self.high * other.low, self.low * other.high
        )


def quotient(a: Any, b: Any) -> Pair:
    """Return a/b of numbers, or of arrays."""
    high = np.asarray(a / b, np.float64)
    product = high * b
    return _renormalized(high, ((a - product) - _product_rest(product, high, b)) / b)


def _two_sum(a: Array, b: Array) -> Pair:
    high = a + b
    part = high - a
    return Pair(high, (a - (high - part)) + (b - part))


def _renormalized(high: Array, *rests: Array) -> Pair:
    """Return high + rests, where these are small; without those that are not finite, as where high is not."""
    rest = np.asarray(sum(rests))
    return _two_sum(high, np.where(np.isfinite(rest), rest, 0.0))


def _product_rest(product: Array, a: Any, b: Any) -> Array:
    """Return a*b - product, without rounding."""
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    rest: Array = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return rest


def _halves(a: Any) -> tuple[Any, Any]:
    scaled = HALVES * a
    high = scaled - (scaled - a)
    return high, a - high
