"""Features of float32 data and half precision with a huge gamma, or next to no spread: made by float64.

The kernels take gamma*rstd as two factors in the data's dtype, of which the first is a power of two. Together they hold
less than 2**255: beyond that, differences x - mean and dy that are below the normal numbers would give what is too
small. And (x - mean_hi)*gamma*rstd may be infinite where y, which has what mean_hi leaves out, is not. All arrays here
are canonical.
"""

from typing import Any

import numpy as np

from bnnumba import forms
from bnnumba._types import Array
from bnnumba.kernels.coefficients import ORDINARY_GAMMA, ORDINARY_SPREAD

Made = tuple[Array, Array]  # features, and their values

FEW = 1024  # of so many, the linear algebra library makes the scalar product without threads, which spin beside ours


def ordinary_gamma(gamma: Array, x: Array) -> bool:
    """Whether all gammas are ordinary: then no variance of float32 data is too small for them; nor any, of float64."""
    if x.itemsize == 8:
        return True
    if gamma.size <= FEW and gamma.dot(gamma) < ORDINARY_GAMMA:  # told in a tenth of the time
        return True
    least, most = np.minimum.reduce(gamma, initial=0.0), np.maximum.reduce(gamma, initial=0.0)
    return bool(least > -ORDINARY_GAMMA and most < ORDINARY_GAMMA)


def normalized(
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    residual: Array | None,
    act: Any,
) -> Made | None:
    """Return y of the features that are extreme; None where none is."""
    chosen = _extreme(x, var, gamma, epsilon)
    if chosen is None:
        return None
    wide = in_double(x, chosen)
    added = () if residual is None and act is None else (_wide(residual, chosen), act)
    forms.normalize(wide, mean[chosen], var[chosen], gamma[chosen], beta[chosen], epsilon, wide, *added)
    return chosen, as_data(wide, x.dtype)


def frozen_gradient(
    dy: Array, var: Array, gamma: Array, epsilon: float, behind: tuple[Array | None, Any, Array | None] | tuple[()]
) -> Made | None:
    """Return dx of the features that are extreme; None where none is. behind: what is ignored, the activation and y."""
    chosen = _extreme(dy, var, gamma, epsilon)
    if chosen is None:
        return None
    wide = in_double(dy, chosen)
    if behind:
        _, activation, y = behind
        forms.activation_gradient(wide, _wide(y, chosen), activation, wide)
    forms.frozen_input_gradient(wide, var[chosen], gamma[chosen], epsilon, wide)
    return chosen, as_data(wide, dy.dtype)


def put(made: Made | None, result: Array) -> None:
    """Put such values in their places."""
    if made is not None:
        chosen, values = made
        result[:, chosen] = values


def in_double(array: Array, chosen: Array) -> Array:
    """The data of some features."""
    if array.itemsize == 2:
        single = np.empty(array.shape, np.float32)
        forms.frozen_input_gradient(array, *_ones(array), 0.0, single)
        array = single
    return array[:, chosen].astype(np.float64, order="C")


def as_data(array: Array, dtype: np.dtype[Any]) -> Array:
    """Data rounded to a dtype; float16 and bfloat16 come as integers of the same bits."""
    with np.errstate(over="ignore"):
        if dtype.itemsize > 2:
            return array.astype(dtype)
        result = np.empty(array.shape, dtype)
        forms.frozen_input_gradient(array.astype(np.float32), *_ones(array), 0.0, result)
        return result


def _extreme(x: Array, var: Array, gamma: Array, epsilon: float) -> Any:
    """The features that are extreme, each by its own numbers alone; None where none is."""
    if x.itemsize == 8:
        return None
    if ordinary_gamma(gamma, x) and not np.fmin.reduce(var, initial=np.inf) + epsilon < ORDINARY_SPREAD:
        return None
    spread, size = var + epsilon, abs(gamma)
    chosen = np.flatnonzero(((spread < ORDINARY_SPREAD) & (spread > 0)) | ((size >= ORDINARY_GAMMA) & (size < np.inf)))
    return chosen if chosen.size else None


def _wide(array: Array | None, chosen: Array) -> Array | None:
    return None if array is None else in_double(array, chosen)


def _ones(array: Array) -> tuple[Array, Array]:
    """A variance and a gamma that change nothing."""
    return np.ones(array.shape[1]), np.ones(array.shape[1])
