"""The table that compiled steps read: addresses of kernels, sizes and a message, in memory that has a name.

A step is compiled once and kept on disk; the addresses differ from process to process.
"""

from ctypes import addressof, c_int64
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

NAME = "bnnumba_keras_kernels"  # in machine code
I64 = ir.IntType(64)

# Where what is, in numbers from the start.
MESSAGE = 0  # the address of an error's text
THREADED_FROM = 1  # for each step, from how many bytes on there are threads
KERNELS = 5  # from there, for each step of each variant, the address of its kernel without threads, and with
SIZE = 256

table = (c_int64 * SIZE)()
binding.add_symbol(NAME, addressof(table))


@intrinsic
def number_in_table(typing_context: Any, place: Any) -> Any:
    """Return a number of the table."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = builder.ptrtoint(context.get_c_value(builder, I64, NAME), I64)
        offset = builder.mul(arguments[0], I64(8))
        return builder.load(builder.inttoptr(builder.add(start, offset), I64.as_pointer()))

    return types.int64(types.int64), generate
