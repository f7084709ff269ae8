"""The vector operations on NumPy arrays of LANES elements, for NUMBA_DISABLE_JIT=1 (see `simd`)."""

import numpy as np

from bnnumba._types import Array, Vector

LANES = 16
LINE = 64  # bytes of a cache line
CAN_STREAM = True


def load(array: Array, i: int, n: int) -> Vector:
    vector = np.zeros(LANES, array.dtype)
    n = min(n, LANES)
    vector[:n] = array[i : i + n]
    return vector


def store(array: Array, i: int, n: int, vector: Vector) -> None:
    n = min(n, LANES)
    array[i : i + n] = vector[:n]


def stream(array: Array, i: int, vector: Vector) -> None:
    store(array, i, LANES, vector)


def fence() -> None:
    """There is nothing to wait for."""


def to_line(array: Array, i: int) -> int:
    return -(array.ctypes.data // array.itemsize + i) % (LINE // array.itemsize)


def same_start(a: Array, b: Array) -> bool:
    return a.ctypes.data == b.ctypes.data


def prefetch(array: Array, i: int) -> None:
    """There is no cache to fill."""


def splat(scalar: float) -> Vector:
    return np.full(LANES, scalar)


def widen(vector: Vector) -> Vector:
    return vector.astype(np.float64)


def keep(vector: Vector, n: int) -> Vector:
    return np.where(np.arange(LANES) < n, vector, vector.dtype.type(0))


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
