"""Small calls of the common kind, straight to their kernel: `_objects` checks the arguments, as compiled code.

Each function returns None where an argument is not of that kind, or wrong: the caller then goes the long way, which
takes everything that is allowed, and has words for what is not.
"""

import ctypes
from typing import Any

import numba
import numpy as np
from numba import types

from bnnumba import _objects
from bnnumba._addresses import address_of
from bnnumba._guards import signature_of
from bnnumba._jit import compile_form
from bnnumba._types import Array
from bnnumba.forms import THREADED_BYTES, THREADED_NORMALIZE_BYTES
from bnnumba.kernels import serial
from bnnumba.outputs import Change
from bnnumba.pooling import Moments

ARRAY, EMPTY = np.ndarray, np.empty  # looked up a step faster
METH_FASTCALL = 0x80  # of Python's functions in C: the arguments come as an array of their addresses
SIGNATURE = (types.int64,) * 3
KNOWN = {_objects.ARRAY: ARRAY, _objects.FLOAT: float, _objects.INT: int, _objects.NONE: None}


class _Method(ctypes.Structure):
    """How Python describes a function in C."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


def _known_layout() -> bool:
    """Whether arrays are in memory as `_objects` reads them. With another NumPy or Python, all go the long way."""
    array = np.zeros((2, 3), np.float32)
    pointers = ctypes.c_int64.from_address
    dtype = pointers(id(array) + _objects.DTYPE).value
    flags = ctypes.c_int32.from_address(id(array) + _objects.FLAGS).value
    return (
        pointers(id(array) + _objects.CLASS).value == id(ARRAY)
        and pointers(id(array) + _objects.DATA).value == array.ctypes.data
        and ctypes.c_int32.from_address(id(array) + _objects.NDIM).value == array.ndim
        and (ctypes.c_int64 * 2).from_address(pointers(id(array) + _objects.SIZES).value)[:] == [*array.shape]
        and dtype == id(array.dtype)
        and ctypes.string_at(dtype + _objects.CHARACTER, 2) == b"f="
        and flags & _objects.C_ORDER_ALIGNED == _objects.C_ORDER_ALIGNED
        and flags & _objects.WRITEABLE == _objects.WRITEABLE
    )


OFF = numba.config.DISABLE_JIT or not _known_layout()


class _Pass:
    """One of `_objects`, as a function that Python calls."""

    def __init__(self, name: str, kernel: str = "") -> None:
        self._name, self._kernel = name, kernel
        self._known = np.zeros(len(_objects.KNOWN), np.int64)
        self._methods: list[_Method] = []  # for ever, as Python's functions point to them: threads may make several
        self.call: Any = self._first

    def ready(self) -> Any:
        """Return the function in C, which `call` is from then on."""
        if not self._methods:
            for which, value in KNOWN.items():
                self._known[which // 8] = id(value)
            address = address_of(FORM[self._name], SIGNATURE, from_c=True)
            method = _Method(self._name.encode(), address, METH_FASTCALL, None)
            new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
            call = new(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.addressof(method), self._known, None)
            self._methods.append(method)
            self.call = call
        return self.call

    def _first(self, *arguments: Any) -> int:
        status: int = self.ready()(*arguments)
        return status

    def again(self, status: int, x: Array) -> bool:
        """Return whether to call again: with the kernel for x's dtype, which was missing."""
        if status != _objects.MISSING:
            return False
        kernel, single = serial.FORM[self._kernel], x.dtype == np.float32
        signature = signature_of(kernel.py_func, types.float32 if single else types.float64, {})
        place = _objects.SINGLE_KERNEL if single else _objects.DOUBLE_KERNEL
        self._known[place // 8] = address_of(kernel, signature)
        return True


FORM = compile_form(_objects, "direct", {})
_NORMALIZE = _Pass("normalize_of", "normalize")
_BATCH_NORM = _Pass("batch_norm_of", "batch_norm_into")
_BACKWARD = _Pass("backward_of", "batch_norm_backward_into")
_FROZEN_BACKWARD = _Pass("backward_of", "frozen_backward_into")
_MOVE = _Pass("move_of")


def normalize(
    x: Any, mean: Any, var: Any, gamma: Any, beta: Any, axis: Any, epsilon: Any, out: Any = None
) -> Array | None:
    """Return y."""
    if type(x) is not ARRAY or x.nbytes >= THREADED_NORMALIZE_BYTES or OFF:
        return None
    shape = x.shape
    try:
        shape[axis]
    except (IndexError, TypeError):
        return None
    y = EMPTY(shape, x.dtype) if out is None else out
    status = _NORMALIZE.call(x, mean, var, gamma, beta, axis, epsilon, y)
    if status:
        return normalize(x, mean, var, gamma, beta, axis, epsilon, out) if _NORMALIZE.again(status, x) else None
    return y


def batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    axis: Any,
    epsilon: Any,
    out: Any = None,
    moving_mean: Any = None,
    moving_var: Any = None,
) -> tuple[Array, Moments] | None:
    """Return y and the moments. Arrays that are moving must be fit for `_MOVE`, if they are given."""
    if type(x) is not ARRAY or x.nbytes >= THREADED_BYTES or OFF:
        return None
    shape = x.shape
    try:
        size = shape[axis]
    except (IndexError, TypeError):
        return None
    y, mean, var = EMPTY(shape, x.dtype) if out is None else out, EMPTY(size), EMPTY(size)
    status = _BATCH_NORM.call(x, gamma, beta, axis, epsilon, y, mean, var, moving_mean, moving_var)
    if status:
        given = x, gamma, beta, axis, epsilon, out, moving_mean, moving_var
        return batch_norm(*given) if _BATCH_NORM.again(status, x) else None
    return y, Moments(mean, var, x.size // size)


def backward(
    dy: Any, x: Any, mean: Any, var: Any, gamma: Any, axis: Any, epsilon: Any, frozen: bool, out: Any = None
) -> tuple[Array, Array, Array] | None:
    """Return dx, dgamma and dbeta."""
    if type(x) is not ARRAY or x.nbytes >= THREADED_BYTES or OFF:
        return None
    shape = x.shape
    try:
        size = shape[axis]
    except (IndexError, TypeError):
        return None
    dx, dgamma, dbeta = EMPTY(shape, x.dtype) if out is None else out, EMPTY(size), EMPTY(size)
    kind = _FROZEN_BACKWARD if frozen else _BACKWARD
    status = kind.call(dy, x, mean, var, gamma, axis, epsilon, dx, dgamma, dbeta)
    if status:
        return backward(dy, x, mean, var, gamma, axis, epsilon, frozen, out) if kind.again(status, x) else None
    return dx, dgamma, dbeta


# ---- a layer's calls


def inference(layer: Any, x: Any) -> Array | None:
    """Return y by the moving statistics."""
    if layer.activation is not None or not _is_built(layer):
        return None
    return normalize(x, layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta, layer.axis, layer.epsilon)


def training(layer: Any, x: Any) -> tuple[Array, Moments, Change] | None:
    """Return y, the moments, and what moves the moving statistics, as `update_moving` would, in one step of C."""
    momentum, moving = layer.momentum, (layer.moving_mean, layer.moving_variance)
    ddof, plain = layer.ddof, layer.activation is None and type(momentum) is float
    if not plain or type(ddof) is not int or ddof not in (0, 1) or not _is_built(layer):
        return None
    done = batch_norm(x, layer.gamma, layer.beta, layer.axis, layer.epsilon, None, *moving)
    if done is None:
        return None
    y, batch = done
    mean, var, count = batch
    return y, batch, (_MOVE.ready(), *moving, mean, var, momentum, count / max(count - ddof, 1))


def _is_built(layer: Any) -> Any:
    """Whether a layer is built for the shape that its statistics have."""
    shape = layer._feature_shape
    return shape is not None and getattr(layer.moving_mean, "shape", None) == shape
