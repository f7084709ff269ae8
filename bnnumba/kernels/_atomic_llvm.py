"""What threads need to work together: atomic operations on int64 at an address, and calls of functions by theirs."""

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I64, I32, VOID = ir.IntType(64), ir.IntType(32), ir.VoidType()
POINTER = ir.IntType(8).as_pointer()
ORDER, ALIGNMENT = "seq_cst", 8
STATE = "bnnumba_workers"  # its name in machine code

# How a processor is told that a thread waits by looking again and again: LLVM's function, and its arguments.
_HINT = "llvm.aarch64.hint", [I32(1)]
_PAUSES: dict[str, Any] = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": _HINT, "arm64": _HINT}
_PAUSE = _PAUSES.get(binding.get_process_triple().split("-")[0])


@intrinsic
def load(typing_context: Any, address: Any) -> Any:
    """Return the number at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_at(builder, arguments[0]), ORDER, ALIGNMENT)

    return types.int64(types.int64), generate


@intrinsic
def put(typing_context: Any, address: Any, value: Any) -> Any:
    """Store a number at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _at(builder, arguments[0]), ORDER, ALIGNMENT)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the number at an address; return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _at(builder, arguments[0]), arguments[1], ORDER)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def exchanged(typing_context: Any, address: Any, old: Any, new: Any) -> Any:
    """Put the new number in the place of the old, and return whether that was there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, old, new = arguments
        return builder.extract_value(builder.cmpxchg(_at(builder, address), old, new, ORDER), 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing_context: Any) -> Any:
    """Let some 20 ns pass, while the number at an address may change."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _PAUSE is not None:
            name, values = _PAUSE
            kind = ir.FunctionType(VOID, [value.type for value in values])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def work_part(typing_context: Any, work: Any, packed: Any, part: Any) -> Any:
    """Call the function at the address `work`, as `_threads_llvm` makes them, for one part."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        work, packed, part = arguments
        builder.call(_function(builder, work, VOID, POINTER, I64), [builder.inttoptr(packed, POINTER), part])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def count_by(typing_context: Any, address: Any) -> Any:
    """Call the function at an address, which returns an int."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(builder.call(_function(builder, arguments[0], I32), []), I64)

    return types.int64(types.int64), generate


@intrinsic
def start_by(typing_context: Any, address: Any, threads: Any) -> Any:
    """Call the function at an address with a number of threads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(_function(builder, arguments[0], VOID, I64), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def state_address(typing_context: Any) -> Any:
    """Return the address of the state of `workers`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(context.get_c_value(builder, I64, STATE), I64)

    return types.int64(), generate


def _at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, I64.as_pointer())


def _function(builder: Any, address: Any, result: Any, *arguments: Any) -> Any:
    return builder.inttoptr(address, ir.FunctionType(result, arguments).as_pointer())
