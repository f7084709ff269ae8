"""Every Numba option of the package, in one place, each with its reason."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin

from bnnumba._cache import cache_for
from bnnumba._interrupts import deferred_interrupts
from bnnumba._linking import LinkedOnly

F = TypeVar("F", bound=Callable[..., Any])
SLOW_SECONDS = 1.0  # a compilation of more than that is logged

_log = logging.getLogger("bnnumba")

# An option left out is inherited from whichever caller compiles the kernel first: a user's fastmath=True would make
# isnan(nan) False in it for everyone. So each is written out, except boundscheck, which must follow NUMBA_BOUNDSCHECK.
_COMMON = MappingProxyType(
    {
        "fastmath": False,  # reassociation would tie the bits to the vector width, contraction to the code path
        "error_model": "numpy",  # a division by zero is inf or NaN, as in NumPy, and costs no branch
        "nogil": True,  # other Python threads go on meanwhile
    }
)


# What only kernels call needs no entry points for Python and C.
_INTERNAL = MappingProxyType({**_COMMON, "no_cpython_wrapper": True, "no_cfunc_wrapper": True})


def helper(function: F) -> F:
    """Compile a function that only kernels call."""
    return _linked(function)


def inlined(function: F) -> F:
    """Compile a `helper` that is always inlined.

    Then constants fold and vectors stay in registers; and a function passed to it leaves no address behind, which would
    keep its callers out of the disk cache.
    """
    return _linked(function, forceinline=True)


def loop(function: F) -> F:
    """Compile an `inlined` function that makes no array and returns none: it counts no references to its arguments.

    Each count is an atomic instruction, which waits for all stores past the cache.
    """
    return _linked(function, forceinline=True, _nrt=False)


def _linked(function: F, **options: Any) -> F:
    compiled: Any = numba.njit(pipeline_class=LinkedOnly, **_INTERNAL, **options)(function)
    if not numba.config.DISABLE_JIT:
        # Numba would compile it once more for each literal argument; inlined, constants fold all the same.
        template = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: template([types.unliteral(each) for each in args], kws)
    linked: F = compiled
    return linked


def method(name: str, default: Any = None) -> Callable[..., Any]:
    """Make the function that calls the method `name` of its first argument, a named tuple; or without it the default.

    Numba picks the method by the tuple's class when it compiles: a value can so say what a loop does with it, and the
    loop knows no class. Methods are functions compiled by `loop`.
    """
    return _chosen(
        lambda value, *arguments: getattr(type(value), name, default)(value, *arguments),
        lambda kind: getattr(kind.instance_class, name, default),
    )


def either(absent: Callable[..., Any], given: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function that is `absent` where its first argument is None, and `given` elsewhere.

    Numba chooses when it compiles. Of `if argument is None` it compiles both branches, unless the argument is None.
    """
    chosen: Any = _chosen(
        lambda value, *arguments: (absent if value is None else given)(value, *arguments),
        lambda kind: absent if isinstance(kind, types.NoneType) else given,
    )
    chosen.parts = absent, given
    return chosen  # type: ignore[no-any-return]


def by_precision(half: Callable[..., Any], full: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function that is `half` where its first argument is an array of half precision, and `full` elsewhere.

    Half precision comes as integers (see `kernels.simd`). Numba chooses when it compiles: results may differ in type.
    """
    return _chosen(
        lambda array, *arguments: (half if array.dtype.kind in "iu" else full)(array, *arguments),
        lambda kind: half if isinstance(kind.dtype, types.Integer) else full,
    )


def _chosen(call: Callable[..., Any], choose: Callable[[Any], Any]) -> Callable[..., Any]:
    """Tell Numba which function `call` is, by the type of its first argument."""

    class Template(AbstractTemplate):  # type: ignore[misc]  # Numba has no types
        key = call

        def generic(self, args: Any, kws: Any) -> Any:
            return types.Dispatcher(choose(args[0])).get_call_type(self.context, args, kws)

    infer_global(call, types.Function(Template))

    @lower_builtin(call, types.VarArg(types.Any))  # type: ignore[untyped-decorator]
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = context.get_function(types.Dispatcher(choose(signature.args[0])), signature)
        context.add_linking_libs(function.libs)
        return function(builder, values)

    return call


def compile_form(module: ModuleType, form: str, own: dict[str, Any], guards: Any = None) -> dict[str, Any]:
    """Compile a module's kernels, those in its `__all__`, in a form: with functions of its `own` for the module's.

    Kernels that call each other find each other in their own form, to be linked in. So do the module's other functions
    that are not compiled by themselves, and what `either` made of them.

    guards: `check(kernel, types)` is called before a kernel is compiled for types; `describe(kernel)` documents it.
    """
    namespace = {**vars(module), **own}
    kernels = {}
    for name, written in vars(module).items():
        if hasattr(written, "parts"):
            namespace[name] = either(*(namespace.get(part.__name__, part) for part in written.parts))
        if not isinstance(written, FunctionType) or written.__module__ != module.__name__:
            continue
        function = FunctionType(written.__code__, namespace, name, written.__defaults__)
        namespace[name] = (helper if name in module.__all__ else inlined)(function)
        if name not in module.__all__:
            continue
        function.__annotations__ = written.__annotations__
        function.__doc__ = written.__doc__
        if guards is not None:
            function.__doc__ = guards.describe(written)
        function.__module__ = written.__module__
        # The cache's file is named by this: both forms need their own, and so does every state of the sources.
        function.__qualname__ = f"{name}_{form}{_CHECKED}_{_SOURCES}"
        kernels[name] = numba.njit(**_COMMON, **(guards.compiler() if guards and _CHECKED else {}))(function)
        if not numba.config.DISABLE_JIT:
            kernels[name]._cache = cache_for(function)  # what njit(cache=True) sets
            kernels[name].compile = deferred_interrupts()(_watched(kernels[name].compile, written, form, guards))
    return kernels


def _watched(compile_for: Callable[..., Any], kernel: FunctionType, form: str, guards: Any) -> Callable[..., Any]:
    """Check the types before a compilation, and log one that took long."""

    def compile_watched(signature: Any) -> Any:
        if guards is not None:
            guards.check(kernel, getattr(signature, "args", signature))
        begin = perf_counter()
        compiled = compile_for(signature)
        seconds = perf_counter() - begin
        if seconds > SLOW_SECONDS:
            types_of = getattr(signature, "args", signature)
            dtype = next((each.dtype for each in types_of if isinstance(each, types.Array)), types_of[0])
            how = "for the disk cache; `python -m bnnumba warm-up` does so beforehand"
            _log.info("compiled the kernel %s (%s, %s) in %.1f s, %s", kernel.__name__, form, dtype, seconds, how)
        return compiled

    return compile_watched


def linked(kernels: dict[str, Any]) -> dict[str, Any]:
    """A form's kernels as helpers, for kernels in other modules that call them, as `own` of `compile_form`."""
    return {name: helper(getattr(kernel, "py_func", kernel)) for name, kernel in kernels.items()}


# A prange index is unsigned: mixed with a signed integer, it would become a float. And a literal is a type of its own.
signed: Callable[[int], Any] = np.int64


_CHECKED = "_checked" if numba.config.BOUNDSCHECK else ""


def _digest_of_sources() -> str:
    """Return a short digest of the kernels' sources.

    Numba's disk cache watches a function's own file only. With this digest in the cached name, a change in a helper's
    file compiles its callers anew.
    """
    folder = Path(__file__).parent
    sources = [
        Path(__file__),
        folder / "_addresses.py",
        folder / "_linking.py",
        folder / "_objects.py",
        folder / "_past_cache.py",
        folder / "_shapes.py",
        folder / "activations.py",
        *sorted((folder / "kernels").glob("*.py")),
    ]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]


_SOURCES = _digest_of_sources()
