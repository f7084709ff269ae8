"""What the kernels' arguments are, by the names of their annotations: to refuse others, to describe them, to warm up.

A kernel called with an array of another rank, dtype or layout would read or write outside of it. Numba asks here when
it compiles a kernel for the types of a call, so that a call costs nothing.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from numba import from_dtype, typeof, types

from bnnumba.kernels import _integers

FLOATS = types.float32, types.float64
HALVES = types.uint16, types.int16
INTEGERS = (
    *(types.int8, types.uint8, types.int32, types.uint32, types.int64, types.uint64),
    *(from_dtype(_integers.INT16), from_dtype(_integers.UINT16)),
)


class ArrayKind(NamedTuple):
    """An array in C order."""

    shape: tuple[str, ...]
    dtypes: tuple[Any, ...]
    described: str
    filled: bool = False

    def holds(self, given: Any) -> bool:
        """Whether a type of Numba's is such an array."""
        return (
            isinstance(given, types.Array)
            and (given.ndim, given.layout, given.aligned) == (len(self.shape), "C", True)
            and given.dtype in self.dtypes
            and (given.mutable or not self.filled)
        )

    @property
    def written_shape(self) -> str:
        """The shape as Python writes one."""
        return f"({', '.join(self.shape)}{',' if len(self.shape) == 1 else ''})"

    def __str__(self) -> str:
        return f"a C-contiguous{' writeable' if self.filled else ''} array {self.written_shape} of {self.described}"


class ScalarKind(NamedTuple):
    """A number, or an activation."""

    described: str
    accepted: Callable[[Any], bool]

    def holds(self, given: Any) -> bool:
        """Whether a type of Numba's is such a value."""
        return self.accepted(types.unliteral(given))

    def __str__(self) -> str:
        return self.described


DATA = "float32, float64, or float16 and bfloat16 as uint16 and int16"
NUMBERS = f"{DATA}; or integers, of 16 bits as records"
DOUBLE = (types.float64,)
POSITIONS, FEATURES, ROWS = ("outer", "feature", "inner"), ("feature",), ("4", "feature")
KINDS: dict[str, ArrayKind | ScalarKind] = {
    "Data": ArrayKind(POSITIONS, FLOATS + HALVES, DATA),
    "Numbers": ArrayKind(POSITIONS, FLOATS + HALVES + INTEGERS, NUMBERS),
    "Result": ArrayKind(POSITIONS, FLOATS + HALVES, DATA, filled=True),
    "Change": ArrayKind(POSITIONS, FLOATS, "x's dtype; of half precision float32", filled=True),
    "Weights": ArrayKind(("outer", "1", "inner"), DOUBLE, "float64"),
    "Cells": ArrayKind(POSITIONS, DOUBLE, "float64"),
    "Features": ArrayKind(FEATURES, DOUBLE, "float64"),
    "FeatureResult": ArrayKind(FEATURES, DOUBLE, "float64", filled=True),
    "Moving": ArrayKind(FEATURES, FLOATS, "float32 or float64", filled=True),
    "Rows": ArrayKind(ROWS, DOUBLE, "float64"),
    "RowsResult": ArrayKind(ROWS, DOUBLE, "float64", filled=True),
    "float": ScalarKind("a float", lambda given: bool(given == types.float64)),
    "int": ScalarKind("an int", lambda given: isinstance(given, types.Integer | types.Boolean)),
    "Act": ScalarKind(
        "an instance of a class in bnnumba.activations, such as Relu()",
        lambda given: (
            isinstance(given, types.BaseNamedTuple)  # a class in place of its instance has another type
            and given.instance_class.__module__ == "bnnumba.activations"
            and hasattr(given.instance_class, "gradient")
        ),
    ),
}


def check(kernel: FunctionType, given: tuple[Any, ...]) -> None:
    """Raise TypeError where a kernel is to be compiled for types that its arguments do not have, in one line."""
    named = dict(zip(inspect.signature(kernel).parameters, given, strict=False))
    for name, kind in named.items():
        expected, optional = kind_of(kernel, name)
        if optional and _is_none(kind):
            continue
        if not expected.holds(kind):
            raise TypeError(f"{kernel.__name__}: {name} must be {expected}, got {kind}")
    _check_dtypes(kernel, named)
    activated = "dy" in named and not _is_none(named.get("activation"))
    if activated and _is_none(named.get("y")) and _is_none(named.get("beta")):
        missing = "y, or beta to make it again," if "beta" in named else "y"
        raise TypeError(f"{kernel.__name__}: {missing} must be given with an activation")


def describe(kernel: FunctionType) -> str:
    """Return a kernel's docstring: what is written, above its arguments' kinds."""
    groups: dict[str, list[str]] = {}
    for name in inspect.signature(kernel).parameters:
        expected, optional = kind_of(kernel, name)
        groups.setdefault(f"{expected}{', or None' if optional else ''}", []).append(name)
    kinds = [
        textwrap.fill(f"{', '.join(names)} : {kind}", 116, subsequent_indent="    ") for kind, names in groups.items()
    ]
    return "\n".join([inspect.cleandoc(kernel.__doc__ or ""), "", *kinds])


def compiler() -> dict[str, Any]:
    """Return the option of Numba's that makes kernels check shapes, for NUMBA_BOUNDSCHECK=1."""
    from bnnumba._shapes import ShapesChecked  # noqa: PLC0415  # which imports this, and much of Numba

    return {"pipeline_class": ShapesChecked}


def signature_of(kernel: FunctionType, dtype: Any, given: Mapping[str, object]) -> tuple[Any, ...]:
    """Return the types of a call where data has this dtype, and what is optional is as given.

    given: by name, None, an activation, or `...` for what data or features are; what is not in it is left out.
    """
    return tuple(
        _type(kind_of(kernel, name)[0], dtype, given.get(name, ...))
        if parameter.default is inspect.Parameter.empty or name in given
        else types.Omitted(None)
        for name, parameter in inspect.signature(kernel).parameters.items()
    )


def kind_of(kernel: FunctionType, name: str) -> tuple[ArrayKind | ScalarKind, bool]:
    """Return what an argument is, and whether it may be None."""
    written, _, none = kernel.__annotations__[name].partition(" | ")
    return KINDS[written], bool(none)


def _type(kind: ArrayKind | ScalarKind, dtype: Any, value: object) -> Any:
    if value is not ...:
        return typeof(value)
    if isinstance(kind, ArrayKind):
        return types.Array(dtype if dtype in kind.dtypes else types.float64, len(kind.shape), "C")
    return types.int64 if kind is KINDS["int"] else types.float64


def _check_dtypes(kernel: FunctionType, named: dict[str, Any]) -> None:
    """Refuse data of several dtypes; but a result may be float32 of half precision, or the reverse."""
    first, dtype = "", None
    for name, given in named.items():
        kind = kind_of(kernel, name)[0]
        if kind not in (KINDS["Data"], KINDS["Numbers"], KINDS["Result"], KINDS["Change"]) or _is_none(given):
            continue
        if given.dtype in INTEGERS:  # the result is of floats
            return
        if dtype is None:
            first, dtype = name, given.dtype
        rounded = kind not in (KINDS["Data"], KINDS["Numbers"]) and types.float64 not in (dtype, given.dtype)
        if given.dtype != dtype and not rounded:
            raise TypeError(f"{kernel.__name__}: {name} must have the dtype of {first}, {dtype}, got {given.dtype}")


def _is_none(kind: Any) -> bool:
    return kind is None or isinstance(kind, types.NoneType) or (isinstance(kind, types.Omitted) and kind.value is None)
