"""The kernels that `functional` calls, each in the form that is faster, with the same bits."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from threading import local
from typing import Any

import numba
import numpy as np
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from bnnumba.kernels import serial, threaded

Kernel = Callable[..., Any]

# An x smaller than this is faster on one thread than on two (measured); sums wake the threads twice.
THREADED_BYTES = 2**19
THREADED_NORMALIZE_BYTES = 2**18


class _ThisThread(local):
    alone = False


_this_thread = _ThisThread()


@contextmanager
def without_threads() -> Iterator[None]:
    """Let this thread's calls run on this thread alone, where something else keeps all cores at work."""
    before, _this_thread.alone = _this_thread.alone, True
    try:
        yield
    finally:
        _this_thread.alone = before


def run_either(alone: Kernel, together: Kernel, small: bool, arguments: tuple[Any, ...], key: Any = None) -> Any:
    """Run a kernel in the form that suits: `together` with threads, which `small` data does not need.

    key: tells the types of the arguments, where Numba's own search would cost more than a small call: of tuples.
    """
    kernel = alone if small or _this_thread.alone else together
    return _version(kernel, key, arguments)(*arguments)


_versions: dict[tuple[Kernel, Any], Kernel] = {}


def _version(kernel: Kernel, key: Any, arguments: tuple[Any, ...]) -> Kernel:
    """Return a kernel; or its version that is compiled for such arguments, where there is a key."""
    if key is None or numba.config.DISABLE_JIT:
        return kernel
    version = _versions.get((kernel, key))
    if version is None:
        compiled: Any = kernel
        version = _versions[kernel, key] = compiled.compile(tuple(map(numba.typeof, arguments)))
    return version


def _kinds(arguments: tuple[Any, ...], array: Any = np.ndarray) -> tuple[Any, ...]:
    """What tells the types of the arguments: of an array its dtype, as a result's may be another than the data's."""
    return tuple([each.dtype.names or each.dtype.char if type(each) is array else type(each) for each in arguments])


def _either_form(name: str, least: int = THREADED_BYTES) -> Kernel:
    """A kernel in either form, whose first argument is an array of the data; threaded where that has `least` bytes."""
    alone, together = serial.FORM[name], threaded.FORM[name]
    parameters = signature(getattr(alone, "py_func", alone)).parameters
    required = sum(parameter.default is Parameter.empty for parameter in parameters.values())

    def kernel(*arguments: Any) -> Any:
        x, key = arguments[0], None
        if len(arguments) > required:  # all others have the types that `axes` makes them have
            arguments = *arguments, *(None,) * (len(parameters) - len(arguments))
            key = _kinds(arguments)
        return run_either(alone, together, x.nbytes < least, arguments, key)

    return kernel


moments_and_rest_into = _either_form("moments_and_rest_into")
weighted_moments_into = _either_form("weighted_moments_into")
cell_moments_into = _either_form("cell_moments_into")
normalize = _either_form("normalize", THREADED_NORMALIZE_BYTES)
batch_norm_into = _either_form("batch_norm_into")
gradient_sums_into = _either_form("gradient_sums_into")
input_gradient = _either_form("input_gradient")
frozen_input_gradient = _either_form("frozen_input_gradient", THREADED_NORMALIZE_BYTES)
batch_norm_backward_into = _either_form("batch_norm_backward_into")
frozen_backward_into = _either_form("frozen_backward_into")
activation_gradient = _either_form("activation_gradient", THREADED_NORMALIZE_BYTES)
subtract_weighted = _either_form("subtract_weighted", THREADED_NORMALIZE_BYTES)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    # A fork waits for a compilation in another thread, and for what that does within LLVM without Numba's lock: the
    # child would have the locks, but not the thread. LLVM's is taken last, as in a compilation.
    compiling, within_llvm = global_compiler_lock, ffi.lib._lock
    for enter, leave in (
        (within_llvm.__enter__, within_llvm.__exit__),
        (compiling.acquire, compiling.release),
    ):
        os.register_at_fork(before=enter, after_in_parent=leave, after_in_child=leave)
