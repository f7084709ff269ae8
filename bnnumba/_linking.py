"""A Numba compiler for functions that are only linked into others, and are optimized there, once.

Numba otherwise makes each function ready to be called: it optimizes it with all that it calls, and emits machine code;
then its callers do the same with the result, level by level. Without that, a first training step in a process compiles
in half the time.
"""

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class _Library(JITCodeLibrary):  # type: ignore[misc]  # Numba has no types
    """A function's LLVM code as it was lowered, and that of all functions that it calls.

    It is whole, because LLVM links a function in only where something that is there already refers to it: handed to a
    caller one by one, callees of callees would be lost.
    """

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
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
        state.targetctx.insert_user_function(entry_point, state.cr.fndesc, [library])
        return True


class Lowered(CompilerBase):  # type: ignore[misc]
    """Numba's compiler with a lowering of its own."""

    lowering: Any

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [(self.lowering if each is NativeLowering else each, why) for each, why in passes.passes]
        passes.finalize()
        return [passes]


class LinkedOnly(Lowered):
    """What `pipeline_class` is for such functions."""

    lowering = _Lowering
