"""The vector operations on NumPy arrays of LANES elements, for NUMBA_DISABLE_JIT=1 (see `simd`)."""

import numpy as np
import numpy.typing as npt

from bnnumba._types import Array, Vector

Mask = npt.NDArray[np.bool_]

LANES = 16
LINE = 64  # bytes of a cache line
CAN_STREAM = True


def load(array: Array, i: int, n: int) -> Vector:
    vector = np.zeros(LANES, array.dtype)
    n = min(n, LANES)
    vector[:n] = array.reshape(-1)[i : i + n]
    return vector


def load_double(array: Array, i: int, n: int) -> Vector:
    return load(array, i, n).astype(np.float64)


def store(array: Array, i: int, n: int, vector: Vector) -> None:
    n = min(n, LANES)
    array.reshape(-1)[i : i + n] = vector[:n]


def stream(array: Array, i: int, vector: Vector) -> None:
    store(array, i, LANES, vector)


def fence() -> None:
    """There is nothing to wait for."""


def to_line(array: Array, i: int) -> int:
    return -(array.ctypes.data // array.itemsize + i) % (LINE // array.itemsize)


def line_start(array: Array, i: int) -> int:
    return i - (array.ctypes.data // array.itemsize + i) % (LINE // array.itemsize)


def same_start(a: Array, b: Array) -> bool:
    return a.ctypes.data == b.ctypes.data


def prefetch(array: Array, i: int) -> None:
    """There is no cache to fill."""


def splat(scalar: float) -> Vector:
    return np.full(LANES, scalar)


def join(a: Vector, b: Vector, n: int) -> Vector:
    return np.where(np.arange(LANES) < n, a, b)


def fma(a: Vector, b: Vector, c: Vector) -> Vector:
    # Rounded twice for float64, where NumPy has no fused operation: bits may differ from the compiled kernels.
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


def sqrt(vector: Vector) -> Vector:
    return np.sqrt(vector)


def binade(vector: Vector) -> Vector:
    return (vector.view(np.int64) & 0x7FF0000000000000).view(np.float64)


def narrow(vector: Vector, array: Array) -> Vector:
    return vector.astype(array.dtype)


def double(vector: Vector) -> Vector:
    return vector.astype(np.float64)


def less(a: Vector, b: Vector) -> Mask:
    mask: Mask = a < b
    return mask


def at_most(a: Vector, b: Vector) -> Mask:
    mask: Mask = a <= b
    return mask


def equal(a: Vector, b: Vector) -> Mask:
    mask: Mask = a == b
    return mask


def choose(mask: Mask, a: Vector, b: Vector) -> Vector:
    return np.where(mask, a, b)


def any_lane(mask: Mask) -> bool:
    return bool(mask.any())
