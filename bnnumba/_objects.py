"""Passes over arrays of NumPy's as Python gives them: compiled code checks them, in a tenth of Python's time.

Each is a function of C that Python calls, see `direct`. `this` is an array of int64 that it was made with, its numbers
in KNOWN's order; `arguments` is where the arguments' addresses are. It does what its kernel does where all is of the
common kind, and returns DONE; or OTHERWISE where something is not, or MISSING where the kernel's address for x's dtype
is 0: nothing has then changed.

    x, dy            data, in C order, of float32 or float64
    gamma, mean ...  arrays (feature,) of float32 or float64; gamma and beta may be None, for 1 and 0
    y, dx            what takes the result: a new array, or one that the caller gave, which may be x or dy itself, and
                     shares no memory with an input otherwise
    other results    dgamma, dbeta, and those of mean and var that are filled: new arrays. Their sizes are checked, as a
                     handler of a signal may have changed x's shape since they were made
    axis             an index of x.shape, if it is an int

All but other results may be any object.
"""

from typing import Any

import numpy as np
from numba import types

from bnnumba._addresses import array_at, float64_at, int8_at, int32_at, int64_at, ran
from bnnumba._jit import helper, inlined, signed
from bnnumba._types import Array
from bnnumba.kernels.coefficients import ORDINARY_GAMMA, ORDINARY_SPREAD
from bnnumba.kernels.passes import move_features

__all__ = ["backward_of", "batch_norm_of", "move_of", "normalize_of"]

Shape = tuple[int, int, int]

DONE, OTHERWISE, MISSING = 0, 1, 2
KNOWN = SINGLE_KERNEL, DOUBLE_KERNEL, ARRAY, FLOAT, INT, NONE = 0, 8, 16, 24, 32, 40

# Where the parts of an object are: its class, and what the headers of NumPy say of its arrays and dtypes.
_HEAD = object.__basicsize__
CLASS = _HEAD - 8
DATA, NDIM, SIZES, DTYPE, FLAGS = _HEAD, _HEAD + 8, _HEAD + 16, _HEAD + 40, _HEAD + 48
CHARACTER, BYTE_ORDER = _HEAD + 9, _HEAD + 10
C_ORDER_ALIGNED, WRITEABLE = 0x101, 0x400
NATIVE, SINGLE, DOUBLE = ord("="), ord("f"), ord("d")

UNLOCKED_ELEMENTS = 2**14  # of data: from there on other threads of Python run meanwhile; to let them costs 0.1 us

_int_of: Any = types.ExternalFunction("PyLong_AsSsize_t", types.int64(types.int64))
_object_of: Any = types.ExternalFunction("PyLong_FromSsize_t", types.int64(types.int64))
_unlock: Any = types.ExternalFunction("PyEval_SaveThread", types.int64())
_lock: Any = types.ExternalFunction("PyEval_RestoreThread", types.void(types.int64))


@inlined
def is_a(value: int, known: int, which: int) -> bool:
    same: bool = int64_at(value + CLASS) == int64_at(known + which)
    return same


@helper
def dtype_of(value: int, known: int) -> int:
    """Return the character of a dtype: SINGLE or DOUBLE; or 0 of whatever is no such array in C order."""
    if not is_a(value, known, ARRAY) or int32_at(value + FLAGS) & C_ORDER_ALIGNED != C_ORDER_ALIGNED:
        return 0
    dtype = int64_at(value + DTYPE)
    character: int = int8_at(dtype + CHARACTER)
    return character if int8_at(dtype + BYTE_ORDER) == NATIVE and character in (SINGLE, DOUBLE) else 0


@helper
def is_feature_shaped(value: int, known: int, feature: int) -> bool:
    is_row = dtype_of(value, known) != 0 and int32_at(value + NDIM) == 1
    return bool(is_row and int64_at(int64_at(value + SIZES)) == feature)


@helper
def is_parameter(value: int, known: int, feature: int) -> bool:
    return bool(value == int64_at(known + NONE) or is_feature_shaped(value, known, feature))


@helper
def are_moving(mean: int, var: int, known: int, feature: int) -> bool:
    """Return whether two arrays of float64 may be written, each for itself."""
    for value in (mean, var):
        if not is_feature_shaped(value, known, feature) or dtype_of(value, known) != DOUBLE:
            return False
        if int32_at(value + FLAGS) & WRITEABLE == 0:
            return False
    return bool(abs(int64_at(mean + DATA) - int64_at(var + DATA)) >= 8 * feature)


@helper
def shape_of(x: int, axis: int, known: int) -> Shape:
    """Return the view (outer, feature, inner) of data, as `axes` has it; (0, 0, 0) where x or the axis is no such."""
    outer, feature, inner = signed(1), signed(0), signed(1)
    if dtype_of(x, known) != 0 and is_a(axis, known, INT):
        ndim, sizes, kept = int32_at(x + NDIM), int64_at(x + SIZES), _int_of(axis)
        kept += ndim if kept < 0 else 0
        for each in range(ndim):
            size = int64_at(sizes + 8 * each)
            if each < kept:
                outer *= size
            elif each == kept:
                feature = size
            else:
                inner *= size
    if outer * feature * inner == 0:
        return signed(0), signed(0), signed(0)
    return (signed(1), feature, outer * inner) if feature == 1 else (outer, feature, inner)


@helper
def is_like(value: int, x: int, known: int) -> bool:
    """Return whether something is an array of the shape and dtype of x, which is data."""
    if dtype_of(value, known) != dtype_of(x, known) or int32_at(value + NDIM) != int32_at(x + NDIM):
        return False
    for each in range(int32_at(x + NDIM)):
        if int64_at(int64_at(value + SIZES) + 8 * each) != int64_at(int64_at(x + SIZES) + 8 * each):
            return False
    return True


@helper
def is_epsilon(value: int, known: int) -> bool:
    return bool(is_a(value, known, FLOAT) and 0.0 <= float64_at(value + _HEAD) < np.inf)


@helper
def features(value: int, known: int, feature: int, default: float) -> Array:
    """Return features as float64: themselves, where they are."""
    if value != int64_at(known + NONE) and dtype_of(value, known) == DOUBLE:
        return array_at(int64_at(value + DATA), np.float64(0), (feature,))
    converted = np.empty(feature)
    if value == int64_at(known + NONE):
        converted[:] = default
    else:
        singles = array_at(int64_at(value + DATA), np.float32(0), (feature,))
        for f in range(feature):
            converted[f] = singles[f]
    return converted


@helper
def are_ordinary(gamma: Array, var: Array, epsilon: float) -> bool:
    """Return whether there is nothing that `extreme` might have to make."""
    for f in range(gamma.size):
        if not abs(gamma[f]) < ORDINARY_GAMMA or var[f] + epsilon < ORDINARY_SPREAD:
            return False
    return True


@helper
def takes_result(out: int, x: int, known: int) -> bool:
    """Return whether something is an array of x's shape and dtype that may be written; `are_apart` says the rest."""
    return bool(is_like(out, x, known) and int32_at(out + FLAGS) & WRITEABLE != 0)


@inlined
def bytes_of(value: int, elements: int) -> int:
    return elements * (4 if int8_at(int64_at(value + DTYPE) + CHARACTER) == SINGLE else 8)


@helper
def overlap(a: int, elements_a: int, b: int, elements_b: int) -> bool:
    """Return whether two arrays of so many elements share memory."""
    first_a, first_b = int64_at(a + DATA), int64_at(b + DATA)
    return bool(first_a < first_b + bytes_of(b, elements_b) and first_b < first_a + bytes_of(a, elements_a))


@helper
def are_apart(out: int, shape: Shape, data: Any, features: Any, known: int) -> bool:
    """Return whether a result shares no memory with data, but for being exactly that, nor with features."""
    size, shared = shape[0] * shape[1] * shape[2], False
    for value in data:
        shared = shared or (int64_at(value + DATA) != int64_at(out + DATA) and overlap(out, size, value, size))
    for value in features:
        shared = shared or (value != int64_at(known + NONE) and overlap(out, size, value, shape[1]))
    return not shared


@helper
def have(first: int, second: int, feature: int) -> bool:
    """Return whether two results have a number for each feature."""
    return bool(int64_at(int64_at(first + SIZES)) == feature and int64_at(int64_at(second + SIZES)) == feature)


@inlined
def doubles_at(value: int, feature: int) -> Array:
    array: Array = array_at(int64_at(value + DATA), np.float64(0), (feature,))
    return array


@inlined
def answer(status: int) -> int:
    number: int = _object_of(signed(status))
    return number


@inlined
def argument(arguments: int, index: int) -> int:
    value: int = int64_at(arguments + 8 * index)
    return value


@inlined
def run(kernel: Any, known: int, data: Any, shape: Shape, others: Any) -> int:
    """Run `kernel(address, data, like, shape, others)` for the dtype of x, the first of the data."""
    single = int8_at(int64_at(data[0] + DTYPE) + CHARACTER) == SINGLE
    address = int64_at(known + (SINGLE_KERNEL if single else DOUBLE_KERNEL))
    if address == 0:
        return answer(MISSING)
    long = shape[0] * shape[1] * shape[2] >= UNLOCKED_ELEMENTS
    state = _unlock() if long else signed(0)
    if single:
        ended = kernel(address, data, np.float32(0), shape, others)
    else:
        ended = kernel(address, data, np.float64(0), shape, others)
    if long:
        _lock(state)
    return answer(DONE if ended else OTHERWISE)


@inlined
def data_at(value: int, like: Any, shape: Shape) -> Array:
    array: Array = array_at(int64_at(value + DATA), like, shape)
    return array


@inlined
def forward(address: int, data: Any, like: Any, shape: Shape, others: Any) -> bool:
    first, second = others
    x, y = data
    ended: bool = ran(address, (data_at(x, like, shape), *first, data_at(y, like, shape), *second))
    return ended


@inlined
def backward(address: int, data: Any, like: Any, shape: Shape, others: Any) -> bool:
    statistics, sums = others
    x, dy, dx = data
    inputs = data_at(dy, like, shape), data_at(x, like, shape)
    ended: bool = ran(address, (*inputs, *statistics, data_at(dx, like, shape), *sums))
    return ended


# ---- the passes


def normalize_of(this: int, arguments: int, count: int) -> int:
    """Fill y. Arguments: x, mean, var, gamma, beta, axis, epsilon, y."""
    known = int64_at(this + DATA)
    x, mean, var = argument(arguments, 0), argument(arguments, 1), argument(arguments, 2)
    gamma, beta, epsilon = argument(arguments, 3), argument(arguments, 4), argument(arguments, 6)
    shape = shape_of(x, argument(arguments, 5), known)
    feature = shape[1]
    y = argument(arguments, 7)
    if feature == 0 or not is_epsilon(epsilon, known) or not takes_result(y, x, known):
        return answer(OTHERWISE)
    if not is_feature_shaped(mean, known, feature) or not is_feature_shaped(var, known, feature):
        return answer(OTHERWISE)
    if not is_parameter(gamma, known, feature) or not is_parameter(beta, known, feature):
        return answer(OTHERWISE)
    statistics = (
        features(mean, known, feature, 0.0),
        features(var, known, feature, 0.0),
        features(gamma, known, feature, 1.0),
        features(beta, known, feature, 0.0),
        float64_at(epsilon + _HEAD),
    )
    if not are_ordinary(statistics[2], statistics[1], statistics[4]):
        return answer(OTHERWISE)
    if not are_apart(y, shape, (x,), (mean, var, gamma, beta), known):
        return answer(OTHERWISE)
    return run(forward, known, (x, y), shape, (statistics, ()))


def batch_norm_of(this: int, arguments: int, count: int) -> int:
    """Fill y, mean and var. Arguments: x, gamma, beta, axis, epsilon, y, mean, var, moving_mean, moving_var.

    The moving ones are None, or what `move_of` is to change then.
    """
    known = int64_at(this + DATA)
    x, gamma, beta = argument(arguments, 0), argument(arguments, 1), argument(arguments, 2)
    epsilon, moving_mean, moving_var = argument(arguments, 4), argument(arguments, 8), argument(arguments, 9)
    shape = shape_of(x, argument(arguments, 3), known)
    feature = shape[1]
    if feature == 0 or not is_epsilon(epsilon, known):
        return answer(OTHERWISE)
    if not is_parameter(gamma, known, feature) or not is_parameter(beta, known, feature):
        return answer(OTHERWISE)
    y, mean, var = argument(arguments, 5), argument(arguments, 6), argument(arguments, 7)
    takes = takes_result(y, x, known) and have(mean, var, feature)
    if not takes or not are_apart(y, shape, (x,), (gamma, beta), known):
        return answer(OTHERWISE)
    if moving_mean != int64_at(known + NONE) and not are_moving(moving_mean, moving_var, known, feature):
        return answer(OTHERWISE)
    affine = (
        features(gamma, known, feature, 1.0),
        features(beta, known, feature, 0.0),
        float64_at(epsilon + _HEAD),
    )
    if not are_ordinary(affine[0], affine[0], np.inf):
        return answer(OTHERWISE)
    moments = doubles_at(mean, feature), doubles_at(var, feature)
    return run(forward, known, (x, y), shape, (affine, moments))


def backward_of(this: int, arguments: int, count: int) -> int:
    """Fill dx, dgamma and dbeta. Arguments: dy, x, mean, var, gamma, axis, epsilon, dx, dgamma, dbeta."""
    known = int64_at(this + DATA)
    dy, x, mean, var = argument(arguments, 0), argument(arguments, 1), argument(arguments, 2), argument(arguments, 3)
    gamma, epsilon = argument(arguments, 4), argument(arguments, 6)
    shape = shape_of(x, argument(arguments, 5), known)
    feature = shape[1]
    if feature == 0 or not is_epsilon(epsilon, known) or not is_like(dy, x, known):
        return answer(OTHERWISE)
    if not is_feature_shaped(mean, known, feature) or not is_feature_shaped(var, known, feature):
        return answer(OTHERWISE)
    dx, dgamma, dbeta = argument(arguments, 7), argument(arguments, 8), argument(arguments, 9)
    if not is_parameter(gamma, known, feature) or not takes_result(dx, x, known) or not have(dgamma, dbeta, feature):
        return answer(OTHERWISE)
    if not are_apart(dx, shape, (x, dy), (mean, var, gamma), known):
        return answer(OTHERWISE)
    statistics = (
        features(mean, known, feature, 0.0),
        features(var, known, feature, 0.0),
        features(gamma, known, feature, 1.0),
        float64_at(epsilon + _HEAD),
    )
    if not are_ordinary(statistics[2], statistics[1], statistics[3]):
        return answer(OTHERWISE)
    sums = doubles_at(dgamma, feature), doubles_at(dbeta, feature)
    return run(backward, known, (x, dy, dx), shape, (statistics, sums))


def move_of(this: int, arguments: int, count: int) -> int:
    """Do as `update_moving`, with arrays that were checked, and floats.

    Arguments: moving_mean, moving_var, mean, var, momentum, correction of var.
    """
    feature = int64_at(int64_at(argument(arguments, 2) + SIZES))
    moving = doubles_at(argument(arguments, 0), feature), doubles_at(argument(arguments, 1), feature)
    batch = doubles_at(argument(arguments, 2), feature), doubles_at(argument(arguments, 3), feature)
    momentum, correction = float64_at(argument(arguments, 4) + _HEAD), float64_at(argument(arguments, 5) + _HEAD)
    move_features(moving, batch, momentum, correction, False)
    return answer(DONE)
