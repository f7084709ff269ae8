"""The vector operations on NumPy arrays of LANES elements, for NUMBA_DISABLE_JIT=1 (see `simd`)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnumba._types import Array, Vector

__all__ = [
    "CAN_STREAM", "LANES", "LINE", "address", "any_lane", "at_most", "binade", "choose", "double", "element",
    "equal", "fence", "first", "fma", "fold", "from_element", "is_double", "join", "less", "load", "load_double",
    "narrow", "new_values", "prefetch", "splat", "sqrt", "store", "stream", "turn",
]  # fmt: skip

Mask = npt.NDArray[np.bool_]

less, at_most, equal, choose, sqrt = np.less, np.less_equal, np.equal, np.where, np.sqrt

LANES = 16
LINE = 64  # bytes of a cache line
CAN_STREAM = True
FLOAT16, BFLOAT16 = np.dtype(np.uint16), np.dtype(np.int16)  # how half precision is stored


def load(array: Array, i: int, n: int) -> Vector:
    vector = np.zeros(LANES, array.dtype)
    n = min(n, LANES)
    vector[:n] = array.reshape(-1)[i : i + n]
    if is_integer(array):
        fields: Any = vector.dtype
        whole = vector.view(fields[0]) if fields.names else vector
        return whole.astype(np.float32 if array.itemsize <= 2 else np.float64)
    if vector.dtype == FLOAT16:
        return vector.view(np.float16).astype(np.float32)
    return (vector.view(np.uint16).astype(np.uint32) << 16).view(np.float32) if vector.dtype == BFLOAT16 else vector


def element(array: Array, i: int) -> float:
    scalar: float = load_double(array, i, 1)[0]
    return scalar


def is_integer(array: Array) -> bool:
    return array.dtype.names is not None or (array.dtype.kind in "iu" and array.itemsize != 2)


def is_double(array: Array) -> bool:
    return array.dtype == np.float64 or (is_integer(array) and array.itemsize > 2)


def new_values(shape: tuple[int, ...], array: Array) -> Array:
    return np.empty(shape, np.float64 if is_double(array) else np.float32)


def load_double(array: Array, i: int, n: int) -> Vector:
    return load(array, i, n).astype(np.float64)


def store(array: Array, i: int, n: int, vector: Vector) -> None:
    n = min(n, LANES)
    array.reshape(-1)[i : i + n] = _packed(vector, array.dtype)[:n]


def _packed(vector: Vector, dtype: Any) -> npt.NDArray[Any]:
    """Numbers as they are stored, rounded to nearest even."""
    if dtype == FLOAT16:
        return vector.astype(np.float16).view(dtype)
    if dtype != BFLOAT16:
        return vector
    bits = vector.astype(np.float32).view(np.uint32)
    upper = bits >> 16
    rounded = (bits + (0x7FFF + (upper & 1))) >> 16
    return np.where(np.isnan(vector), upper | 0x40, rounded).astype(np.uint16).view(dtype)


def stream(array: Array, i: int, vector: Vector) -> None:
    store(array, i, LANES, vector)


def fence() -> None:
    """There is nothing to wait for."""


def prefetch(array: Array, i: int) -> None:
    """There is no cache to fill."""


def address(array: Array) -> int:
    return array.ctypes.data


def from_element(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return type(value)(*(from_element(part, n) for part in value))
    if not isinstance(value, np.ndarray):
        return value
    return np.lib.stride_tricks.as_strided(value.reshape(-1)[n:], value.shape, value.strides)


def splat(scalar: float) -> Vector:
    return np.full(LANES, scalar)


def join(a: Vector, b: Vector, n: int) -> Vector:
    return np.where(np.arange(LANES) < n, a, b)


def fma(a: Vector, b: Vector, c: Vector) -> Vector:
    # Rounded twice, as NumPy has no fused operation: of float64 the product is, too, and of float32 the sum as float64.
    # So bits may differ from the compiled kernels.
    return np.asarray(np.float64(a) * b + c, a.dtype)


def fold(vector: Vector) -> float:
    while len(vector) > 1:
        half = len(vector) // 2
        vector = vector[:half] + vector[half:]
    scalar: float = vector[0]
    return scalar


def turn(vector: Vector, k: int) -> Vector:
    return np.roll(vector, -k)


def first(vector: Vector) -> float:
    scalar: float = vector[0]
    return scalar


def binade(vector: Vector) -> Vector:
    return (vector.view(np.int64) & 0x7FF0000000000000).view(np.float64)


def narrow(vector: Vector, array: Array) -> Vector:
    return vector.astype(np.float64 if is_double(array) else np.float32)


def double(vector: Vector) -> Vector:
    return vector.astype(np.float64)


def any_lane(mask: Mask) -> bool:
    return bool(mask.any())
