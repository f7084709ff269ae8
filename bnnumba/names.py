"""Arguments by the names that they have in other libraries: an error that says ours."""

from collections.abc import Mapping
from typing import NoReturn

OURS = {
    "axis": "feature_axis, which says what is kept",
    "axes": "feature_axis, which says what is kept",
    "dim": "feature_axis, which says what is kept",
    "eps": "epsilon",
    "weight": "gamma",
    "scale": "gamma",
    "bias": "beta",
    "offset": "beta",
    "running_mean": "mean",
    "moving_mean": "mean",
    "running_var": "var",
    "moving_variance": "var",
    "variance": "var",
    "weights": "sample_weight",
    "training": "frozen, which is its opposite",
}


def refuse(function: str, given: Mapping[str, object]) -> NoReturn:
    """Refuse arguments that a function has not, and say what ours is called, where it has another name."""
    name = next(iter(given))
    cure = f": the name here is {OURS[name]}" if name in OURS else ""
    raise TypeError(f"{function}() has no argument {name!r}{cure}")
