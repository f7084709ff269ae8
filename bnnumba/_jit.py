"""Every Numba option of the package, in one place, each with its reason."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types

from bnnumba._cache import cache_for
from bnnumba._interrupts import deferred_interrupts
from bnnumba._linking import LinkedOnly

F = TypeVar("F", bound=Callable[..., Any])

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


# Numba would also thread array expressions, down to a small np.zeros, at the price of a region each.
_ARRAY_EXPRESSIONS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PRANGE_ONLY = {"prange": True, **dict.fromkeys(_ARRAY_EXPRESSIONS, False)}


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


def region(function: F) -> F:
    """Compile a function with a `prange` that kernels call: the one kind that launches threads."""
    compiled: F = numba.njit(parallel=_PRANGE_ONLY, **_INTERNAL)(function)
    return compiled


def compile_form(module: ModuleType, names: Iterable[str], form: str, **own: Any) -> dict[str, Callable[..., Any]]:
    """Compile a module's kernels, each written once, in a form: with functions of its `own` in place of the module's.

    Kernels that call each other find each other in their own form, to be linked in.
    """
    namespace = {**vars(module), **own}
    kernels = {}
    for name in names:
        written = namespace[name]
        function = FunctionType(written.__code__, namespace, name)
        function.__doc__ = written.__doc__
        function.__module__ = written.__module__
        # The cache's file is named by this: both forms need their own, and so does every state of the sources.
        function.__qualname__ = f"{name}_{form}_{_SOURCES}"
        kernels[name] = numba.njit(**_COMMON)(function)
        if not numba.config.DISABLE_JIT:
            kernels[name]._cache = cache_for(function)  # what njit(cache=True) sets
            kernels[name].compile = deferred_interrupts()(kernels[name].compile)
        namespace[name] = helper(function)
    return kernels


def linked(kernels: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """A form's kernels as helpers, for kernels in other modules that call them, as `own` of `compile_form`."""
    return {name: helper(getattr(kernel, "py_func", kernel)) for name, kernel in kernels.items()}


# A prange index is unsigned: mixed with a signed integer, it would become a float. And a literal is a type of its own.
signed: Callable[[int], Any] = np.int64


PAST_CACHE_SETTING = os.environ.get("BNNUMBA_PAST_CACHE_BYTES", "")  # compiled into the kernels


def _digest_of_sources() -> str:
    """Return a short digest of the kernels' sources and of what the environment sets in them.

    Numba's disk cache watches a function's own file only. With this digest in the cached name, a change in a helper's
    file compiles its callers anew.
    """
    folder = Path(__file__).parent
    sources = [Path(__file__), folder / "_linking.py", *sorted((folder / "kernels").glob("*.py"))]
    contents = [PAST_CACHE_SETTING.encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:8]


_SOURCES = _digest_of_sources()
