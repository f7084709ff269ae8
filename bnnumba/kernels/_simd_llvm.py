"""The vector operations as LLVM instructions (see `simd`)."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic, lower_builtin, models, overload, register_model, type_callable
from numba.np.numpy_support import as_dtype

from bnnumba.kernels import _integers, _simd_numpy
from bnnumba.kernels._half_llvm import ARCHITECTURE, BFLOAT16, FLOAT16, is_half, packed, unpacked

__all__ = _simd_numpy.__all__
LANES, LINE = _simd_numpy.LANES, _simd_numpy.LINE
CAN_STREAM = ARCHITECTURE in ("x86_64", "amd64")
_I32 = ir.IntType(32)


class VectorType(types.Type):
    """LANES numbers of one dtype in registers; LLVM splits it into what the machine has."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype} x {LANES})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: VectorType) -> None:
        super().__init__(manager, fe_type, _llvm_vector(fe_type.dtype))


# Integers, and whether they have a sign.
_INTEGERS = {
    types.int8: True,
    types.uint8: False,
    from_dtype(_integers.INT16): True,
    from_dtype(_integers.UINT16): False,
    types.int32: True,
    types.uint32: False,
    types.int64: True,
    types.uint64: False,
}
INTEGERS = tuple(_INTEGERS)


def _bits(dtype: Any) -> int:
    return 8 * dtype.size if isinstance(dtype, types.Record) else int(dtype.bitwidth)


_SCALARS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.boolean: ir.IntType(1),
    FLOAT16: ir.IntType(16),
    BFLOAT16: ir.IntType(16),
    **{dtype: ir.IntType(_bits(dtype)) for dtype in _INTEGERS},
}


def _llvm_vector(dtype: Any, lanes: int = LANES) -> Any:
    return ir.VectorType(_SCALARS[dtype], lanes)


def _values(dtype: Any) -> Any:
    """The dtype of what is loaded from an array."""
    if dtype in _INTEGERS:
        return types.float32 if _bits(dtype) <= 16 else types.float64
    return types.float32 if is_half(dtype) else dtype


def _loaded(builder: Any, stored: Any, dtype: Any, result: Any) -> Any:
    """What a vector of an array's elements is, in another dtype."""
    target = _llvm_vector(result, stored.type.count)
    if dtype in _INTEGERS:
        return (builder.sitofp if _INTEGERS[dtype] else builder.uitofp)(stored, target)
    if is_half(dtype) and result == types.float64:
        values = _fenced(builder, _loaded(builder, stored, dtype, types.float32))
    else:
        values = unpacked(builder, stored, dtype) if is_half(dtype) else stored
    return values if values.type == target else builder.fpext(values, target)


def _stored(builder: Any, values: Any, dtype: Any) -> Any:
    """What is stored of a vector's numbers, which may be float64 of wide integers, for a result of another dtype."""
    values = _convert(builder, values, _values(dtype))
    return packed(builder, values, dtype) if is_half(dtype) else values


def _fenced(builder: Any, values: Any) -> Any:
    """Float32 values that LLVM takes as they are, apart from what made them and what is made of them.

    It would convert float16 to double by one slow instruction, and would round to half and store by one that goes to
    the cache, however the store is marked.
    """
    return _call(builder, f"llvm.arithmetic.fence.v{values.type.count}f32", values.type, [values])


def _whole(dtype: Any) -> int:
    """Bytes of what is stored past the cache at once: a vector, or a line of a larger one."""
    vector: int = LANES * _bits(dtype) // 8
    return min(LINE, vector)


def _lane_numbers(lanes: range) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes))


def _broadcast(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _first(builder: Any, n: Any) -> Any:
    """The mask of lanes below n; a constant n >= LANES folds to all of them, and the masked access to a plain one."""
    return builder.icmp_signed("<", _lane_numbers(range(LANES)), _broadcast(builder, builder.trunc(n, _I32)))


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    # llvmlite's declare_intrinsic takes no vector types, so the declaration is written out.
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    module = builder.module
    return builder.call(module.globals.get(name) or ir.Function(module, kind, name), arguments)


def _address(context: Any, builder: Any, array_type: Any, array: Any, i: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [i]), _llvm_vector(array_type.dtype).as_pointer())


def _suffix(dtype: Any, lanes: int = LANES) -> str:
    return f"v{lanes}{'i' if is_half(dtype) or dtype in _INTEGERS else 'f'}{_bits(dtype)}"


@intrinsic
def load(typing_context: Any, array: Any, i: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = _llvm_vector(array.dtype)
        pointer = _address(context, builder, array, arguments[0], arguments[1])
        alignment = ir.Constant(_I32, _bits(array.dtype) // 8)
        parts = [pointer, alignment, _first(builder, arguments[2]), ir.Constant(vector, None)]
        stored = _call(builder, f"llvm.masked.load.{_suffix(array.dtype)}.p0", vector, parts)
        return _loaded(builder, stored, array.dtype, _values(array.dtype))

    return VectorType(_values(array.dtype))(array, types.intp, types.intp), generate


@intrinsic
def load_double(typing_context: Any, array: Any, i: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half, scalar = LANES // 2, _llvm_vector(array.dtype).element
        vector = ir.VectorType(scalar, half)
        start = _address(context, builder, array, arguments[0], arguments[1])
        mask, undefined = _first(builder, arguments[2]), ir.Constant(ir.VectorType(ir.IntType(1), LANES), ir.Undefined)
        halves = []
        for k in (0, 1):
            pointer = builder.gep(builder.bitcast(start, vector.as_pointer()), [ir.Constant(_I32, k)])
            lanes = builder.shuffle_vector(mask, undefined, _lane_numbers(range(k * half, (k + 1) * half)))
            parts = [pointer, ir.Constant(_I32, _bits(array.dtype) // 8), lanes, ir.Constant(vector, None)]
            stored = _call(builder, f"llvm.masked.load.{_suffix(array.dtype, half)}.p0", vector, parts)
            halves.append(_loaded(builder, stored, array.dtype, types.float64))
        return builder.shuffle_vector(*halves, _lane_numbers(range(LANES)))

    return VectorType(types.float64)(array, types.intp, types.intp), generate


@intrinsic
def element(typing_context: Any, array: Any, i: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        one = ir.VectorType(_SCALARS[array.dtype], 1)
        stored = builder.load(
            builder.bitcast(builder.gep(data, [arguments[1]]), one.as_pointer()), align=_bits(array.dtype) // 8
        )
        return builder.extract_element(_loaded(builder, stored, array.dtype, types.float64), ir.Constant(_I32, 0))

    return types.float64(array, types.intp), generate


@intrinsic
def is_double(typing_context: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(_values(array.dtype) == types.float64))

    return types.boolean(array), generate


def new_values(shape: Any, array: Any) -> Any:
    """Numba takes the function below for this one."""
    raise NotImplementedError


@overload(new_values)
def _new_values(shape: Any, array: Any) -> Any:
    dtype = as_dtype(_values(array.dtype))

    def make(shape: Any, array: Any) -> Any:
        return np.empty(shape, dtype)

    return make


@intrinsic
def store(typing_context: Any, array: Any, i: Any, n: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(context, builder, array, arguments[0], arguments[1])
        alignment = ir.Constant(_I32, _bits(array.dtype) // 8)
        stored = _stored(builder, arguments[3], array.dtype)
        parts = [stored, pointer, alignment, _first(builder, arguments[2])]
        _call(builder, f"llvm.masked.store.{_suffix(array.dtype)}.p0", ir.VoidType(), parts)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


@intrinsic
def stream(typing_context: Any, array: Any, i: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = _stored(builder, arguments[2], array.dtype)
        if is_half(array.dtype):
            stored = _fenced(builder, builder.bitcast(stored, _llvm_vector(types.float32, LANES // 2)))
        pointer = _address(context, builder, array, arguments[0], arguments[1])
        written = builder.store(stored, builder.bitcast(pointer, stored.type.as_pointer()), align=_whole(array.dtype))
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def fence(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if CAN_STREAM:
            _call(builder, "llvm.x86.sse.sfence", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def address(typing_context: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, ir.IntType(64))

    return types.int64(array), generate


@intrinsic
def from_element(typing_context: Any, value: Any, n: Any) -> Any:
    def moved(context: Any, builder: Any, kind: Any, part: Any, n_value: Any) -> Any:
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, part)
            array.data = builder.gep(array.data, [n_value])
            array.meminfo = ir.Constant(array.meminfo.type, None)  # it holds no reference: the array that is given does
            array.parent = ir.Constant(array.parent.type, None)
            return array._getvalue()
        for k, each in enumerate(kind if isinstance(kind, types.BaseTuple) else ()):
            inner = moved(context, builder, each, builder.extract_value(part, k), n_value)
            part = builder.insert_value(part, inner, k)
        return part

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return moved(context, builder, value, arguments[0], arguments[1])

    return value(value, types.intp), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, i: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for_reading, in_all_caches, of_data = (ir.Constant(_I32, value) for value in (0, 3, 1))
        pointer = _address(context, builder, array, *arguments)
        for start in range(0, LANES * _bits(array.dtype) // 8, LINE):
            line = builder.gep(builder.bitcast(pointer, ir.IntType(8).as_pointer()), [ir.Constant(_I32, start)])
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), [line, for_reading, in_all_caches, of_data])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def splat(typing_context: Any, scalar: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0])

    return VectorType(scalar)(scalar), generate


@intrinsic
def join(typing_context: Any, a: Any, b: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a_value, b_value, n_value = arguments
        return builder.select(_first(builder, n_value), a_value, b_value)

    return a(a, a, types.intp), generate


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    suffix = _suffix(a.dtype) if isinstance(a, VectorType) else f"f{a.bitwidth}"

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.fma.{suffix}", arguments[0].type, list(arguments))

    return a(a, a, a), generate


@intrinsic
def fold(typing_context: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, lanes = arguments[0], LANES
        while lanes > 1:
            undefined, lanes = ir.Constant(value.type, ir.Undefined), lanes // 2
            low = builder.shuffle_vector(value, undefined, _lane_numbers(range(lanes)))
            high = builder.shuffle_vector(value, undefined, _lane_numbers(range(lanes, 2 * lanes)))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return vector.dtype(vector), generate


@intrinsic
def turn(typing_context: Any, vector: Any, k: Any) -> Any:
    if not isinstance(k, types.IntegerLiteral):
        return None
    order = [(lane + k.literal_value) % LANES for lane in range(LANES)]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        undefined = ir.Constant(arguments[0].type, ir.Undefined)
        return builder.shuffle_vector(arguments[0], undefined, ir.Constant(ir.VectorType(_I32, LANES), order))

    return vector(vector, k), generate


@intrinsic
def first(typing_context: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], ir.Constant(_I32, 0))

    return vector.dtype(vector), generate


@intrinsic
def sqrt(typing_context: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.sqrt.{_suffix(vector.dtype)}", arguments[0].type, list(arguments))

    return vector(vector), generate


@intrinsic
def binade(typing_context: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(64), LANES)
        exponent = ir.Constant(integers, [0x7FF0000000000000] * LANES)
        return builder.bitcast(builder.and_(builder.bitcast(arguments[0], integers), exponent), arguments[0].type)

    return vector(vector), generate


@intrinsic
def narrow(typing_context: Any, vector: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _convert(builder, arguments[0], _values(array.dtype))

    return VectorType(_values(array.dtype))(vector, array), generate


@intrinsic
def double(typing_context: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _convert(builder, arguments[0], types.float64)

    return VectorType(types.float64)(vector), generate


def _convert(builder: Any, value: Any, dtype: Any) -> Any:
    target = _llvm_vector(dtype, value.type.count)
    if value.type == target:
        return value
    return builder.fptrunc(value, target) if dtype == types.float32 else builder.fpext(value, target)


def _comparison(sign: str) -> Any:
    @intrinsic
    def compare(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.fcmp_ordered(sign, *arguments)

        return VectorType(types.boolean)(a, a), generate

    return compare


less, at_most, equal = _comparison("<"), _comparison("<="), _comparison("==")


@intrinsic
def choose(typing_context: Any, mask: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(mask, a, a), generate


@intrinsic
def any_lane(typing_context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", lanes, ir.Constant(lanes.type, 0))

    return types.boolean(mask), generate


def _arithmetic(symbol: Callable[..., Any], instruction: str) -> None:
    @type_callable(symbol)
    def typed(context: Any) -> Any:
        return lambda a, b: a if isinstance(a, VectorType) and a == b else None

    @lower_builtin(symbol, VectorType, VectorType)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")
