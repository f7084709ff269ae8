"""Memory and compiled kernels by their addresses: what compiled code is given where arguments cost too much."""

import ctypes
from typing import Any

import numpy as np
from numba import carray, config, types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnumba._jit import helper
from bnnumba._types import Array

if config.DISABLE_JIT:

    def array_at(address: int, like: Any, shape: tuple[int, ...]) -> Array:
        """Return the array of like's dtype at an address."""
        memory = (ctypes.c_char * (np.prod(shape, dtype=int) * like.itemsize)).from_address(address)
        return np.ndarray(shape, like.dtype, memory)

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def _pointer(_: Any, address: Any, like: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(like)(address, like), generate

    @helper
    def array_at(address: int, like: Any, shape: tuple[int, ...]) -> Array:
        """Return the array of like's dtype at an address."""
        array: Array = carray(_pointer(address, like), shape)
        return array


def _load(kind: Any, as_is: bool) -> Any:
    """Make the function that reads a number at an address; integers come as int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = context.get_value_type(kind)
        number = builder.load(builder.inttoptr(arguments[0], stored.as_pointer()))
        return number if as_is else builder.sext(number, context.get_value_type(signature.return_type))

    @intrinsic  # type: ignore[untyped-decorator]
    def load(_: Any, address: Any) -> Any:
        return (kind if as_is else types.int64)(address), generate

    return load


int8_at, int32_at = _load(types.int8, as_is=False), _load(types.int32, as_is=False)
int64_at, float64_at = _load(types.int64, as_is=True), _load(types.float64, as_is=True)


@intrinsic  # type: ignore[untyped-decorator]
def ran(_: Any, address: Any, arguments: Any) -> Any:
    """Call the kernel at an address, which returns nothing, with a tuple of arguments; say whether it came to its end.

    It is compiled once, for itself, and is no part of its callers. What is optional and last may be left out.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given, convention = tuple(arguments), context.call_conv
        unpacked = cgutils.unpack_tuple(builder, values[1], len(given))
        kernel = builder.inttoptr(values[0], convention.get_function_type(types.none, given).as_pointer())
        status, _ = convention.call_function(builder, kernel, types.none, given, unpacked)
        return status.is_ok

    return types.boolean(address, arguments), generate


def address_of(kernel: Any, signature: tuple[Any, ...], *, from_c: bool = False) -> int:
    """Return a kernel's address, compiled for these types: for `ran`, or as a function of C."""
    kernel.compile(signature)
    compiled = kernel.overloads[signature]
    name = compiled.fndesc.llvm_cfunc_wrapper_name if from_c else compiled.fndesc.llvm_func_name
    address: int = compiled.library.get_pointer_to_function(name)
    return address
