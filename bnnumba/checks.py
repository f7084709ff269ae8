"""Errors that two modules or more can raise, in words that name the argument, what was expected and what came.

What one module alone can raise is at the foot of that module; errors of PyTorch's tensors are in `torch.checks`.
"""

import math
from numbers import Real
from operator import index
from reprlib import Repr
from typing import Any

import numpy as np

from bnnumba._types import Array

DATA_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
DATA_CHARS = "fde"  # of data, in any byte order: these, float16, and bfloat16, which NumPy does not know itself


KNOWN = ("builtins", "numpy", "fractions", "decimal")  # modules whose objects write themselves, shortly
_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def described(value: object) -> str:
    """A value in the words of an error: its type, and what tells it from others, shortened."""
    name = type(value).__name__
    if isinstance(value, np.ndarray):  # asked past a subclass, which may say anything
        return f"{name} of shape {np.ndarray.shape.__get__(value)} and dtype {np.ndarray.dtype.__get__(value)}"
    if type(value) in (list, tuple, dict, set, frozenset) and len(value) > 4:  # type: ignore[arg-type]
        return f"{name} of {len(value)} {shown(value)}"  # type: ignore[arg-type]
    text = shown(value)
    return f"{name} {text}" if text else name


def shown(value: object) -> str:
    """A value's text, shortened; none of what has a `__repr__` that we do not know: it may take long, or raise."""
    if isinstance(value, type):
        return f"<class {value.__name__!r}>"
    if type(value).__module__ not in KNOWN:
        return ""
    try:
        text = _short.repr(value)
    except Exception:  # of an int with more digits than Python writes
        return ""
    return text if len(text) <= 60 else f"{text[:57]}..."


def numpy_array(name: str, value: object) -> Array:
    """An array of NumPy's, of any dtype, that is not masked."""
    if type(value) is np.ndarray:
        return value
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {described(value)}{_cure(name, value)}")
    if not _is_honest(value):
        raise TypeError(f"{name} must be an array that says its own shape and dtype, got {described(value)}")
    return value


def _cure(name: str, value: object) -> str:
    """What to do with an object that is no array of NumPy's, but holds one."""
    library = type(value).__module__.partition(".")[0]
    own = {"torch": f"use {name}.numpy(), or bnnumba.torch", "dask": "use bnnumba.dask", "xarray": "use bnnumba.xarray"}
    if library in own:
        return f": {own[library]}"
    if isinstance(value, np.ma.MaskedArray):
        return f": use {name}.data, and mask=" if name == "x" else ""
    if hasattr(type(value), "to_numpy"):
        return f": use {name}.to_numpy()"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ": of Moments, give mean and var, as *moments[:2]"
    if isinstance(value, list | tuple) or hasattr(type(value), "__array__"):
        return f": use np.asarray({name})"
    return ": of Moments, give mean and var alone, as *moments[:2]" if name == "gamma" and type(value) is int else ""


def _is_honest(array: Array) -> bool:
    """Whether an array of a subclass says of itself what NumPy says of it."""
    plain = np.ndarray.view(array, np.ndarray)
    try:
        said = array.shape, array.dtype, array.ndim, array.size, array.strides
    except Exception:  # whatever a subclass raises
        return False
    return said == (plain.shape, plain.dtype, plain.ndim, plain.size, plain.strides)


def data(name: str, value: object, integers: bool = False) -> Array:
    """An array of data: at least 1-D, float32, float64, float16 or bfloat16 in any byte order; or of integers, bool."""
    array = numpy_array(name, value)
    if array.dtype.char not in DATA_CHARS and array.dtype.name != "bfloat16":
        whole = array.dtype.kind in "biu"
        if not (whole and integers):
            cure = f": integers train only as floats: {name}.astype(np.float32)" if whole else ""
            expected = "float32, float64, float16 or bfloat16" + (", bool or integers" if integers else "")
            raise TypeError(f"{name} must be {expected}, got {array.dtype}{cure}")
    if array.ndim == 0:
        raise TypeError(f"{name} must have at least one axis, got a 0-d array")
    return array


def like(name: str, value: object, x: Array) -> Array:
    """An array of x's shape and dtype."""
    array = data(name, value)
    if array.shape != x.shape:
        raise ValueError(f"{name} must have the shape of x, {x.shape}, got {array.shape}")
    if array.dtype.char != x.dtype.char:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {array.dtype}")
    return array


def weights(mask: Any, sample_weight: Any, shape: tuple[int, ...]) -> Array:
    """A mask or weights, one of the two, that broadcasts to x's shape, as an array with x's number of axes."""
    name, value = mask_or_weight(mask, sample_weight)
    array = numpy_array(name, value)
    kind_of_weights(name, array.dtype)
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    if len(sizes) != len(shape) or any(size not in (1, most) for size, most in zip(sizes, shape, strict=True)):
        rows = array.ndim == 1 and array.shape == shape[:1]
        cure = (
            f": for one value a row, give {name}.reshape({', '.join(['-1', *'1' * (len(shape) - 1)])})" if rows else ""
        )
        raise ValueError(f"{name} must broadcast to x's shape {shape}, got {array.shape}{cure}")
    if name == "sample_weight" and not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError("sample_weight must be finite and >= 0 everywhere")
    return array.reshape(sizes)


def mask_or_weight(mask: Any, sample_weight: Any) -> tuple[str, Any]:
    """The name and the value of what is given, a mask or weights: at most one of them."""
    if mask is not None and sample_weight is not None:
        raise ValueError("mask must be None where sample_weight is given")
    return ("mask", mask) if sample_weight is None else ("sample_weight", sample_weight)


def kind_of_weights(name: str, dtype: np.dtype[Any]) -> None:
    """Refuse a mask that is not of bool, and weights that are not real numbers."""
    if name == "mask" and dtype != np.bool_:
        raise TypeError(f"mask must be an array of bool, got {dtype}")
    if name == "sample_weight" and dtype.kind not in "fiu":
        hint = ": give it as mask" if dtype == np.bool_ else ""
        raise TypeError(f"sample_weight must be an array of real numbers, got {dtype}{hint}")


def no_ddof(ddof: int, weighted: bool) -> None:
    """Refuse ddof = 1 with weights: there is no number of values to correct by."""
    if ddof and weighted:
        raise ValueError("ddof must be 0 with sample_weight, got 1")


def features(name: str, value: object, shape: tuple[int, ...], sizes: tuple[int, ...] = ()) -> Array:
    """A real floating array of exactly the feature shape, of data of these sizes, if they are known."""
    if isinstance(value, np.floating):  # what arithmetic on an array of shape () leaves
        value = np.asarray(value)
    array = numpy_array(name, value)
    of_features(name, array, shape, sizes)
    return array


def of_features(name: str, array: Any, shape: tuple[int, ...], sizes: tuple[int, ...] = ()) -> None:
    """Refuse an array, of whatever library, that is not of real floats and of exactly the feature shape."""
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be an array of real floats, got {array.dtype}")
    if array.shape != shape:
        fitting = [axis for axis, size in enumerate(sizes) if array.shape == (size,)]
        hint = f": did you mean feature_axis={fitting[0]}? x has {sizes[fitting[0]]} there" if len(fitting) == 1 else ""
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}{hint}")


def moving(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """A writeable float32 or float64 array of the feature shape."""
    array = numpy_array(name, value)
    if array.dtype.newbyteorder("=") not in DATA_DTYPES:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"{name} must be writeable, got a read-only array")
    return array


def as_float(value: float | Real) -> float:
    """A real number as a float, infinite where it is beyond what a float holds."""
    try:
        return float(value)
    except OverflowError:  # of an int
        return math.inf


def real(name: str, value: object) -> float:
    """A finite real number."""
    if type(value) is not float and (not isinstance(value, Real) or isinstance(value, bool)):
        raise TypeError(f"{name} must be a real number, got {described(value)}")
    number = as_float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return number


def epsilon(value: object) -> float:
    """A finite real number >= 0."""
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    return not_negative("epsilon", value)


def not_negative(name: str, value: object) -> float:
    """A finite real number >= 0."""
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {shown(value)}")
    return number


def momentum(value: object, name: str = "momentum") -> float:
    """A finite real number in [0, 1]."""
    number = real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {shown(value)}")
    return number


def ddof(value: object) -> int:
    """0 or 1."""
    number = real("ddof", value)
    if number not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {shown(value)}")
    return int(number)


def whole(name: str, value: Any, expected: str = "an int") -> int:
    """An int, of Python or NumPy."""
    if isinstance(value, bool | np.bool_ | np.ndarray) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be {expected}, got {described(value)}")
    return index(value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if type(value) is not bool and not isinstance(value, np.bool_):
        raise TypeError(f"{name} must be True or False, got {described(value)}")
    return bool(value)


def axis(name: str, value: object) -> int | tuple[int, ...]:
    """An int, or a tuple of ints without a repeat; not yet compared with a number of axes."""
    if isinstance(value, tuple):
        axes = tuple(whole(name, item, "an int or a tuple of ints") for item in value)
        if len(set(axes)) != len(axes):
            raise ValueError(f"{name} must not repeat an axis, got {shown(value)}")
        return axes
    return whole(name, value, "an int or a tuple of ints")


def moments(name: str, value: Any, kind: Any) -> None:
    """A Moments tuple whose parts belong together."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a Moments tuple, got {described(value)}")
    mean, var, count = value
    features(f"{name}.mean", mean, np.shape(mean))
    features(f"{name}.var", var, np.shape(mean))
    if not isinstance(count, np.ndarray):
        not_negative(f"{name}.count", count)
    elif (
        count.shape != np.shape(mean) or count.dtype.kind not in "iuf" or not (np.isfinite(count) & (count >= 0)).all()
    ):
        raise ValueError(f"{name}.count must be finite and >= 0, of the feature shape, got {described(count)}")


def instance(name: str, value: object, kind: type) -> None:
    """An object of a class, a layer of ours for example."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of class {kind.__name__}, got {described(value)}")


def one_feature_axis(moving_mean: Any) -> int:
    """The number of features of a layer, by its moving mean, which is None before the layer is built."""
    if moving_mean is None:
        raise ValueError("the layer must be built first: call build, or the layer")
    if len(moving_mean.shape) != 1:
        raise ValueError(f"the layer must have one feature axis, got the feature shape {moving_mean.shape}")
    return int(moving_mean.shape[0])


def batches(name: str, value: object) -> int:
    """A number of batches: an int >= 0, or an array of shape () of it."""
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an int, got {described(value)}")
    if array < 0:
        raise ValueError(f"{name} must be >= 0, got {int(array)}")
    return int(array)
