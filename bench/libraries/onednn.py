"""oneDNN by its C++ API: a small program, compiled when it is first needed, and called by ctypes."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from ctypes import c_bool, c_float, c_int, c_int64, c_void_p
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.cases import EPSILON, Case, Problem
from bench.library import Library
from bench.machine import THREADS

HEADERS = distribution("onednn-devel-cpu-gomp")  # a ModuleNotFoundError where it is not installed
NAMES = ("x", "dy", "gamma", "beta", "mean", "var", "y", "dx", "dgamma", "dbeta")
LINE = 64  # bytes


class _Arrays(ctypes.Structure):
    _fields_: ClassVar = [(name, c_void_p) for name in NAMES]


class Primitives(Library):
    """batch_normalization_forward and _backward, made once for each pass, on arrays that start a cache line."""

    version = HEADERS.version

    def __init__(self, problem: Problem) -> None:
        shape, axis = problem.case.single_axis
        self.last = axis == len(shape) - 1
        outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        if self.last and len(shape) > 2:  # images
            outer, inner = shape[0], int(np.prod(shape[1:-1]))
        self.sizes = c_int64(outer), c_int64(shape[axis]), c_int64(inner)
        given = (problem.x, problem.dy, *(f.ravel() for f in problem.features))
        results = (
            *(np.full_like(problem.x, np.nan) for _ in range(2)),
            *(np.full(shape[axis], np.nan) for _ in range(2)),
        )
        self.arrays = {name: _aligned(array) for name, array in zip(NAMES, (*given, *results), strict=True)}
        self.calls: list[int] = []

    def __del__(self) -> None:
        for call in self.calls:
            _program().forget(c_void_p(call))

    @classmethod
    def refuses(cls, case: Case) -> str:
        del case
        return "" if shutil.which("g++") else "it needs a C++ compiler"

    def inference(self) -> Callable:
        return self._entry("make_forward", False, self.arrays, "y")

    def training_forward(self) -> Callable:
        return self._entry("make_forward", True, self._of_the_batch(), "y")

    def backward(self) -> Callable:
        arrays = self._of_the_batch()
        self._entry("make_forward", True, arrays, "y")()
        return self._entry("make_backward", True, arrays, "dx", "dgamma", "dbeta")

    def frozen_backward(self) -> Callable:
        return self._entry("make_backward", False, self.arrays, "dx", "dgamma", "dbeta")

    def forward_backward(self) -> Callable:
        arrays = self._of_the_batch()
        forward = self._entry("make_forward", True, arrays, "y")
        backward = self._entry("make_backward", True, arrays, "dx", "dgamma", "dbeta")
        return lambda: forward() + backward()

    def _of_the_batch(self) -> dict[str, np.ndarray]:
        """The arrays, with a mean and a variance that a forward call fills."""
        return {**self.arrays, "mean": np.empty_like(self.arrays["mean"]), "var": np.empty_like(self.arrays["var"])}

    def _entry(self, maker: str, training: bool, arrays: dict[str, np.ndarray], *returned: str) -> Callable:
        places = _Arrays(*(arrays[name].ctypes.data for name in NAMES))
        make = getattr(_program(), maker)
        make.restype = c_void_p
        call = make(ctypes.byref(places), *self.sizes, c_bool(self.last), c_bool(training), c_float(EPSILON))
        self.calls.append(call)
        run, handle, results = _program().run, c_void_p(call), tuple(arrays[name] for name in returned)

        def entry() -> tuple[np.ndarray, ...]:
            run(handle)
            return results

        entry.arrays = arrays  # which the call has the addresses of
        return entry


@cache
def _program() -> Any:
    prefix = Path(str(HEADERS.locate_file(""))).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "onednn.so")
        options = ["-O2", "-std=c++17", "-shared", "-fPIC", "-fopenmp", f"-I{prefix / 'include'}"]
        links = [f"-L{prefix / 'lib'}", f"-Wl,-rpath,{prefix / 'lib'}", "-ldnnl"]
        source = Path(__file__).with_suffix(".cpp")
        subprocess.run(["g++", *options, str(source), "-o", str(library), *links], check=True)
        program = ctypes.CDLL(str(library))
    program.use_threads(c_int(THREADS))
    return program


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy in float32 that starts a cache line."""
    room = np.empty(4 * array.size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    copy = room[start : start + 4 * array.size].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy
