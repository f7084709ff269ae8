"""Which kernels there are to compile, for which types, and which of them the disk cache holds."""

import inspect
from collections.abc import Collection
from typing import Any, NamedTuple

import numba
from numba import types

from bnnumba import _threads, direct
from bnnumba._guards import signature_of
from bnnumba.activations import NAMED
from bnnumba.kernels import serial, threaded

FORMS = {"serial": serial, "threaded": threaded}
RELU = NAMED["relu"]
DTYPES = {"float32": types.float32, "float64": types.float64}


class Job(NamedTuple):
    """One kernel for one dtype."""

    name: str
    kernel: Any
    signature: tuple[Any, ...]

    def compile(self) -> None:
        """Compile it, or load it from the cache."""
        self.kernel.compile(self.signature)

    @property
    def cached(self) -> bool:
        """Whether the disk cache holds it."""
        return bool(self.kernel._cache.holds(self.signature, self.kernel.targetctx))


def jobs(dtypes: Collection[str] = tuple(DTYPES)) -> list[Job]:
    """Every kernel, in both forms, for some dtypes, and what else is compiled; none with NUMBA_DISABLE_JIT."""
    if numba.config.DISABLE_JIT:
        return []
    others = [Job(name, kernel, direct.SIGNATURE) for name, kernel in direct.FORM.items()]
    others += [Job(name, kernel, _threads.SIGNATURE) for name, kernel in _threads.FORM.items()]
    return others + [
        Job(f"{form}.{name} of {dtype}{_words(given)}", kernel, signature_of(kernel.py_func, dtype, given))
        for form, module in FORMS.items()
        for dtype in (DTYPES[each] for each in dtypes)
        for name, kernel in module.FORM.items()
        for given in _variants(kernel.py_func, f"{name}_into" in module.FORM)
    ]


def _variants(kernel: Any, returning: bool) -> list[dict[str, Any]]:
    """What is optional, as the functions give it: nothing, a residual, a ReLU, or both.

    returning: what the functions do not call, as they fill arrays.
    """
    parameters = inspect.signature(kernel).parameters
    optional = {name for name, each in parameters.items() if each.default is None}
    if "rest" in optional:
        return [{"rest": ...}]
    if "weights" in optional:
        return [{"weights": None}, {"weights": ...}]
    if returning or "activation" not in parameters:
        return [{}]
    if "activation" not in optional:
        return [{"activation": RELU}]
    if "residual" in optional:
        return [{}, *({"residual": r, "activation": a} for r, a in ((..., None), (None, RELU), (..., RELU)))]
    given = {"activation": RELU, "y": ..., **({"beta": None} if "beta" in optional else {})}
    return [{}, *({"dresidual": each, **given} for each in (None, ...))]


def _words(given: dict[str, Any]) -> str:
    return "".join(f", {name}" for name, value in given.items() if value is not None)
