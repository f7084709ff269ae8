"""NaN as a missing value: what `nan_policy` says of it, in SciPy's words."""

import numpy as np

from bnnumba import checks
from bnnumba._types import Array

POLICIES = "propagate", "omit", "raise"


def omits_nan(nan_policy: object, x: Array) -> bool:
    """Whether NaN does not count; ValueError where it is refused and x has one."""
    _check(nan_policy, POLICIES, x)
    return nan_policy == "omit"


def allows_nan(nan_policy: object, x: Array) -> None:
    """Refuse NaN, where the policy says so; NaN cannot be left out of a result."""
    _check(nan_policy, ("propagate", "raise"), x)


def _check(nan_policy: object, allowed: tuple[str, ...], x: Array) -> None:
    if not isinstance(nan_policy, str) or nan_policy not in allowed:
        raise ValueError(f"nan_policy must be one of {', '.join(allowed)}, got {checks.described(nan_policy)}")
    if nan_policy == "raise" and x.size and np.isnan(x.min()):  # without an array of x's size
        raise ValueError("x must have no NaN with nan_policy='raise'")
