"""Half precision as LLVM instructions: vectors of the stored integers to float32 or float64, and back.

Numba has no such numbers, so an array of float16 comes as uint16, and one of bfloat16 as int16.
"""

from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core.codegen import get_host_cpu_features

FLOAT16, BFLOAT16 = types.uint16, types.int16
_F32, _I32 = ir.FloatType(), ir.IntType(32)

# Elsewhere LLVM would call functions of a compiler's runtime library, which no one links in.
ARCHITECTURE = binding.get_process_triple().partition("-")[0]  # what code is made for, whatever the system calls itself
_FEATURES = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
CONVERTS_FLOAT16 = "+f16c" in _FEATURES or ARCHITECTURE in ("aarch64", "arm64")


def is_half(dtype: Any) -> bool:
    return dtype in (FLOAT16, BFLOAT16)


def unpacked(builder: Any, stored: Any, dtype: Any) -> Any:
    """Return the numbers that are stored, as a vector of half or float."""
    lanes = stored.type.count
    if dtype == BFLOAT16:
        return _Integers(builder, lanes).bfloat16_to_float(stored)
    if CONVERTS_FLOAT16:
        return builder.bitcast(stored, ir.VectorType(ir.HalfType(), lanes))
    return _Integers(builder, lanes).float16_to_float(stored)


def packed(builder: Any, values: Any, dtype: Any) -> Any:
    """Return a vector of float as it is stored, rounded to nearest even."""
    lanes = values.type.count
    if dtype == BFLOAT16:
        return _Integers(builder, lanes).float_to_bfloat16(values)
    if CONVERTS_FLOAT16:
        half = builder.fptrunc(values, ir.VectorType(ir.HalfType(), lanes))
        return builder.bitcast(half, ir.VectorType(ir.IntType(16), lanes))
    return _Integers(builder, lanes).float_to_float16(values)


class _Integers:
    """The conversions by integer arithmetic on the bits of float32: sign, 8 of the exponent, 23 of the fraction."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.builder, self.lanes = builder, lanes
        self.floats, self.wide = ir.VectorType(_F32, lanes), ir.VectorType(_I32, lanes)
        self.narrow = ir.VectorType(ir.IntType(16), lanes)

    def constant(self, number: int) -> Any:
        return ir.Constant(self.wide, [number] * self.lanes)

    def bfloat16_to_float(self, stored: Any) -> Any:
        b = self.builder
        return b.bitcast(b.shl(b.zext(stored, self.wide), self.constant(16)), self.floats)

    def float_to_bfloat16(self, values: Any) -> Any:
        """Round by integer arithmetic, but not NaNs: the half that is kept says so.

        They come from a half themselves, or arithmetic made them quiet, by a bit of that half.
        """
        b = self.builder
        bits = b.bitcast(values, self.wide)
        odd = b.and_(b.lshr(bits, self.constant(16)), self.constant(1))
        rounded = b.add(b.add(bits, self.constant(0x7FFF)), odd)
        kept = b.select(b.fcmp_ordered("ord", values, values), rounded, bits)
        return b.trunc(b.lshr(kept, self.constant(16)), self.narrow)

    def float16_to_float(self, stored: Any) -> Any:
        """Move the fields into float32's places, and correct the exponent by an exact product."""
        b = self.builder
        bits = b.zext(stored, self.wide)
        sign = b.shl(b.and_(bits, self.constant(0x8000)), self.constant(16))
        moved = b.shl(b.and_(bits, self.constant(0x7FFF)), self.constant(13))
        scale = ir.Constant(self.floats, [2.0**112] * self.lanes)
        scaled = b.bitcast(b.fmul(b.bitcast(moved, self.floats), scale), self.wide)
        not_finite = b.icmp_unsigned(">=", moved, self.constant(0x7C00 << 13))
        magnitude = b.select(not_finite, b.or_(moved, self.constant(0xFF << 23)), scaled)
        return b.bitcast(b.or_(magnitude, sign), self.floats)

    def float_to_float16(self, values: Any) -> Any:
        """Round by integer arithmetic where float16 is normal, by a sum with 0.5 where it is subnormal."""
        b = self.builder
        bits = b.bitcast(values, self.wide)
        magnitude = b.and_(bits, self.constant(0x7FFFFFFF))
        up = b.add(b.and_(b.lshr(magnitude, self.constant(13)), self.constant(1)), self.constant(0xFFF))
        rebiased = b.sub(b.add(magnitude, up), self.constant((127 - 15) << 23))
        normal = b.lshr(rebiased, self.constant(13))
        half = ir.Constant(self.floats, [0.5] * self.lanes)  # whose last bit is float16's smallest number
        shifted = b.bitcast(b.fadd(b.bitcast(magnitude, self.floats), half), self.wide)
        subnormal = b.sub(shifted, b.bitcast(half, self.wide))
        finite = b.select(b.icmp_unsigned("<", magnitude, self.constant((127 - 14) << 23)), subnormal, normal)
        payload = b.and_(b.lshr(magnitude, self.constant(13)), self.constant(0x3FF))
        nan = b.or_(payload, self.constant(0x7E00))
        too_large = b.icmp_unsigned(">=", magnitude, self.constant((127 + 16) << 23))
        result = b.select(too_large, self.constant(0x7C00), finite)
        result = b.select(b.icmp_unsigned(">", magnitude, self.constant(0xFF << 23)), nan, result)
        sign = b.and_(b.lshr(bits, self.constant(16)), self.constant(0x8000))
        return b.trunc(b.or_(result, sign), self.narrow)
