"""Checks of shapes at the start of each kernel, where NUMBA_BOUNDSCHECK=1 is set: a wrong one is a ValueError."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from bnnumba._guards import ArrayKind, kind_of
from bnnumba._linking import Lowered


class _CheckedLower(Lower):  # type: ignore[misc]  # Numba has no types
    def extract_function_arguments(self) -> Any:
        """Compare the sizes of all arrays, axis by axis, with those of the first that has an axis of the name."""
        arguments = super().extract_function_arguments()
        kernel = self.func_ir.func_id.func
        sizes: dict[str, Any] = {}
        for name, kind, value in zip(self.fndesc.args, self.fndesc.argtypes, arguments, strict=True):
            expected = kind_of(kernel, name.removeprefix("arg."))[0]
            if not isinstance(kind, types.Array) or not isinstance(expected, ArrayKind):
                continue
            shape = cgutils.unpack_tuple(
                self.builder, self.context.make_array(kind)(self.context, self.builder, value).shape
            )
            for axis, size in zip(expected.shape, shape, strict=True):
                known = ir.Constant(size.type, int(axis)) if axis.isdigit() else sizes.setdefault(axis, size)
                differs = self.builder.icmp_unsigned("!=", size, known)
                with cgutils.if_unlikely(self.builder, differs):
                    text = f"{kernel.__name__}: {name.removeprefix('arg.')} must have shape {expected.written_shape}"
                    self.call_conv.return_user_exc(self.builder, ValueError, (f"{text}, as the arrays before it",))
        return arguments


@register_pass(mutates_CFG=True, analysis_only=False)
class _CheckedLowering(NativeLowering):  # type: ignore[misc]
    _name = "bnnumba_checked_lowering"

    @property
    def lowering_class(self) -> Any:
        return _CheckedLower


class ShapesChecked(Lowered):
    """What `pipeline_class` is for kernels that check shapes."""

    lowering = _CheckedLowering
