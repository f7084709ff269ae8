"""Arguments by the names that they have in other libraries: an error that says ours."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NoReturn

OURS = {  # by another name, what may be meant
    "axis": ("feature_axis",),
    "axes": ("feature_axis",),
    "dim": ("feature_axis",),
    "eps": ("epsilon",),
    "weight": ("gamma", "sample_weight"),
    "weights": ("sample_weight",),
    "scale": ("gamma",),
    "bias": ("beta",),
    "offset": ("beta",),
    "running_mean": ("mean",),
    "moving_mean": ("mean",),
    "running_var": ("var",),
    "moving_variance": ("var",),
    "variance": ("var",),
    "mask": ("masks",),
    "training": ("frozen",),
}
MEANING = {"feature_axis": ", which says what is kept", "frozen": ", which is its opposite"}


def refuse(function: Callable[..., Any], given: Mapping[str, object]) -> NoReturn:
    """Refuse arguments that a function has not, and say what ours is called, where it has another name."""
    name, known = next(iter(given)), signature(function).parameters
    ours = [each for each in OURS.get(name, ()) if each in known]
    cure = f": the name here is {ours[0]}{MEANING.get(ours[0], '')}" if ours else ""
    raise TypeError(f"{function.__name__}() has no argument {name!r}{cure}")
