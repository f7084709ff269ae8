"""Statistics of data that comes in batches, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple, Never

import numpy as np

from bnnumba import axes, checks, names
from bnnumba._types import Array, Mask
from bnnumba.functional import NanPolicy, moments
from bnnumba.missing import omits_nan
from bnnumba.pooling import Moments, merge_moments
from bnnumba.weighted import as_keras


class Reading(NamedTuple):
    """How batches are read. name: of the axis argument, for errors. keras: whether masks mean what Keras means."""

    axis: Any
    name: str = "feature_axis"
    nan_policy: NanPolicy = "propagate"
    keras: bool = False


def population_moments(
    batches: Iterable[Any],
    feature_axis: int | tuple[int, ...] = -1,
    *,
    masks: Iterable[Mask] | None = None,
    nan_policy: NanPolicy = "propagate",
    progress: bool = False,
    **other: Never,
) -> Moments:
    """Compute the mean and the population variance of all batches together.

        mean = sum(x)/count    var = sum((x - mean)**2)/count    over all values of all batches

    Parameters
    ----------
    batches : iterable of arrays, of one feature shape
        A list, a generator, a data loader: taken one by one. Only the batch at hand is held. Arrays of NumPy, or what
        gives one of its memory, by `__dlpack__` or `__array__`: tensors of PyTorch on the CPU, arrays of JAX. One
        array x is refused: [x] has one batch.
    feature_axis : int or tuple of ints
        The axes that are kept, as for `moments`; batches may differ in all others.
    masks : iterable of arrays of bool, as many as there are batches, or None
        A mask for each batch, as for `moments`.
    nan_policy : "propagate", "omit" or "raise"
        As for `moments`.
    progress : bool
        Whether to draw a progress bar, by rich (the extra `cli`).

    Returns
    -------
    Moments
        As `moments` would of all batches in one array.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, there is no batch, or the batches differ in their feature shapes.

    Notes
    -----
    `moments` of each batch, merged by `merge_moments`.
    """
    if other:
        names.refuse(population_moments, other)
    return pooled_moments(batches, masks, Reading(feature_axis, nan_policy=nan_policy), progress)[0]


def pooled_moments(batches: Iterable[Any], masks: Any, reading: Reading, progress: bool) -> tuple[Moments, int]:
    """Return the population's moments and the number of batches."""
    number, total = 0, None
    omits_nan(reading.nan_policy, np.empty(0))  # an error before the first batch is made
    with _advancing(checks.flag("progress", progress), batches) as advance:
        of_batches = repeat(None) if masks is None else iter(_iterable("masks", masks))
        for given in _iterable("batches", batches):
            x, mask = _array(f"batches[{number}]", given), next(of_batches, ...)
            if mask is ...:
                raise ValueError(f"masks must be as many as batches, got {number} and more batches")
            del given
            x = checks.data(f"batches[{number}]", x, integers=not reading.keras)
            view = axes.canonical_view(x, reading.axis, reading.name)
            if total is not None:
                _check_features(number, view.feature_shape, total.mean.shape)
            if reading.keras:
                mask = as_keras(f"masks[{number}]", mask, x)
            part = moments(x, reading.axis, mask=mask, nan_policy=reading.nan_policy)
            del x, mask  # while the next are made
            total = part if total is None else merge_moments(total, part)
            number += 1
            advance()
    if total is None:
        raise ValueError("batches must hold at least one array, got none")
    if masks is not None and next(of_batches, ...) is not ...:
        raise ValueError(f"masks must be as many as batches, got more than {number}")
    return total, number


def settled(population: Moments, ddof: int, skip_nonfinite: bool) -> tuple[Any, Array]:
    """Return which features' moving statistics a population sets, and its variance as it goes into the moving one."""
    mean, var, count = population
    variance: Array = var * (count / np.maximum(count - ddof, 1))
    counts = np.greater(count, 0)
    return (counts & np.isfinite(mean) & np.isfinite(variance) if skip_nonfinite else counts), variance


@contextmanager
def _advancing(progress: bool, batches: Iterable[Array]) -> Iterator[Callable[[], None]]:
    """Draw a progress bar, or none; give what is called after each batch."""
    if not progress:
        yield lambda: None
        return
    try:
        from rich.progress import Progress  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("progress=True draws with rich: pip install 'bnnumba[cli]'") from error
    with Progress() as bar:
        task = bar.add_task("batches", total=len(batches) if isinstance(batches, Sized) else None)
        yield lambda: bar.advance(task)


def _array(name: str, value: Any) -> Any:
    """An array of NumPy that is the value, or has its memory."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, tuple | list):
        cure = "give the data alone, such as (batch[0] for batch in batches)"
        raise TypeError(f"{name} must be an array, got a {type(value).__name__} of {len(value)}: {cure}")
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except Exception as error:  # of another device, of a dtype that NumPy has not, of a tensor with a gradient
        cure = "give its data as a NumPy array on the CPU"
        raise TypeError(f"{name}, {type(value).__name__}, gives no NumPy array ({error}): {cure}") from error
    raise TypeError(f"{name} must be an array, got {checks.described(value)}")


def _iterable(name: str, batches: Any) -> Iterable[Any]:
    if hasattr(batches, "__array__"):  # its first axis might be taken for the batches
        given = f"{type(batches).__name__} of shape {getattr(batches, 'shape', 'unknown')}"
        cure = "give [x], or use moments(x)" if name == "batches" else "give [mask]"
        raise TypeError(f"{name} must be an iterable of arrays, got one {given}: {cure}")
    if isinstance(batches, str | bytes) or not hasattr(batches, "__iter__"):
        raise TypeError(f"{name} must be an iterable of arrays, got {checks.described(batches)}")
    return batches  # type: ignore[no-any-return]


def _check_features(number: int, came: tuple[int, ...], first: tuple[int, ...]) -> None:
    if came != first:
        raise ValueError(f"batches[{number}] must have the feature shape of batches[0], {first}, got {came}")
