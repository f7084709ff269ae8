"""A call frame of XLA's, read by compiled code: what is in its memory, and what is not as it should be.

The structures are those of `xla/ffi/api/c_api.h`, of the versions in `targets.KNOWN`. Addresses are integers.

    data        a buffer (outer, feature, inner), of one dtype
    features    a buffer (feature,), float32 or float64
    rows        a buffer (rows, feature, 2) of uint32: the bits of float64 (rows, feature), as JAX may have no float64
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnumba._addresses import array_at, float64_at, int32_at, int64_at
from bnnumba._jit import either, helper, inlined, signed
from bnnumba._types import Array

Shape = tuple[int, int, int]

# Where parts of XLA's structures are: bytes of 32-bit numbers, else words of 8 bytes.
EXTENSION, API, ARGUMENTS, RESULTS, ATTRIBUTES = 1, 2, 5, 10, 15  # of a frame
COUNT, KINDS, LIST, ATTRIBUTE_LIST = 2, 3, 4, 5  # of its lists
DTYPE_BYTE, DATA, RANK, SIZES = 16, 3, 4, 5  # of a buffer
TYPE_BYTE, METADATA, VERSION_BYTE = 8, 3, 24  # of an extension; of the metadata that it asks for
VALUE = 1  # of a scalar
ERROR_CREATE = 6  # of the API
IS_METADATA, IS_BUFFER, IS_SCALAR = 1, 1, 3  # what types of extensions, buffers and attributes are
HALF, SINGLE, DOUBLE, BRAIN, WORDS = 10, 11, 12, 16, 8  # dtypes: float16, float32, float64, bfloat16, uint32

# Where a target's numbers are, in words: XLA's version, two of 32 bits; its kernels; what bytes of data take threads.
VERSION, ALONE, TOGETHER, THREADED_BYTES = 0, 1, 2, 3
PLACE_WORDS = 4

DONE, COUNTS, OF_DATA, OF_FEATURES, OF_ROWS, OF_ATTRIBUTES, MISSING, MEMORY = 0, 1, 2, 3, 4, 5, 6, 7
INVALID, PRECONDITION, EXHAUSTED = 3, 9, 8  # XLA's codes
ERRORS = (
    (0, ""),
    (INVALID, "a target has a fixed number of buffers, got another"),
    (INVALID, "data must have one shape (outer, feature, inner) and the dtype of the target, got others"),
    (INVALID, "features must be float32 or float64 of shape (feature,), got others"),
    (INVALID, "rows must be uint32 of shape (rows, feature, 2), got others"),
    (INVALID, "the attributes must be epsilon and slope, float64, got others"),
    (PRECONDITION, "the kernel is not compiled in this process: call the function of bnnumba.jax once for such arrays"),
    (EXHAUSTED, "the kernel found no memory for its sums"),
)


@inlined
def word(address: int, index: int) -> int:
    value: int = int64_at(address + 8 * index)
    return value


@helper
def argument(frame: int, index: int) -> int:
    return word(word(frame, ARGUMENTS + LIST), index)


@helper
def result(frame: int, index: int) -> int:
    return word(word(frame, RESULTS + LIST), index)


@helper
def attribute(frame: int, index: int) -> float:
    value: float = float64_at(word(word(word(frame, ATTRIBUTES + ATTRIBUTE_LIST), index), VALUE))
    return value


@helper
def is_call(frame: int) -> bool:
    """Return whether a frame is no question for what the handler is."""
    extension = word(frame, EXTENSION)
    return bool(extension == 0 or int32_at(extension + TYPE_BYTE) != IS_METADATA)


@helper
def has(frame: int, which: int, count: int, kind: int) -> bool:
    """Return whether one of a frame's lists has so many parts, all of a kind."""
    if word(frame, which + COUNT) != count:
        return False
    kinds = word(frame, which + KINDS)
    same = True
    for each in range(count):
        same = same and int32_at(kinds + 4 * each) == kind
    return same


@helper
def has_buffers(frame: int, arguments: int, results: int) -> bool:
    return bool(has(frame, ARGUMENTS, arguments, IS_BUFFER) and has(frame, RESULTS, results, IS_BUFFER))


@helper
def has_attributes(frame: int) -> bool:
    if not has(frame, ATTRIBUTES, 2, IS_SCALAR):
        return False
    scalars = word(frame, ATTRIBUTES + ATTRIBUTE_LIST)
    return bool(int32_at(word(scalars, 0)) == DOUBLE and int32_at(word(scalars, 1)) == DOUBLE)


@helper
def dtype_of(buffer: int) -> int:
    number: int = int32_at(buffer + DTYPE_BYTE)
    return number


@helper
def shape_of(buffer: int) -> Shape:
    """Return the sizes of a buffer with three axes; of another, what no buffer has."""
    if word(buffer, RANK) != 3:
        return signed(-1), signed(-1), signed(-1)
    sizes = word(buffer, SIZES)
    return word(sizes, 0), word(sizes, 1), word(sizes, 2)


@helper
def is_buffer(buffer: int, dtype: int, shape: Shape) -> bool:
    """Return whether a buffer is of this dtype and shape."""
    return dtype_of(buffer) == dtype and shape_of(buffer) == shape and shape[0] >= 0


@helper
def no_buffer(buffer: None, dtype: int, shape: Shape) -> bool:
    return True


@helper
def are_features(buffer: int, feature: int) -> bool:
    floats = dtype_of(buffer) == SINGLE or dtype_of(buffer) == DOUBLE
    return bool(floats and word(buffer, RANK) == 1 and word(word(buffer, SIZES), 0) == feature)


@helper
def no_array(buffer: None, like: Any, shape: Shape) -> None:
    return None


@helper
def array_of(buffer: int, like: Any, shape: Shape) -> Array:
    array: Array = array_at(word(buffer, DATA), like, shape)
    return array


is_buffer_or_none = either(no_buffer, is_buffer)
array_or_none = either(no_array, array_of)


@helper
def rows_of(buffer: int, rows: int, feature: int) -> Array:
    array: Array = array_at(word(buffer, DATA), np.float64(0), (rows, feature))
    return array


@helper
def read_features(buffer: int, features: Array) -> None:
    if dtype_of(buffer) == DOUBLE:
        features[:] = array_at(word(buffer, DATA), np.float64(0), (features.size,))
    else:
        singles = array_at(word(buffer, DATA), np.float32(0), (features.size,))
        for f in range(features.size):
            features[f] = singles[f]


@helper
def write_features(features: Array, buffer: int) -> None:
    if dtype_of(buffer) == DOUBLE:
        array_at(word(buffer, DATA), np.float64(0), (features.size,))[:] = features
    else:
        singles = array_at(word(buffer, DATA), np.float32(0), (features.size,))
        for f in range(features.size):
            singles[f] = features[f]


@intrinsic  # type: ignore[untyped-decorator]
def _error(_: Any, create: Any, status: Any) -> Any:
    """Let XLA make the error of a status, by the address of its function for that."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
        made = builder.alloca(ir.LiteralStructType([number, number, pointer, ir.IntType(32)]))
        function = builder.inttoptr(values[0], ir.FunctionType(number, [made.type]).as_pointer())
        found = cgutils.alloca_once_value(builder, number(0))
        for each, (code, text) in enumerate(ERRORS):
            with builder.if_then(builder.icmp_signed("==", values[1], number(each))):
                message = context.insert_const_string(builder.module, f"bnnumba.jax: {text}")
                for part, value in enumerate((number(28), number(0), message, ir.IntType(32)(code))):
                    builder.store(value, cgutils.gep_inbounds(builder, made, 0, part))
                builder.store(builder.call(function, [made]), found)
        return builder.load(found)

    return types.int64(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _copy_word(_: Any, source: Any, target: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, target = (builder.inttoptr(value, ir.IntType(64).as_pointer()) for value in values)
        builder.store(builder.load(source), target)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@helper
def answer(frame: int, place: int, status: int) -> int:
    """Return what XLA expects; a question is answered by the version."""
    if not is_call(frame):
        _copy_word(place + 8 * VERSION, word(word(frame, EXTENSION), METADATA) + VERSION_BYTE)
        return 0
    if status == DONE:
        return 0
    error: int = _error(word(word(frame, API), ERROR_CREATE), signed(status))
    return error
