"""Every error that a caller can cause, in words that name the argument, what was expected and what came."""

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from operator import index
from typing import Any, NoReturn, TypeVar
from zipfile import ZIP_STORED, ZipInfo

import numpy as np

from bnnumba._types import Array

Saved = TypeVar("Saved")

DATA_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
DATA_CHARS = "fde"  # of data, in any byte order: these, float16, and bfloat16, which NumPy does not know itself
OVERLAP_WORK = 10_000  # of numpy.shares_memory; past that, arrays are taken to overlap


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__} of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _array(name: str, value: object) -> Array:
    if type(value) is np.ndarray:
        return value
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {_described(value)}")
    return value


def data(name: str, value: object) -> Array:
    """An array of data: at least 1-D, float32, float64, float16 or bfloat16 in any byte order."""
    array = _array(name, value)
    if array.dtype.char not in DATA_CHARS and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {array.dtype}")
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


def activation(value: object) -> bool:
    """None, or "relu", for which it is True."""
    if value is None:
        return False
    if not (isinstance(value, str) and value == "relu"):
        raise ValueError(f"activation must be None or 'relu', got {_described(value)}")
    return True


def forward_result(y: object, x: Array) -> Array:
    """The y that backward needs behind an activation."""
    if y is None:
        raise TypeError("y, the result of the forward call, must be given where there is an activation")
    return like("y", y, x)


def positions(mask: Any, sample_weight: Any, shape: tuple[int, ...], feature_axes: tuple[int, ...]) -> Array:
    """A mask or weights of x's positions, one of the two, as an array with x's number of axes."""
    if mask is not None and sample_weight is not None:
        raise ValueError("mask must be None where sample_weight is given")
    name, value = ("mask", mask) if sample_weight is None else ("sample_weight", sample_weight)
    array = _array(name, value)
    if name == "mask" and array.dtype != np.bool_:
        raise TypeError(f"mask must be an array of bool, got {array.dtype}")
    if name == "sample_weight" and array.dtype.kind not in "fiu":
        raise TypeError(f"sample_weight must be an array of real numbers, got {array.dtype}")
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    allowed = tuple(1 if axis in feature_axes else size for axis, size in enumerate(shape))
    if len(sizes) != len(shape) or any(size not in (1, most) for size, most in zip(sizes, allowed, strict=True)):
        raise ValueError(f"{name} must broadcast to shape {allowed}, 1 along the feature axes, got {array.shape}")
    if name == "sample_weight" and not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError("sample_weight must be finite and >= 0 everywhere")
    return array.reshape(sizes)


def finite_sum(total: float) -> None:
    """Refuse weights whose sum overflows."""
    if not math.isfinite(total):
        raise ValueError("sample_weight must have a finite sum")


def no_ddof(ddof: int, weighted: bool) -> None:
    """Refuse ddof = 1 with weights: there is no number of values to correct by."""
    if ddof and weighted:
        raise ValueError("ddof must be 0 with sample_weight, got 1")


def features(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """A real floating array of exactly the feature shape."""
    if isinstance(value, np.floating):  # what arithmetic on an array of shape () leaves
        value = np.asarray(value)
    array = _array(name, value)
    _of_features(name, array, shape)
    return array


def _of_features(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be an array of real floats, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def moving(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """A writeable float32 or float64 array of the feature shape."""
    array = _array(name, value)
    if array.dtype.newbyteorder("=") not in DATA_DTYPES:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"{name} must be writeable, got a read-only array")
    return array


def apart(name: str, array: Array, others: Iterable[tuple[str, Array | None]]) -> None:
    """Refuse an array to be written that shares memory with another, or with itself."""
    if not array.flags.forc and _overlaps_itself(array):
        raise ValueError(f"{name} must not overlap itself, got shape {array.shape} with strides {array.strides}")
    for other_name, other in others:
        if other is not None and _may_overlap(array, other) and _overlap(array, other):
            raise ValueError(f"{name} must share no memory with {other_name}")


def _overlaps_itself(array: Array) -> bool:
    if array.size == 0:
        return False
    reach = array.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1 and stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def _may_overlap(a: Array, b: Array) -> bool:
    if a.flags.owndata and b.flags.owndata:  # told at a third of the cost
        return a is b
    return np.may_share_memory(a, b)


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=OVERLAP_WORK)  # type: ignore[arg-type]  # any int
    except np.exceptions.TooHardError:
        return True


def output(out: Any, x: Array, data_inputs: dict[str, Array], other_inputs: dict[str, Array | None]) -> Array:
    """An array for the result: it may be exactly one of the data inputs, and overlaps none otherwise."""
    array: Array = out
    if not (type(out) is np.ndarray and out.dtype is x.dtype and out.shape == x.shape):
        array = like("out", out, x)
    if not array.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    apart("out", array, other_inputs.items())
    for name, other in data_inputs.items():
        if other is not array and _may_overlap(array, other) and not _same(array, other):
            apart("out", array, [(f"{name}, unless it is exactly {name}", other)])
    return array


def no_output(out: object) -> None:
    """Refuse an `out` that nothing would be written to."""
    if out is not None:
        raise ValueError(f"out must be None where needs_dx is False, got {_described(out)}")


def _same(a: Array, b: Array) -> bool:
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0] and (
        (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )


def _as_float(value: float | Real) -> float:
    try:
        return float(value)
    except OverflowError:  # of an int, beyond what a float holds
        return math.inf


def real(name: str, value: object) -> float:
    """A finite real number."""
    if type(value) is not float and (not isinstance(value, Real) or isinstance(value, bool)):
        raise TypeError(f"{name} must be a real number, got {_described(value)}")
    number = _as_float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
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
        raise ValueError(f"{name} must be >= 0, got {value!r}")
    return number


def momentum(value: object, name: str = "momentum") -> float:
    """A finite real number in [0, 1]."""
    number = real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return number


def ddof(value: object) -> int:
    """0 or 1."""
    number = real("ddof", value)
    if number not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {value!r}")
    return int(number)


def max_bytes(value: object) -> int:
    """A number of bytes: an int >= 0."""
    number = _whole("max_bytes", value)
    if number < 0:
        raise ValueError(f"max_bytes must be >= 0, got {value!r}")
    return number


def _whole(name: str, value: Any, expected: str = "an int") -> int:
    if isinstance(value, bool | np.bool_ | np.ndarray) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be {expected}, got {_described(value)}")
    return index(value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {_described(value)}")
    return bool(value)


def axis(name: str, value: object) -> int | tuple[int, ...]:
    """An int, or a tuple of ints without a repeat; not yet compared with a number of axes."""
    if isinstance(value, tuple):
        axes = tuple(_whole(name, item, "an int or a tuple of ints") for item in value)
        if len(set(axes)) != len(axes):
            raise ValueError(f"{name} must not repeat an axis, got {value}")
        return axes
    return _whole(name, value, "an int or a tuple of ints")


def axes_in_range(name: str, axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes counted from 0, in ascending order."""
    for item in axes:
        if not -ndim <= item < ndim:
            raise np.exceptions.AxisError(f"{name} {item} is out of bounds for an array with {ndim} axes")
    positive = sorted(item % ndim for item in axes)
    if len(set(positive)) != len(positive):
        raise ValueError(f"{name} must not repeat an axis, got {axes} for an array with {ndim} axes")
    return tuple(positive)


def moments(name: str, value: Any, kind: Any) -> None:
    """A Moments tuple whose parts belong together."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a Moments tuple, got {_described(value)}")
    mean, var, count = value
    features(f"{name}.mean", mean, np.shape(mean))
    features(f"{name}.var", var, np.shape(mean))
    not_negative(f"{name}.count", count)


def input_shape(value: object) -> tuple[int | None, ...]:
    """A shape whose unknown sizes are None."""
    if not isinstance(value, tuple | list):
        raise TypeError(f"input_shape must be a tuple, got {_described(value)}")
    for size in value:
        if size is not None and (isinstance(size, bool) or not hasattr(size, "__index__")):
            raise TypeError(f"input_shape must hold ints and None, got {_described(size)}")
        if size is not None and index(size) < 0:
            raise ValueError(f"input_shape must hold no negative size, got {tuple(value)}")
    if not value:
        raise ValueError("input_shape must have at least one axis, got ()")
    return tuple(None if size is None else index(size) for size in value)


def known_sizes(sizes: tuple[int | None, ...]) -> tuple[int, ...]:
    """Sizes of which none is None."""
    known = tuple(size for size in sizes if size is not None)
    if len(known) != len(sizes):
        raise ValueError(f"the sizes of the feature axes must be known to build the layer, got {sizes}")
    return known


def same_features(built: tuple[int, ...], came: tuple[int, ...]) -> None:
    """Refuse another feature shape than the one that the layer was built for."""
    if built != came:
        raise ValueError(f"the layer was built for the feature shape {built}, got {came}")


def ranks_features(shapes: list[tuple[int, ...]]) -> None:
    """Refuse layers of which those of different ranks have different features."""
    for rank, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"all ranks must have the feature shape of rank 0, {shapes[0]}, got {shape} on rank {rank}"
            )


def seen_features(seen: tuple[int, ...], came: tuple[int, ...]) -> None:
    """Refuse other features than those that the Standardizer was fitted to."""
    if came != seen:
        raise ValueError(f"X has features of shape {came}, but Standardizer has seen features of shape {seen}")


def not_masked(name: str, value: object) -> None:
    """Refuse what scikit-learn would take without its mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: give {name}.filled(np.nan)")


def dtype(value: Any) -> np.dtype[Any]:
    """float32 or float64, by any of NumPy's names for them."""
    try:
        kind: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {_described(value)}") from None
    if value is None or kind not in DATA_DTYPES:
        raise ValueError(f"dtype must be float32 or float64, got {value!r}")
    return kind


def initializer(name: str, value: Any) -> Any:
    """One of "zeros" and "ones", a finite number, a real array, or a callable of the shape."""
    if isinstance(value, str):
        allowed = value in ("zeros", "ones")
    elif isinstance(value, np.ndarray):
        allowed = value.dtype.kind in "fiu" and not isinstance(value, np.ma.MaskedArray)
    elif isinstance(value, Real):
        allowed = not isinstance(value, bool) and math.isfinite(_as_float(value))
    else:
        allowed = callable(value)
    if not allowed:
        expected = "'zeros', 'ones', a finite number, an array of the feature shape or a callable of the shape"
        raise ValueError(f"{name} must be {expected}, got {_described(value)}")
    return value


def initial_values(name: str, value: object, shape: tuple[int, ...], dtype: Any) -> Array:
    """What an initializer gave: a new array of the feature shape, of real numbers that fit the dtype."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must give real numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have the feature shape {shape}, got {array.shape}")
    with np.errstate(over="ignore"):
        values: Array = np.array(array, dtype)
    if (np.isinf(values) & np.isfinite(array)).any():
        raise ValueError(f"{name} must fit {np.dtype(dtype)}, got {_described(value)}")
    return values


def clipping(value: object, kind: Any) -> Any:
    """The bounds of batch renormalization, of a dict that may leave some out."""
    if not isinstance(value, dict | None):
        raise TypeError(f"renorm_clipping must be a dict or None, got {_described(value)}")
    given = {name: bound for name, bound in (value or {}).items() if bound is not None}
    if not set(given) <= set(kind._fields):
        raise ValueError(f"renorm_clipping must have no other keys than {', '.join(kind._fields)}, got {value}")
    bounds = kind(**{name: real(f"renorm_clipping's {name}", bound) for name, bound in given.items()})
    if not (0 <= bounds.rmin <= bounds.rmax and bounds.dmax >= 0):
        raise ValueError(f"renorm_clipping must have 0 <= rmin <= rmax and dmax >= 0, got {value}")
    return bounds


def no_renorm(ddof: int, renorm: bool) -> None:
    """Refuse batch renormalization with another variance than the population's, as Keras defines none."""
    if renorm and ddof:
        raise ValueError(f"ddof must be 0 with renorm, got {ddof}")


def weights(values: object, names: list[str], shape: tuple[int, ...] | None) -> list[Array]:
    """A list of arrays, one for each of the layer's weights."""
    if shape is None:
        raise ValueError("the layer must be built before its weights are set: call build, or the layer, first")
    if not isinstance(values, list | tuple):
        raise TypeError(f"weights must be a list of arrays, got {_described(values)}")
    if len(values) != len(names):
        raise ValueError(f"weights must be {len(names)} arrays ({', '.join(names)}), got {len(values)}")
    return [features(name, value, shape) for name, value in zip(names, values, strict=True)]


def iterable(name: str, value: Any) -> Iterable[Any]:
    """Something to iterate over, that is not text."""
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be an iterable of arrays, got {_described(value)}")
    return value  # type: ignore[no-any-return]


def batch(number: int, came: tuple[int, ...], first: tuple[int, ...]) -> None:
    """Refuse a batch of another feature shape than the first one's."""
    if came != first:
        raise ValueError(f"batches[{number}] must have the feature shape of batches[0], {first}, got {came}")


def some_batch(found: Saved | None) -> Saved:
    """What was made of the batches; there must have been one."""
    if found is None:
        raise ValueError("batches must hold at least one array, got none")
    return found


def training_call(saved: Saved | None) -> Saved:
    """What a training call saved for backward."""
    if saved is None:
        raise RuntimeError("backward needs a call with training=True before it, one for each backward")
    return saved


# ---- arrays of Dask


def chunked(name: str, value: Any, kind: Any) -> None:
    """A dask array of what is data."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a dask array, got {_described(value)}")
    data(f"each chunk of {name}", value._meta)


def known_features(name: str, shape: tuple[float, ...]) -> tuple[int, ...]:
    """The feature shape of a dask array, which has NaN where a size is unknown."""
    if any(map(math.isnan, shape)):
        raise ValueError(f"{name} must have known sizes along the feature axes (compute_chunk_sizes), got {shape}")
    return tuple(map(int, shape))


def chunked_features(name: str, value: Any, shape: tuple[int, ...], kind: Any) -> Any:
    """A real floating array of exactly the feature shape, of NumPy or of Dask."""
    if not isinstance(value, kind):
        return features(name, value, shape)
    _of_features(name, value, shape)
    return value


def chunked_like(name: str, value: Any, array: Any) -> None:
    """A dask array of the shape and dtype of another, with as many chunks where sizes are unknown."""
    chunked(name, value, type(array))
    if not np.array_equal(value.shape, array.shape, equal_nan=True):
        raise ValueError(f"{name} must have the shape of array, {array.shape}, got {value.shape}")
    if value.dtype.char != array.dtype.char:
        raise TypeError(f"{name} must have the dtype of array, {array.dtype}, got {value.dtype}")
    for axis, (size, number, came) in enumerate(zip(array.shape, array.numblocks, value.numblocks, strict=True)):
        if math.isnan(size) and came != number:
            expected = f"the chunks of array where sizes are unknown, {number} along axis {axis}"
            raise ValueError(f"{name} must have {expected}, got {came}")


# ---- models in and out


def instance(name: str, value: object, kind: type) -> None:
    """An object of a class, a layer of ours for example."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of class {kind.__name__}, got {_described(value)}")


def one_feature_axis(moving_mean: Any) -> int:
    """The number of features of a layer, by its moving mean, which is None before the layer is built."""
    if moving_mean is None:
        raise ValueError("the layer must be built first: call build, or the layer")
    if len(moving_mean.shape) != 1:
        raise ValueError(f"the layer must have one feature axis, got the feature shape {moving_mean.shape}")
    return int(moving_mean.shape[0])


def dense_weights(value: object) -> Array:
    """The weights of a dense layer."""
    array = data("weights", value)
    if array.ndim != 2:
        raise ValueError(f"weights must have shape (inputs, outputs), got {array.shape}")
    return array


def conv_weights(value: object) -> Array:
    """The weights of a convolution."""
    array = data("weights", value)
    if array.ndim < 2:
        raise ValueError(f"weights must have at least 2 axes, got {array.shape}")
    return array


def output_axis(value: Any, ndim: int) -> int:
    """One axis, counted from 0."""
    return axes_in_range("output_axis", (_whole("output_axis", value),), ndim)[0]


def outputs(weights: Array, axis: int, features: int) -> None:
    """Refuse weights of another number of outputs than the layer has features."""
    if weights.shape[axis] != features:
        raise ValueError(f"weights must have {features} outputs, as the layer has features, got {weights.shape[axis]}")


def bias(value: object, features: int) -> Array:
    """The bias of a linear layer."""
    array = data("bias", value)
    if array.shape != (features,):
        raise ValueError(f"bias must have shape {(features,)}, got {array.shape}")
    return array


def class_named(name: str, value: object, part: str, what: str) -> None:
    """An object of another library, told by the names of its classes."""
    if not any(part in kind.__name__ for kind in type(value).__mro__):
        raise TypeError(f"{name} must be a {part} {what}, got {_described(value)}")


def left_out(**arguments: tuple[object, object]) -> None:
    """Refuse arguments, given with their defaults, that a module says itself."""
    for name, (value, default) in arguments.items():
        if value != default:
            raise ValueError(f"{name} must be left out with a module, which has its own, got {value!r}")


def tensor(name: str, value: Any, dtypes: Collection[object]) -> None:
    """A tensor of PyTorch on the CPU, of one of these dtypes."""
    _on_cpu(name, value)
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must be {', '.join(map(str, dtypes))}, got {value.dtype}")


def one_value_per_channel(shape: Collection[int]) -> NoReturn:
    """Refuse to train on one value per channel, as PyTorch does, in its words."""
    raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")


def running_pair(mean: object, var: object, needed: bool) -> None:
    """Refuse running statistics of which one is missing, as PyTorch does, in its words; or both, where needed."""
    if needed or mean is not var:
        raise ValueError("running_mean and running_var must either both be None or neither be None")


def tensor_like(name: str, value: Any, x: Any) -> None:
    """A tensor of PyTorch with x's shape and dtype, on the CPU."""
    if value.shape != x.shape:
        raise ValueError(f"{name} must have the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}")
    if value.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {value.dtype}")
    _on_cpu(name, value)


def features_tensor(name: str, value: Any, channels: int) -> None:
    """A floating tensor of PyTorch with a value for each channel, on the CPU."""
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a tensor of real floats, got {value.dtype}")
    if value.shape != (channels,):
        raise ValueError(f"{name} must have shape ({channels},), got {tuple(value.shape)}")
    _on_cpu(name, value)


def statistics_tensor(value: Any, channels: int, dtype: object) -> None:
    """A mean, a variance and a beta for each channel, as operations of PyTorch hand them on."""
    if value.shape != (3, channels) or value.dtype is not dtype or not value.is_contiguous():
        shape = tuple(value.shape)
        raise ValueError(f"statistics must be contiguous {dtype}, (3, {channels}), got {value.dtype}, {shape}")
    _on_cpu("statistics", value)


def counter_tensor(name: str, value: Any, dtype: object) -> None:
    """A tensor of PyTorch with one value, on the CPU."""
    if value.numel() != 1 or value.dtype is not dtype:
        raise TypeError(f"{name} must be a tensor of one {dtype}, got {value.dtype}, {tuple(value.shape)}")
    _on_cpu(name, value)


def allocated(name: str, value: Any) -> None:
    """Refuse a tensor of PyTorch whose storage was taken away."""
    if value.numel() and not value.untyped_storage().data_ptr():
        raise ValueError(f"{name} must have memory, got a tensor of shape {tuple(value.shape)} without")


def _on_cpu(name: str, value: Any) -> None:
    if not value.is_cpu:
        raise ValueError(f"{name} must be on the CPU, got a tensor on {value.device}")


def no_transform() -> NoReturn:
    """Refuse torch.func, of which PyTorch's operations made in Python know little."""
    raise NotImplementedError("batch normalization has no transforms of torch.func here (grad, vmap, jvp, ...)")


def no_third_derivative() -> NoReturn:
    """Refuse to differentiate second derivatives."""
    raise NotImplementedError("batch normalization has no third derivatives here")


def initialized(module: Any) -> None:
    """Refuse a lazy module of PyTorch that saw no data."""
    if getattr(module, "has_uninitialized_params", bool)():
        raise ValueError(f"source must be initialized: call the module first, got {_described(module)}")


def running_statistics(given: Collection[str]) -> None:
    """Refuse a module of PyTorch that normalizes by the batch at inference too."""
    if not {"running_mean", "running_var"} <= set(given):
        raise ValueError("source must have running statistics, got a module with track_running_stats=False")


def state_dict(source: Collection[Any], needed: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Refuse a state dict with keys missing, or others."""
    if not set(needed) <= set(source) <= {*needed, *optional}:
        expected = f"{', '.join(needed)}, and at most {', '.join(optional)} besides, without a prefix"
        raise ValueError(f"source must have the keys {expected}, got {', '.join(map(str, source)) or 'none'}")


def batches(name: str, value: object) -> int:
    """A number of batches: an int >= 0, or an array of shape () of it."""
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an int, got {_described(value)}")
    if array < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")
    return int(array)


def vector(name: str, value: object) -> Array:
    """An array with one axis."""
    array = _array(name, value)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    return array


def onnx_node(node: Any) -> None:
    """A BatchNormalization of ONNX, with a mean and a variance for each feature."""
    operator = getattr(node, "op_type", None)
    if operator is None:
        raise TypeError(f"node must be a NodeProto of ONNX, got {_described(node)}")
    if operator != "BatchNormalization":
        raise ValueError(f"node must be a BatchNormalization, got {operator}")
    if len(node.input) != 5:
        raise ValueError(f"node must have the inputs X, scale, B, input_mean and input_var, got {len(node.input)}")
    if any(attribute.name == "spatial" and not attribute.i for attribute in node.attribute):
        raise ValueError("node must have spatial=1, got 0: a mean for every position, not for every channel")


def initializers(value: Any, names: list[str]) -> dict[str, Any]:
    """Those of an ONNX graph that are named, of a mapping by name or an iterable of what has a name."""
    if not isinstance(value, Iterable):
        raise TypeError(f"initializers must be a mapping or an iterable of TensorProto, got {_described(value)}")
    given = value if isinstance(value, Mapping) else {getattr(tensor, "name", None): tensor for tensor in value}
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"initializers must have {', '.join(names)}, got none named {', '.join(missing)}")
    return {name: given[name] for name in names}


# ---- files


def path(value: object) -> str:
    """A path as text."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"path must be a str or an os.PathLike, got {_described(value)}")
    return os.fsdecode(value)


def no_callables(callables: Mapping[str, object], shape: tuple[int, ...] | None) -> None:
    """Refuse to save what only a program has, where it is still needed."""
    for name, value in callables.items():
        if shape is None:
            raise ValueError(f"{name} must be no callable to save a layer that is not built, got {_described(value)}")


@contextmanager
def content_of(path: str) -> Iterator[None]:
    """Turn whatever is raised, since damaged bytes may raise any error, into one that names the file."""
    try:
        yield
    except Exception as error:
        what = str(error) or type(error).__name__
        raise ValueError(f"path must name a file that save wrote, whole; {path!r} is none: {what}") from error


def saved_members(members: Iterable[ZipInfo]) -> None:
    """Refuse what could be more than the file: arrays that are compressed, or there twice."""
    names = set()
    for member in members:
        if member.compress_type != ZIP_STORED or member.filename in names:
            raise ValueError(f"{member.filename} must be there once, and not compressed")
        names.add(member.filename)


def saved_as(form: Array, expected: str, version: Array, newest: int) -> None:
    """The format and the version of a file."""
    if form.shape != () or form != expected:
        raise ValueError(f"format must be {expected}, got {form}")
    if batches("version", version) > newest:
        raise ValueError(f"version must be {newest}, got {version}, of a later bnnumba")
    if version != newest:
        raise ValueError(f"version must be {newest}, got {version}")


def saved_config(config: Any) -> dict[str, Any]:
    """What a file says of a layer, beside its arrays."""
    expected = {"arguments": dict, "feature_shape": list | None, "trainable": bool, "batches_seen": int, "arrays": list}
    if not isinstance(config, dict) or set(config) != set(expected):
        raise ValueError(f"config must be an object of {', '.join(expected)}, got {_described(config)}")
    for name, kind in expected.items():
        if not isinstance(config[name], kind):
            raise ValueError(f"{name} must not be {_described(config[name])}")
    batches("batches_seen", config["batches_seen"])
    return config


def saved_names(came: list[str], expected: list[str]) -> None:
    """Refuse a file with arrays missing, or others."""
    if sorted(came) != sorted(expected):
        raise ValueError(f"the arrays must be {', '.join(expected)}, got {', '.join(came)}")


def saved_weights(values: dict[str, Array], shape: tuple[int, ...] | None) -> None:
    """Refuse weights without a feature shape, of another one, and none where there is one."""
    if (shape is None) != (not values):
        raise ValueError(f"feature_shape must be that of the weights, got {shape} for {', '.join(values) or 'none'}")
    for name, value in values.items():
        features(name, value, shape or ())


def named_weights(values: dict[str, Array], names: list[str], shape: tuple[int, ...]) -> list[Array]:
    """The weights of a layer, in its order."""
    if set(values) != set(names):
        raise ValueError(f"the weights must be {', '.join(names)}, got {', '.join(values)}")
    return weights([values[name] for name in names], names, shape)
