"""The libraries, as a table. Each is a class in a file of its own, which is imported only where it is measured.

`Library(problem)` holds the problem in the library's own arrays; its method named as a pass returns a function without
arguments, that is timed and does nothing but the pass. Conversion, allocation of outputs, tracing and compilation are
done before. Outputs go to recycled memory: to the same array every time where a library takes one, and else to what
`bench.machine.recycle_memory` keeps.
"""

from importlib import import_module
from typing import Any

import numpy as np

from bench.cases import Case, Problem
from bench.passes import PASSES

LIBRARIES = {
    "bnnumba": "bench.libraries.bnnumba_forms:Functions",
    "bnnumba serial": "bench.libraries.bnnumba_forms:SerialKernels",
    "numpy": "bench.libraries.numpy_plain:Plain",
    "tensorflow": "bench.libraries.tensorflow_fused:FusedOp",
    "keras": "bench.libraries.keras_layer:Layer",
    "torch": "bench.libraries.torch_native:NativeOps",
    "torch compiled": "bench.libraries.torch_compiled:Compiled",
    "jax": "bench.libraries.jax_jit:Compiled",
    "onnxruntime": "bench.libraries.onnxruntime_session:Session",
}
_TITLES = {
    "numpy": "NumPy",
    "tensorflow": "TensorFlow fused op",
    "keras": "Keras layer",
    "torch": "PyTorch",
    "torch compiled": "PyTorch compiled",
    "jax": "JAX jit",
    "onnxruntime": "ONNX Runtime",
    "numba": "Numba",
    "python": "Python",
}

MEMORY = "memory"  # no library, and measured like one
TORCH_BFLOAT16 = "torch bfloat16"
_LOADABLE = LIBRARIES | {MEMORY: "bench.limits:Rates", TORCH_BFLOAT16: "bench.libraries.torch_native:BFloat16Ops"}


NOT_TWICE = {"double_backward": "its second derivatives are not compared"}


class Library:
    """What the classes share. `missing` says for a pass why the library has none."""

    version: str
    missing: dict[str, str] = {}  # noqa: RUF012  # read only

    def __init__(self, problem: Problem) -> None:
        raise NotImplementedError

    @classmethod
    def refuses(cls, case: Case) -> str:
        """Why the library cannot take the case; empty where it can."""
        del case
        return ""

    def fetch(self, value: Any) -> np.ndarray:
        """One result as a NumPy array."""
        return np.asarray(value)

    def results(self, pass_name: str, returned: Any) -> dict[str, np.ndarray]:
        """What a timed function returned, by name."""
        values = returned if isinstance(returned, (tuple, list)) else (returned,)
        return {name: self.fetch(value) for name, value in zip(PASSES[pass_name].outputs, values, strict=False)}


class LeftOutError(Exception):
    """A library that is not installed, or cannot do what is asked; the message says which and why."""


def title(name: str) -> str:
    """What a library is called where people read."""
    return _TITLES.get(name, name)


def load(name: str, case: Case, pass_name: str) -> type[Library]:
    """Import a library's class, or raise LeftOutError."""
    module, class_name = _LOADABLE[name].split(":")
    try:
        library = getattr(import_module(module), class_name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in {"bench", "bnnumba"}:
            raise
        raise LeftOutError(f"{name}: {error.name} is not installed") from error
    reason = library.missing.get(pass_name) or library.refuses(case)
    if reason:
        raise LeftOutError(f"{name}: {reason}")
    return library
