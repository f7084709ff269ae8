"""A Numba compiler for functions that are only linked into others, and are optimized there, once.

Numba otherwise makes each function ready to be called: it links in all that the function calls, optimizes the whole,
and emits machine code; then its callers do the same with the result, level by level. Without that, a first training
step in a process compiles in half the time.
"""

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class _Library(JITCodeLibrary):  # type: ignore[misc]  # Numba has no types
    """A function's LLVM code as it was lowered, and the libraries that it needs."""

    def finalize(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):  # type: ignore[misc]
    _name = "bnnumba_lowering"

    def run_pass(self, state: Any) -> bool:
        library = state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        library.finalize()
        entry_point: Any = [].index  # Numba tells functions apart by theirs; this one refuses to be called from Python
        state.cr = state.cr._replace(cfunc=entry_point)
        state.targetctx.insert_user_function(entry_point, state.cr.fndesc, [library, *library._linking_libraries])
        return True


class LinkedOnly(CompilerBase):  # type: ignore[misc]
    """What `pipeline_class` is for such functions."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [(_Lowering if each is NativeLowering else each, why) for each, why in passes.passes]
        passes.finalize()
        return [passes]
