"""How a kernel gives a work function (see `threads`) to all threads: by its address, with its arguments in memory."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnumba.kernels.workers import run_parts

_POINTER, _INDEX, _FLAG = ir.IntType(8).as_pointer(), ir.IntType(64), ir.IntType(8)
_WORK = ir.FunctionType(ir.VoidType(), [_POINTER, _INDEX])


@intrinsic
def launch(typing_context: Any, work: Any, threads: Any, arguments: Any) -> Any:
    """Run work(threads, thread, *arguments) for each thread; MemoryError where one of them raised it."""
    run: Any = types.Dispatcher(run_parts)
    run_signature = run.get_call_type(typing_context, (types.intp, types.intp, types.intp), {})
    work_signature = work.get_call_type(typing_context, (types.intp, types.intp, *arguments), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, threads_value, tuple_value = values
        kind = ir.LiteralStructType([_INDEX, tuple_value.type, _FLAG])
        packed = cgutils.alloca_once(builder, kind)
        builder.store(threads_value, cgutils.gep_inbounds(builder, packed, 0, 0))
        builder.store(tuple_value, cgutils.gep_inbounds(builder, packed, 0, 1))
        failed = cgutils.gep_inbounds(builder, packed, 0, 2)
        builder.store(_FLAG(0), failed)

        compiled = work.dispatcher.overloads[work_signature.args]
        function = _entry(context, builder.module, compiled.fndesc, kind)
        context.add_linking_libs([compiled.library])
        addresses = [builder.ptrtoint(function, _INDEX), builder.ptrtoint(packed, _INDEX)]
        context.get_function(run, run_signature)(builder, [*addresses, threads_value])
        with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, builder.load(failed))):
            context.call_conv.return_user_exc(builder, MemoryError, ("a thread found no memory for its sums",))
        return context.get_dummy_value()

    return types.void(work, types.intp, arguments), generate


def _entry(context: Any, module: Any, described: Any, kind: Any) -> Any:
    """A function that unpacks a work function's arguments, and calls it for one thread."""
    function = ir.Function(module, _WORK, module.get_unique_name(f"{described.mangled_name}.entry"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    packed = builder.bitcast(function.args[0], kind.as_pointer())
    threads, arguments, failed = (cgutils.gep_inbounds(builder, packed, 0, part) for part in range(3))
    unpacked = cgutils.unpack_tuple(builder, builder.load(arguments))
    status, _ = context.call_conv.call_function(
        builder,
        context.declare_function(module, described),
        described.restype,
        described.argtypes,
        [builder.load(threads), function.args[1], *unpacked],
    )
    with cgutils.if_unlikely(builder, status.is_error):
        builder.store(_FLAG(1), failed)
    builder.ret_void()
    return function
