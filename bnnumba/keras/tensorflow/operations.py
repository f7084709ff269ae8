"""Our operations, made known to TensorFlow by its C functions for kernels: definitions, shapes, and compiled steps.

An operation is there for each step of `steps` and each class of activations, and has a kernel for each dtype. Kernels
are compiled when they are first wanted: by `ready`, which whoever makes an operation of a graph calls.
"""

import ctypes
import hashlib
from ctypes import c_char_p, c_int, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from llvmlite import binding
from numba import types

from bnnumba._addresses import address_of
from bnnumba._guards import signature_of
from bnnumba._jit import compile_form, inlined
from bnnumba.activations import LeakyRelu, Relu, Relu6
from bnnumba.forms import THREADED_BYTES, THREADED_NORMALIZE_BYTES
from bnnumba.keras.tensorflow import steps
from bnnumba.keras.tensorflow._table import KERNELS, MESSAGE, THREADED_FROM, table
from bnnumba.kernels import serial, threaded


class Step(NamedTuple):
    """One of `steps`: its kernel's name, the operation's, and the arguments of that as TensorFlow describes them."""

    kernel: str
    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    like: tuple[int, ...]  # of each output, the input whose shape it has


FEATURES = ("gamma: U", "beta: U")
BACKWARD = ("dy: T", "x: T", "y: T"), ("gamma: U", "settings: double"), ("dx: T", "dgamma: U", "dbeta: U")
STEPS = {
    "batch_norm_step": Step(
        "batch_norm_into",
        "BnnumbaBatchNorm",
        ("x: T", *FEATURES, "moving_mean: U", "moving_variance: U", "settings: double"),
        ("y: T", "mean: double", "var: double", "moved_mean: U", "moved_variance: U"),
        (0, 3, 3, 3, 3),
    ),
    "backward_step": Step(
        "batch_norm_backward_into",
        "BnnumbaBatchNormBackward",
        (*BACKWARD[0], "mean: double", "var: double", *BACKWARD[1]),
        BACKWARD[2],
        (1, 3, 3),
    ),
    "normalize_step": Step(
        "normalize", "BnnumbaNormalize", ("x: T", "mean: U", "var: U", *FEATURES, "settings: double"), ("y: T",), (0,)
    ),
    "frozen_step": Step(
        "frozen_backward_into",
        "BnnumbaFrozenBackward",
        (*BACKWARD[0], "mean: U", "var: U", *BACKWARD[1]),
        BACKWARD[2],
        (1, 3, 3),
    ),
}
ATTRIBUTES = "T: {half, bfloat16, float, double}", "U: {float, double}"
THRESHOLDS = THREADED_BYTES, THREADED_BYTES, THREADED_NORMALIZE_BYTES, THREADED_BYTES
MESSAGE_TEXT = b"bnnumba.keras: the inputs' shapes do not go together, or the kernel for their dtype is not compiled"


class Dtype(NamedTuple):
    """How kernels know a dtype."""

    like: Any
    kind: Any


DTYPES = {
    tf.float32: Dtype(np.float32(0), types.float32),
    tf.float64: Dtype(np.float64(0), types.float64),
    tf.float16: Dtype(np.uint16(0), types.uint16),
    tf.bfloat16: Dtype(np.int16(0), types.int16),
}


# ---- what makes an activation of its slope


@inlined
def _no_activation(slope: float) -> None:
    return None


@inlined
def _relu(slope: float) -> Relu:
    return Relu()


@inlined
def _relu6(slope: float) -> Relu6:
    return Relu6()


@inlined
def _leaky_relu(slope: float) -> LeakyRelu:
    return LeakyRelu(slope)


MAKERS = {None: _no_activation, Relu: _relu, Relu6: _relu6, LeakyRelu: _leaky_relu}

Kind = Any  # the class of an activation, or None: instances of classes without a field are equal, whatever the class


@cache
def ready(step: str, kind: Kind, dtype: Any) -> str:
    """Make an operation's kernel ready, for a class of activations and a dtype; return the operation's name."""
    if dtype not in DTYPES:
        raise TypeError(f"x must be float32, float64, float16 or bfloat16, got {dtype.name}")
    variant = len(DTYPES) * list(MAKERS).index(kind) + list(DTYPES).index(dtype)
    _put_kernels(step, kind, variant, dtype)
    name = _define(step, kind)
    _add_kernel(name, dtype, _step_address(step, kind, variant, dtype))
    return name


def _put_kernels(step: str, kind: Kind, variant: int, dtype: Any) -> None:
    """Compile the kernel that a step runs, without threads and with, and put the addresses into the table."""
    place = KERNELS + 2 * (steps.STEPS * variant + list(STEPS).index(step))
    name, end = STEPS[step].kernel, {}
    if kind is not None:
        backward = {"dresidual": None, "y": ...}
        end = {"activation": kind(), **(backward if "backward" in name else {"residual": None})}
    for form, kernels in enumerate((serial.FORM, threaded.FORM)):
        kernel = kernels[name]
        table[place + form] = address_of(kernel, signature_of(kernel.py_func, DTYPES[dtype].kind, end))


def _step_address(step: str, kind: Kind, variant: int, dtype: Any) -> int:
    """Compile a step, and return its address."""
    like = DTYPES[dtype].like
    own = {"like": like, "itemsize": like.itemsize, "activation_with": MAKERS[kind], "variant": variant}
    library()
    form = compile_form(steps, f"keras_{variant}_{_sources()}", own)
    return address_of(form[step], (types.int64, types.int64), from_c=True)


@cache
def _sources() -> str:
    """A digest of what steps are made of: Numba's disk cache watches the file of a function alone."""
    files = [Path(__file__).with_name(f"{name}.py") for name in ("_table", "steps", "tensors")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


# ---- TensorFlow's C functions


@cache
def library() -> Any:
    """TensorFlow's library that has them, with what `steps` calls made known to LLVM."""
    folder = Path(tf.sysconfig.get_lib())
    found = sorted(folder.glob("libtensorflow_framework*"))
    loaded: Any = ctypes.CDLL(str(found[0]) if found else None)
    names = (
        *("GetInput", "ForwardInputOrAllocateOutput", "TensorData", "TensorType", "NumDims", "Dim", "DeleteTensor"),
        *("NewStatus", "SetStatus", "GetCode", "DeleteStatus", "OpKernelContext_Failure"),
    )
    for name in names:
        address = ctypes.cast(getattr(loaded, f"TF_{name}"), c_void_p).value
        binding.add_symbol(f"TF_{name}", address)
    for name in ("NewStatus", "NewOpDefinitionBuilder", "NewKernelBuilder", "NewShapeHandle"):
        getattr(loaded, f"TF_{name}").restype = c_void_p
    loaded.TF_Message.restype = c_char_p
    return loaded


@cache
def _define(step: str, kind: Kind) -> str:
    """Define an operation, and return its name."""
    tensorflow, about = library(), STEPS[step]
    name = f"{about.operation}{kind.__name__ if kind else ''}"
    builder = c_void_p(tensorflow.TF_NewOpDefinitionBuilder(name.encode()))
    for attribute in ATTRIBUTES:
        tensorflow.TF_OpDefinitionBuilderAddAttr(builder, attribute.encode())
    for given in about.inputs:
        tensorflow.TF_OpDefinitionBuilderAddInput(builder, given.encode())
    for made in about.outputs:
        tensorflow.TF_OpDefinitionBuilderAddOutput(builder, made.encode())
    tensorflow.TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, _shapes_of(about.like))
    _checked(lambda status: tensorflow.TF_RegisterOpDefinition(builder, status))
    return name


@cache
def _shapes_of(like: tuple[int, ...]) -> Any:
    """A function of C that says an operation's shapes: of each output, that of an input."""
    tensorflow = library()

    def infer(context: int, status: int) -> None:
        for index, given in enumerate(like):
            shape = c_void_p(tensorflow.TF_NewShapeHandle())
            tensorflow.TF_ShapeInferenceContextGetInput(c_void_p(context), given, shape, c_void_p(status))
            tensorflow.TF_ShapeInferenceContextSetOutput(c_void_p(context), index, shape, c_void_p(status))
            tensorflow.TF_DeleteShapeHandle(shape)

    return ctypes.CFUNCTYPE(None, c_void_p, c_void_p)(infer)


def _add_kernel(name: str, dtype: Any, compute: int) -> None:
    """Register the function at an address as an operation's kernel for a dtype of data."""
    tensorflow = library()
    builder = c_void_p(tensorflow.TF_NewKernelBuilder(name.encode(), b"CPU", None, c_void_p(compute), None))
    kind = c_int(dtype.as_datatype_enum)
    _checked(lambda status: tensorflow.TF_KernelBuilder_TypeConstraint(builder, b"T", kind, status))
    _checked(lambda status: tensorflow.TF_RegisterKernelBuilder(f"{name}{dtype.name}".encode(), builder, status))


def _checked(call: Any) -> None:
    """Call a function with a new status, and raise what it says there."""
    tensorflow = library()
    status = c_void_p(tensorflow.TF_NewStatus())
    call(status)
    code, message = tensorflow.TF_GetCode(status), tensorflow.TF_Message(status)
    tensorflow.TF_DeleteStatus(status)
    if code:
        raise RuntimeError(f"TensorFlow refused an operation of bnnumba: {message.decode()}")


_message = ctypes.create_string_buffer(MESSAGE_TEXT)
table[MESSAGE] = ctypes.addressof(_message)
for _number, _threshold in enumerate(THRESHOLDS):
    table[THREADED_FROM + _number] = _threshold
