"""NaN as a missing value: what `nan_policy` says of it, in SciPy's words."""

from typing import Any

import numpy as np

from bnnumba import checks
from bnnumba._types import Array

POLICIES = "propagate", "omit", "raise"


def omits_nan(nan_policy: object, x: Array, weights: Any = None) -> bool:
    """Whether NaN does not count; ValueError where it is refused and x has one, other than where the weights are 0."""
    _check(nan_policy, POLICIES, x, weights)
    return nan_policy == "omit"


def allows_nan(nan_policy: object, x: Array) -> None:
    """Refuse NaN, where the policy says so; NaN cannot be left out of a result."""
    _check(nan_policy, ("propagate", "raise"), x)


def _check(nan_policy: object, allowed: tuple[str, ...], x: Array, weights: Any = None) -> None:
    if not isinstance(nan_policy, str) or nan_policy not in allowed:
        raise ValueError(f"nan_policy must be one of {', '.join(allowed)}, got {checks.described(nan_policy)}")
    if nan_policy == "raise" and x.size and np.isnan(x.min()):  # told without an array of x's size
        counts = True if weights is None else np.not_equal(weights, 0)
        if (np.isnan(x) & counts).any():
            raise ValueError("x must have no NaN with nan_policy='raise'")
