"""Arrays that a caller gives to be written to: what they must be, what memory they may share, and how they change."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import starmap
from operator import call, setitem
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnumba import checks
from bnnumba._types import Array

Others = Mapping[str, npt.NDArray[Any] | None]
Change = tuple[Any, ...]  # a function and its arguments: setitem for arrays, setattr for what else changes

OVERLAP_WORK = 10_000  # of numpy.shares_memory; past that, arrays are taken to overlap


def output(out: Any, x: Array, data_inputs: dict[str, Array], other_inputs: Others) -> Array:
    """An array for the result: it may be exactly one of the data inputs, and overlaps none otherwise."""
    array: Array = out
    if not (type(out) is np.ndarray and out.dtype is x.dtype and out.shape == x.shape):
        array = checks.like("out", out, x)
    if not array.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    apart("out", array, other_inputs.items())
    for name, other in data_inputs.items():
        apart_or_same("out", array, name, other)
    return array


def moving(shape: tuple[int, ...], **given: Any) -> list[Array]:
    """Statistics that are moved, by name: writeable arrays of the feature shape that share no memory."""
    arrays = {name: checks.moving(name, value, shape) for name, value in given.items()}
    for name, array in arrays.items():
        apart(name, array, [(other, arrays[other]) for other in arrays if other != name])
    return list(arrays.values())


def write(changes: list[Change]) -> None:
    """Make changes that were checked, of functions that are not Python's: all of them or, with an interrupt, none.

    Handlers of signals run between two steps of Python only, and this is one.
    """
    deque(starmap(call, changes), maxlen=0)


def filling(array: Array, values: Array) -> Change:
    """The change that gives an array these values, in its own dtype."""
    return setitem, array, ..., values.astype(array.dtype)


def no_output(out: object) -> None:
    """Refuse an `out` that nothing would be written to."""
    if out is not None:
        raise ValueError(f"out must be None where needs_dx is False, got {checks.described(out)}")


def apart(name: str, array: Array, inputs: Iterable[tuple[str, npt.NDArray[Any] | None]]) -> None:
    """Refuse an array to be written that shares memory with another, or with itself."""
    if not array.flags.forc and _overlaps_itself(array):
        raise ValueError(f"{name} must not overlap itself, got shape {array.shape} with strides {array.strides}")
    for other_name, other in inputs:
        if other is not None and _may_overlap(array, other) and _overlap(array, other):
            raise ValueError(f"{name} must share no memory with {other_name}")


def apart_or_same(name: str, array: Array, other_name: str, other: Array) -> None:
    """Refuse an array to be written that shares memory with another, which is read, unless it is exactly that."""
    if other is not array and _may_overlap(array, other) and not _same(array, other):
        apart(name, array, [(f"{other_name}, unless it is exactly {other_name}", other)])


def _overlaps_itself(array: Array) -> bool:
    if array.size == 0:
        return False
    reach = array.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1 and stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def _may_overlap(a: Array, b: npt.NDArray[Any]) -> bool:
    if a.flags.owndata and b.flags.owndata:  # told at a third of the cost
        return a is b
    return np.may_share_memory(a, b)


def _overlap(a: Array, b: npt.NDArray[Any]) -> bool:
    try:
        return np.shares_memory(a, b, max_work=OVERLAP_WORK)  # type: ignore[arg-type]  # any int
    except np.exceptions.TooHardError:
        return True


def _same(a: Array, b: Array) -> bool:
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0] and (
        (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )
