"""A call's tensors, for the compiled steps: TensorFlow's C functions, and what reads and writes at their addresses."""

from typing import Any

import numpy as np
from numba import types

from bnnumba._addresses import array_at
from bnnumba._jit import helper, signed
from bnnumba._types import Array
from bnnumba.keras.tensorflow._table import MESSAGE, number_in_table

Shape = tuple[int, int, int]

DOUBLE = 2  # TensorFlow's number of float64
INVALID_ARGUMENT = 3  # and of an error
POINTER, INT = types.int64, types.int32

_get_input: Any = types.ExternalFunction("TF_GetInput", types.void(POINTER, INT, POINTER, POINTER))
_allocate: Any = types.ExternalFunction(
    "TF_ForwardInputOrAllocateOutput", POINTER(POINTER, POINTER, INT, INT, POINTER, INT, POINTER, POINTER)
)
address_of_data: Any = types.ExternalFunction("TF_TensorData", POINTER(POINTER))
dtype_of: Any = types.ExternalFunction("TF_TensorType", INT(POINTER))
_ndim_of: Any = types.ExternalFunction("TF_NumDims", INT(POINTER))
_size_of: Any = types.ExternalFunction("TF_Dim", types.int64(POINTER, INT))
_release: Any = types.ExternalFunction("TF_DeleteTensor", types.void(POINTER))
_new_status: Any = types.ExternalFunction("TF_NewStatus", POINTER())
_set_status: Any = types.ExternalFunction("TF_SetStatus", types.void(POINTER, INT, POINTER))
_code_of: Any = types.ExternalFunction("TF_GetCode", INT(POINTER))
_delete_status: Any = types.ExternalFunction("TF_DeleteStatus", types.void(POINTER))
_fail: Any = types.ExternalFunction("TF_OpKernelContext_Failure", types.void(POINTER, POINTER))


# ---- tensors: a list of their addresses, inputs first, with the status last


@helper
def opened(context: int, inputs: int, outputs: int) -> Any:
    """Return a list with the inputs, and room for the outputs."""
    tensors = np.zeros(inputs + outputs + 1, np.int64)
    tensors[-1] = _new_status()
    for i in range(inputs):
        _get_input(context, np.int32(i), tensors.ctypes.data + 8 * i, tensors[-1])
    return tensors


@helper
def is_well(tensors: Array) -> bool:
    """Return whether TensorFlow has no error to tell."""
    return bool(_code_of(tensors[-1]) == 0)


@helper
def closed(context: int, tensors: Array, ended: bool) -> None:
    """Let go of all tensors; tell TensorFlow of an error if there was one, its own or a step that did not end."""
    status = tensors[-1]
    if not ended and _code_of(status) == 0:
        _set_status(status, np.int32(INVALID_ARGUMENT), number_in_table(MESSAGE))
    if _code_of(status) != 0:
        _fail(context, status)
    for tensor in tensors[:-1]:
        if tensor != 0:
            _release(tensor)
    _delete_status(status)


@helper
def sizes_of(tensor: int) -> Array:
    """Return a tensor's shape."""
    sizes = np.empty(_ndim_of(tensor), np.int64)
    for axis in range(sizes.size):
        sizes[axis] = _size_of(tensor, np.int32(axis))
    return sizes


@helper
def shape_of(sizes: Array, axis: int) -> Shape:
    """Return the view (outer, feature, inner) of data, where there is such an axis."""
    outer, inner = signed(1), signed(1)
    for each in range(axis):
        outer *= sizes[each]
    for each in range(axis + 1, sizes.size):
        inner *= sizes[each]
    return outer, sizes[axis], inner


@helper
def output(context: int, tensors: Array, place: int, index: int, sizes: Array, instead_of: int) -> int:
    """Make an output, in the memory of an input that nobody needs any more, if that is not -1; return its address."""
    candidate = np.full(1, instead_of, np.int32)
    tensor = _allocate(
        *(context, candidate.ctypes.data, np.int32(instead_of >= 0), np.int32(index)),
        *(sizes.ctypes.data, np.int32(sizes.size), signed(0), tensors[-1]),
    )
    tensors[place] = tensor
    address: int = address_of_data(tensor) if tensor != 0 else signed(0)
    return address


@helper
def same_sizes(tensor: int, sizes: Array) -> bool:
    """Return whether a tensor has this shape."""
    same = _ndim_of(tensor) == sizes.size
    for axis in range(sizes.size):
        same = same and _size_of(tensor, np.int32(axis)) == sizes[axis]
    return bool(same)


@helper
def are_features(tensors: Array, first: int, last: int, feature: int) -> bool:
    """Return whether each of these tensors has a number for each feature, or none at all."""
    for tensor in tensors[first : last + 1]:
        if _ndim_of(tensor) != 1 or _size_of(tensor, np.int32(0)) not in (0, feature):
            return False
    return True


@helper
def features(tensor: int, feature: int, default: float) -> Array:
    """Return features in float64."""
    converted = np.empty(feature)
    if _size_of(tensor, np.int32(0)) == 0:
        converted[:] = default
    elif dtype_of(tensor) == DOUBLE:
        converted[:] = array_at(address_of_data(tensor), np.float64(0), (feature,))
    else:
        singles = array_at(address_of_data(tensor), np.float32(0), (feature,))
        for f in range(feature):
            converted[f] = singles[f]
    return converted


@helper
def put_features(values: Array, kind: int, address: int) -> None:
    """Store features as TensorFlow's dtype of this number."""
    if kind == DOUBLE:
        array_at(address, np.float64(0), (values.size,))[:] = values
    else:
        singles = array_at(address, np.float32(0), (values.size,))
        for f in range(values.size):
            singles[f] = values[f]


@helper
def settings_of(tensor: int) -> tuple[int, float, float, float]:
    """Return axis, epsilon, momentum and slope."""
    numbers = array_at(address_of_data(tensor), np.float64(0), (4,))
    return signed(numbers[0]), numbers[1], numbers[2], numbers[3]
