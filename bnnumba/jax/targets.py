"""The targets of XLA's custom calls: a handler for each kernel, dtype and activation, compiled when first wanted."""

import ctypes
import hashlib
import re
from collections.abc import Callable
from ctypes import c_int64
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import jax
import numpy as np
from llvmlite import binding, ir
from numba import config, typeof, types
from numba.extending import intrinsic

from bnnumba import _threads
from bnnumba._addresses import address_of
from bnnumba._guards import signature_of
from bnnumba._jit import compile_form, helper
from bnnumba.activations import CLASSES
from bnnumba.forms import THREADED_BYTES, THREADED_NORMALIZE_BYTES
from bnnumba.jax import frame, handlers
from bnnumba.kernels import serial, threaded

# XLA's versions of its structures that have what `frame` reads where it reads it.
KNOWN = ((0, 2), (0, 3))  # of jax 0.9, 0.10
SIGNATURE = (types.int64,)

DTYPES = {  # XLA's number; 0 as kernels know the data's dtype
    "float32": (frame.SINGLE, np.float32(0)),
    "float64": (frame.DOUBLE, np.float64(0)),
    "float16": (frame.HALF, np.uint16(0)),
    "bfloat16": (frame.BRAIN, np.int16(0)),
}


class Pass(NamedTuple):
    """A handler's name, its kernel's, and from how many bytes of data on it takes threads."""

    handler: str
    kernel: str
    threaded_bytes: int


PASSES = {
    "forward": Pass("forward", "batch_norm_into", THREADED_BYTES),
    "inference": Pass("inference", "normalize", THREADED_NORMALIZE_BYTES),
    "backward": Pass("backward", "batch_norm_backward_into", THREADED_BYTES),
    "frozen": Pass("backward", "frozen_backward_into", THREADED_BYTES),
    "behind": Pass("behind_activation", "activation_gradient", THREADED_NORMALIZE_BYTES),
}


class Target(NamedTuple):
    """What is compiled for itself.

    activation: the name of a class of `activations`, or "". residual: whether the data has a residual; of backward, and
    behind an activation, dresidual is then a result.
    """

    kind: str
    dtype: str
    activation: str
    residual: bool

    @property
    def name(self) -> str:
        """What XLA knows it by."""
        parts = ["bnnumba_cpu", self.kind, self.dtype, self.activation, "residual" if self.residual else ""]
        return "_".join(filter(None, parts))

    @property
    def takes_y(self) -> bool:
        """Whether backward reads the forward's y; it makes y again where that has the same bits, and no residual."""
        remade = self.kind == "backward" and not self.residual and self.dtype in ("float32", "float64")
        return self.activation != "" and not remade


class _Places:
    """What handlers read when they run, and which targets XLA knows."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.of: dict[Target, Any] = {}


_places = _Places()


def prepare(target: Target, nbytes: int) -> str:
    """Make sure that a target can be called with so many bytes of data; return its name.

    Raises
    ------
    RuntimeError
        If there is no compiler, or JAX's version of XLA has structures that we do not know.
    """
    with _places.lock:
        place = _places.of.get(target) or _register(target)
        kind = PASSES[target.kind]
        form, which = (serial, frame.ALONE) if nbytes < kind.threaded_bytes else (threaded, frame.TOGETHER)
        if place[which] == 0:
            place[which] = _kernel_address(form.FORM[kind.kernel], target)
            if which == frame.TOGETHER:
                _threads.start(_threads.usual_threads())
    return target.name


def _register(target: Target) -> Any:
    """Compile a target's handler, and make it known to XLA."""
    if config.DISABLE_JIT:
        raise RuntimeError("bnnumba.jax needs Numba's compiler, got NUMBA_DISABLE_JIT=1")
    place = (c_int64 * frame.PLACE_WORDS)()
    ctypes.memmove(place, (ctypes.c_int32 * 2)(*xla_version()), 8)
    kind = PASSES[target.kind]
    place[frame.THREADED_BYTES] = kind.threaded_bytes
    binding.add_symbol(target.name, ctypes.addressof(place))
    form = compile_form(handlers, f"{target.name}_{_SOURCE}", _own(target))
    address = ctypes.c_void_p(address_of(form[kind.handler], SIGNATURE, from_c=True))
    capsule: Any = jax.ffi.pycapsule  # has no types
    jax.ffi.register_ffi_target(target.name, capsule(address), platform="cpu")
    _places.of[target] = place
    return place


def xla_version() -> tuple[int, int]:
    """Return the version of XLA's structures, as the headers have it that come with JAX."""
    header = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_text(encoding="utf-8")
    numbers = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR")]
    version = tuple(int(number[1]) for number in numbers if number)
    if version not in KNOWN:
        known, came = (", ".join(".".join(map(str, each)) for each in some) for some in (KNOWN, [version]))
        raise RuntimeError(f"bnnumba.jax knows XLA's FFI in the versions {known}, got {came} of jax {jax.__version__}")
    return version


def _own(target: Target) -> dict[str, Any]:
    """What a target's handler has in the place of what `handlers` has."""
    code, like = DTYPES[target.dtype]
    takes, gives = target.residual, False
    if target.kind in ("backward", "frozen"):
        takes, gives = target.takes_y, target.residual and target.activation != ""
    return {
        "CODE": code,
        "LIKE": like,
        "EXTRA_ARGUMENTS": int(takes),
        "EXTRA_RESULTS": int(gives),
        "place": _place_reader(target.name),
        "activation": _activation_maker(target.activation),
        "extra_argument": frame.argument if takes else handlers.absent,
        "extra_result": frame.result if gives else handlers.absent,
        "behind": BEHIND[_behind(target)],
        "to_remake": handlers.nothing if target.takes_y else handlers.itself,
    }


BEHIND = {  # what a kernel takes after its results: the names of its arguments, and the function that makes them
    (): handlers.nothing_behind,
    ("residual", "activation"): handlers.forward_behind,
    ("dresidual", "activation", "y"): handlers.frozen_behind,
    ("dresidual", "activation", "y", "beta"): handlers.backward_behind,
}


def _behind(target: Target) -> tuple[str, ...]:
    if target.kind in ("forward", "inference"):
        return ("residual", "activation") if target.activation or target.residual else ()
    last = {"frozen": ("dresidual", "activation", "y"), "backward": ("dresidual", "activation", "y", "beta")}
    return last.get(target.kind, ()) if target.activation else ()


def _kernel_address(kernel: Any, target: Target) -> int:
    """Compile a kernel for a target, if it is not in the cache; return its address."""
    residual = ... if target.residual else None
    given = {
        "residual": residual,
        "dresidual": residual,
        "activation": CLASSES[target.activation]() if target.activation else None,
        "y": ... if target.takes_y else None,
        "beta": None if target.takes_y else ...,
    }
    dtype, required = typeof(DTYPES[target.dtype][1]), ["activation"] if target.kind == "behind" else []
    named = {name: given[name] for name in (*_behind(target), *required)}
    return address_of(kernel, signature_of(kernel.py_func, dtype, named))


def _activation_maker(name: str) -> Callable[..., Any]:
    """The function of a slope that returns an activation, in compiled code."""
    if name == "":
        return handlers.no_activation
    kind: Any = CLASSES[name]
    plain = kind()
    return helper((lambda slope: kind(slope)) if plain else (lambda slope: plain))


def _place_reader(name: str) -> Callable[[], int]:
    """The function that returns the address of a target's numbers, in compiled code, which has it by its name."""

    @intrinsic  # type: ignore[untyped-decorator]
    def place(_: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = ir.IntType(64)
            return builder.ptrtoint(context.get_c_value(builder, number, name), number)

        return types.int64(), generate

    reader: Callable[[], int] = place
    return reader


_SOURCE = hashlib.sha256(Path(frame.__file__).read_bytes()).hexdigest()[:8]  # Numba watches the file of `handlers`
