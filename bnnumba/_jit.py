"""Every Numba option of the package, in one place, each with its reason."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types

from bnnumba._cache import cache_for

F = TypeVar("F", bound=Callable[..., Any])

# An option left out is inherited from whichever caller compiles the kernel first: a user's fastmath=True would make
# isnan(nan) False in it for everyone. So each is written out, except boundscheck, which must follow NUMBA_BOUNDSCHECK.
_COMMON = MappingProxyType(
    {
        "fastmath": False,  # reassociation would tie the bits to the vector width, contraction to the code path
        "error_model": "numpy",  # a division by zero is inf or NaN, as in NumPy, and costs no branch
    }
)


# What only kernels call needs no entry points for Python and C; making them is a quarter of its compile time.
_INTERNAL = MappingProxyType({**_COMMON, "nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True})


# Numba would also thread array expressions, down to a small np.zeros, at the price of a region each.
_ARRAY_EXPRESSIONS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PRANGE_ONLY = {"prange": True, **dict.fromkeys(_ARRAY_EXPRESSIONS, False)}


def helper(function: F) -> F:
    """Compile a function that only kernels call."""
    compiled: F = numba.njit(**_INTERNAL)(function)
    return compiled


def inlined(function: F) -> F:
    """Compile a `helper` that is always inlined.

    Then constants fold and vectors stay in registers; and a function passed to it leaves no address behind, which would
    keep its callers out of the disk cache.
    """
    compiled: F = numba.njit(forceinline=True, **_INTERNAL)(function)
    return compiled


def compile_form(
    module: ModuleType, names: Iterable[str], serial: Mapping[str, Callable[..., Any]] | None = None
) -> dict[str, Callable[..., Any]]:
    """Compile a module's kernels, each written once with `prange`: the serial form, or, given that, the threaded one.

    Kernels that call each other find each other in their own form; `group_NAME` is the serial form of NAME in either.
    In the serial form `prange` is `range`, and `thread_count()` is 1. Both release the GIL.
    """
    threaded = serial is not None
    namespace = dict(vars(module))
    if not threaded:
        namespace["thread_count"] = _one
    for name in names:
        written = namespace[name]
        form = FunctionType(written.__code__, namespace, name)
        form.__doc__ = written.__doc__
        form.__module__ = written.__module__
        # The cache's file is named by this: both forms need their own, and so does every state of the sources.
        form.__qualname__ = f"{name}_{'threaded' if threaded else 'serial'}_{_SOURCES}"
        parallel = _PRANGE_ONLY if threaded and "prange" in written.__code__.co_names else False
        namespace[name] = numba.njit(parallel=parallel, nogil=True, **_COMMON)(form)
        if not numba.config.DISABLE_JIT:
            namespace[name]._cache = cache_for(form)  # what njit(cache=True) sets
        namespace[f"group_{name}"] = serial[name] if serial else namespace[name]
    return {name: namespace[name] for name in names}


# A prange index is unsigned: mixed with a signed integer, it would become a float. And a literal passed to a kernel
# compiles it once more.
signed: Callable[[int], Any] = np.int64


@helper
def _one() -> Any:
    return signed(1)


# Numba's own get_num_threads, called in a kernel, keeps it out of the disk cache; the symbol behind it does not.
thread_count: Callable[[], int] = (
    _one if numba.config.DISABLE_JIT else types.ExternalFunction("get_num_threads", types.intp())
)


PAST_CACHE_SETTING = os.environ.get("BNNUMBA_PAST_CACHE_BYTES", "")  # compiled into the kernels


def _digest_of_sources() -> str:
    """Return a short digest of the kernels' sources and of what the environment sets in them.

    Numba's disk cache watches a function's own file only. With this digest in the cached name, a change in a helper's
    file compiles its callers anew.
    """
    folder = Path(__file__).parent
    sources = [Path(__file__), *sorted((folder / "kernels").glob("*.py"))]
    contents = [PAST_CACHE_SETTING.encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:8]


_SOURCES = _digest_of_sources()
