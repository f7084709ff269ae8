"""Statistics of data that comes in batches, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from bnnumba import axes, checks
from bnnumba._types import Array
from bnnumba.functional import moments
from bnnumba.pooling import Moments, merge_moments


def population_moments(
    batches: Iterable[Array], feature_axis: int | tuple[int, ...] = -1, *, progress: bool = False
) -> Moments:
    """Compute the mean and the population variance of all batches together.

        mean = sum(x)/count    var = sum((x - mean)**2)/count    over all values of all batches

    Parameters
    ----------
    batches : iterable of arrays, of one feature shape
        A list, a generator, a data loader: taken one by one. Only the batch at hand is held. One array x is refused:
        [x] has one batch.
    feature_axis : int or tuple of ints
        The axes that are kept, as for `moments`; batches may differ in all others.
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
    return pooled_moments(batches, feature_axis, "feature_axis", progress)[0]


def pooled_moments(batches: Iterable[Array], axis: Any, name: str, progress: bool) -> tuple[Moments, int]:
    """Return the population's moments and the number of batches; errors name the axis argument as `name`."""
    number, total = 0, None
    with _advancing(checks.flag("progress", progress), batches) as advance:
        for x in _iterable(batches):
            feature_shape = axes.canonical_view(checks.data(f"batches[{number}]", x), axis, name).feature_shape
            if total is not None:
                _check_features(number, feature_shape, total.mean.shape)
            part = moments(x, axis)
            del x  # while the next is made
            total = part if total is None else merge_moments(total, part)
            number += 1
            advance()
    if total is None:
        raise ValueError("batches must hold at least one array, got none")
    return total, number


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


def _iterable(batches: Any) -> Iterable[Array]:
    if hasattr(batches, "__array__"):  # its first axis might be taken for the batches
        given = f"{type(batches).__name__} of shape {getattr(batches, 'shape', 'unknown')}"
        raise TypeError(f"batches must be an iterable of arrays, got one {given}: give [x], or use moments(x)")
    if isinstance(batches, str | bytes) or not hasattr(batches, "__iter__"):
        raise TypeError(f"batches must be an iterable of arrays, got {checks.described(batches)}")
    return batches  # type: ignore[no-any-return]


def _check_features(number: int, came: tuple[int, ...], first: tuple[int, ...]) -> None:
    if came != first:
        raise ValueError(f"batches[{number}] must have the feature shape of batches[0], {first}, got {came}")
