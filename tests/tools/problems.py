"""The data of the tests: random problems, and the memory layouts that an array may come in."""

from typing import NamedTuple

import numpy as np

from tests.tools import oracle

FLOATS = (np.float32, np.float64)


class Problem(NamedTuple):
    """Arrays for one training step."""

    x: np.ndarray
    dy: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray


def problem(shape, feature_axis=-1, dtype=np.float32, offset=0.0, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    features = oracle.feature_shape(shape, feature_axis)
    x = (offset + scale * rng.standard_normal(shape)).astype(dtype)
    dy = (0.5 + rng.standard_normal(shape)).astype(dtype)
    return Problem(x, dy, rng.uniform(-2, 2, features), rng.uniform(-2, 2, features))


def fortran(array):
    return np.asfortranarray(array)


def last_axis_first(array):
    """In memory the last axis comes first: a channels-last view of a channels-first array."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -1, 0)), 0, -1)


def first_axis_last(array):
    """In memory the first axis comes last: the reverse."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 0, -1)), -1, 0)


def sliced(array):
    every_second = tuple(slice(1, None, 2) for _ in array.shape)
    whole = np.full([2 * size + 1 for size in array.shape], np.nan, array.dtype)
    whole[every_second] = array
    return whole[every_second]


def negative_strides(array):
    return np.flip(np.ascontiguousarray(np.flip(array)))


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder())


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    memory[...] = array
    return memory


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


LAYOUTS = {
    "C order": np.ascontiguousarray,
    "Fortran order": fortran,
    "last axis first": last_axis_first,
    "first axis last": first_axis_last,
    "sliced": sliced,
    "negative strides": negative_strides,
    "byte-swapped": byte_swapped,
    "unaligned": unaligned,
    "read-only": read_only,
}


def same_bits(a, b):
    """Whether two arrays hold the same bits, NaN and the sign of zero included, whatever their memory order."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
