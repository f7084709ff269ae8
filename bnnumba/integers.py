"""Integers as data of inference: read as they are, and what their results are."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnumba import axes, checks, forms
from bnnumba._types import Array
from bnnumba.outputs import Others, apart

BLOCK = 2**17  # elements: what is converted at a time, where float64 is wanted of small integers


def result_dtype(x: Array, dtype: Any, residual: object) -> np.dtype[Any]:
    """The dtype of what integers are normalized to: as wanted, or by their size."""
    if residual is not None:
        raise ValueError(f"residual must be None where x is {x.dtype}: use x.astype(np.float32)")
    if dtype is None:
        return np.dtype(np.float32 if x.itemsize <= 2 else np.float64)
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a float dtype, got {checks.described(dtype)}") from None
    if kind.newbyteorder("=").char not in checks.DATA_CHARS and kind.name != "bfloat16":
        raise ValueError(f"dtype must be float32, float64, float16 or bfloat16, got {kind}")
    return kind.newbyteorder("=")


def no_dtype(dtype: object, x: Array) -> None:
    """Refuse a dtype for results of floats."""
    if dtype is not None:
        raise ValueError(f"dtype is for integers only, and x is {x.dtype}, which the result is: use .astype on it")


def output(out: Any, x: Array, dtype: np.dtype[Any], others: Others) -> Array:
    """An array for the result, which shares no memory with an input."""
    array = checks.data("out", out)
    if array.shape != x.shape:
        raise ValueError(f"out must have the shape of x, {x.shape}, got {array.shape}")
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must be {dtype} for x of {x.dtype}, or as dtype says, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    apart("out", array, [("x", x), *others.items()])
    return array


def normalize_into(view: axes.View, x: Array, by: tuple[Any, ...], act: Any, y: Array) -> None:
    """Fill y. by: mean, var, gamma, beta and epsilon."""
    of_x, behind = view.of(x), () if act is None else (None, act)
    result = view.for_result(y)
    if x.itemsize <= 2 and y.dtype == np.float64:  # the kernel computes with what such integers are: float32
        fields: Any = of_x.dtype
        values = of_x.view(fields[0]) if fields.names else of_x
        rows = max(1, BLOCK // max(1, values[:1].size))
        for row in range(0, values.shape[0], rows):
            block = values[row : row + rows].astype(np.float64)
            forms.normalize(block, *by, result[row : row + rows], *behind)
    else:
        forms.normalize(of_x, *by, result, *behind)
    view.deliver(result, y)
