"""Masks and sample weights: which elements make the moments, and how much each counts.

    count = sum(w)    mean = sum(w*x)/count    var = sum(w*(x - mean)**2)/count
    dx = gamma*rstd * (dresidual - w*(dbeta + x_hat*dgamma)/count)

Weights belong to positions, places along the reduced axes: all features have one count. Or they vary by feature: then
each feature has its own. All arrays here are canonical.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from bnnumba import axes, checks, forms
from bnnumba._types import Array
from bnnumba.extreme import as_data, in_double
from bnnumba.kernels.coefficients import Gradients, Statistics
from bnnumba.kernels.extremes import ORDINARY_32, ORDINARY_64


class Weights(NamedTuple):
    """What each position counts, (outer, 1, inner), or each element, (outer, feature, inner): float64, times `unit`.

    The unit is a power of two, or one for each feature, so that the largest of its `values` is near 1: no sum of theirs
    overflows or underflows.
    """

    values: Array
    unit: Any
    boolean: bool

    def count_of(self, total: Any) -> Any:
        """The count, from the sum of `values`: of a mask whole numbers."""
        if np.ndim(total):
            return total.astype(np.int64) if self.boolean else total * self.unit
        return int(total) if self.boolean else float(total * self.unit)

    @property
    def total(self) -> Any:
        """The sum of `values`, a number; or of each feature's, an array."""
        return self.values.sum() if self.values.shape[1] == 1 else self.values.sum((0, 2))


def weights_of(view: axes.View, x: Array, mask: Any, sample_weight: Any) -> Weights | None:
    """Check a mask or weights, and bring them into the view's order; None where there are neither."""
    if mask is None and sample_weight is None:
        return None
    values = view.of_weights(checks.weights(mask, sample_weight, x.shape), x)
    if mask is not None:
        return Weights(values, 1.0, True)
    exponent = np.frexp(values.max((0, 2), initial=0.0))[1] - 1
    scaled = np.ldexp(values, -exponent[:, np.newaxis])
    if values.shape[1] == 1:
        exponent = exponent[0]
    found = Weights(scaled, np.ldexp(1.0, exponent), False)
    with np.errstate(over="ignore"):
        _check_sum(np.max(found.total * found.unit, initial=0.0))
    return found


def as_keras(name: str, weights: Any, x: Array) -> Any:
    """Return a mask or weights, as Keras reads them, with x's number of axes: of one less, the last is added."""
    if not isinstance(weights, np.ndarray) or weights.ndim == x.ndim:
        return weights
    if weights.ndim != x.ndim - 1:
        expected = f"{x.ndim - 1} axes, x's without the last, or {x.ndim}"
        raise ValueError(f"{name} must have {expected}, got shape {weights.shape}")
    return weights[..., np.newaxis]


def layer_weights(x: Array, mask: Any, sample_weight: Any, ddof: int) -> dict[str, Any]:
    """Check a layer's mask or weights, and return both as functions take them."""
    weights = {name: as_keras(name, w, x) for name, w in (("mask", mask), ("sample_weight", sample_weight))}
    checks.weights(**weights, shape=x.shape)
    checks.no_ddof(ddof, sample_weight is not None)
    return weights


def moments_into(x: Array, weights: Weights | None, omit: bool, mean: Array, var: Array, rest: Array) -> Any:
    """Fill mean and var, and what rounding took from the mean; return the count, or each feature's.

    omit: whether NaN does not count.
    """
    if weights is not None and not omit and weights.values.shape[1] == 1:
        return weights.count_of(forms.weighted_moments_into(x, weights.values, mean, var, rest))
    counts = np.empty_like(mean)
    values = None if weights is None else np.ascontiguousarray(np.broadcast_to(weights.values, x.shape))
    forms.cell_moments_into(x, mean, var, rest, counts, int(omit), values)
    return counts.astype(np.int64) if weights is None else weights.count_of(counts)


def counted(x: Array, count: Any, feature_axes: tuple[int, ...] = (1,)) -> Array:
    """Return x; but where nothing counts zeros, as the mean is: then x_hat is 0, and y act(beta + residual)."""
    if np.ndim(count) == 0:
        return x if count else np.zeros_like(x)
    nothing = np.equal(count, 0)
    if nothing.any():
        x = x.copy(order="K")
        np.moveaxis(x, feature_axes, range(len(feature_axes)))[nothing] = 0
    return x


def backward_into(
    dy: Array,
    x: Array,
    statistics: Statistics,
    weights: Weights,
    gradients: Gradients,
    dx: Array | None,
    behind: tuple[Array | None, Any, Array | None] | tuple[()],
) -> None:
    """Fill the gradients; dx, where it is not None. behind: dresidual, the activation and y, or nothing."""
    total = weights.total
    x, dresidual = counted(x, total), dy
    if behind:
        given, activation, y = behind
        if x.itemsize == 2:  # dx is made of it, and is rounded once, at the end
            dresidual = np.empty(x.shape, np.float32)
            if given is not None:
                forms.activation_gradient(dy, y, activation, given)
        else:
            dresidual = axes.empty_like(x) if given is None else given
        behind = dresidual, activation, y
    forms.gradient_sums_into(dy, x, statistics.mean, statistics.var, statistics.epsilon, *gradients, *behind)
    if dx is not None:
        input_gradient_into(dresidual, x, statistics, gradients, total, weights, dx, True)


def input_gradient_into(
    dy: Array, x: Array, statistics: Statistics, sums: Gradients, total: Any, weights: Weights, dx: Array, own: bool
) -> None:
    """Fill dx from the sums, and from the count in the weights' unit. own: whether the sums are of this data alone."""
    mean, var, gamma, _, epsilon = statistics
    nothing = np.equal(total, 0)
    if nothing.all():
        dx[...] = 0
        return
    total = np.where(nothing, 1.0, total)
    seldom = _extreme_features(sums, total, weights, x)
    exact = _scaled_gradient(dy, x, seldom, statistics, sums, total, weights, own)  # first, as dx may be dy or x
    if x.itemsize == 2:  # half precision is rounded once, at the end
        step = np.empty(x.shape, np.float32)
    else:
        step = axes.empty_like(x) if np.may_share_memory(dx, dy) else dx  # dx may be x: nothing needs it after this
    forms.normalize(x, mean, var, sums.dgamma / total, sums.dbeta / total, epsilon, step)
    _subtract(dy, weights.values, step)
    forms.frozen_input_gradient(step, var, gamma, epsilon, dx)
    if exact is not None:
        dx[:, seldom] = exact
    if nothing.any():
        dx[:, nothing] = 0


def _subtract(dy: Array, weights: Array, change: Array) -> None:
    """Make change = dy - w*change; weights that vary by feature are those of positions, where there is one feature."""
    if weights.shape[1] > 1:
        outer, feature, inner = dy.shape
        dy, weights, change = (each.reshape(outer, 1, feature * inner) for each in (dy, weights, change))
    forms.subtract_weighted(dy, weights, change)


def _extreme_features(sums: Gradients, total: Any, weights: Weights, x: Array) -> Any:
    """The features whose mean dy or its product with x_hat may be too large or too small for the data's dtype."""
    ordinary = ORDINARY_64 if x.itemsize == 8 else ORDINARY_32
    least = weights.values.min(initial=1.0, where=weights.values > 0)
    size = np.maximum(abs(sums.dgamma), abs(sums.dbeta)) / total
    too_small, too_large = size * least < 1 / ordinary, size > ordinary / np.sqrt(total / least)  # the most |x_hat|
    return np.flatnonzero((too_small & (size > 0)) | too_large)


def _scaled_gradient(
    dy: Array,
    x: Array,
    chosen: Array,
    statistics: Statistics,
    sums: Gradients,
    total: Any,
    weights: Weights,
    own: bool,
) -> Array | None:
    """Make dx of some features by float64, of dy and gamma that powers of two bring near 1; None of no features.

    Sums of this data alone are made anew: what does not count may be so far away that they are infinite, but dx is not.
    """
    if not chosen.size:
        return None
    (mean, var, gamma), epsilon = (each[chosen] for each in statistics[:3]), statistics.epsilon
    wide_x, wide_dy = in_double(x, chosen), in_double(dy, chosen)
    by_dy, by_gamma = (np.frexp(most)[1] for most in (abs(wide_dy).max(axis=(0, 2)), gamma))
    scaled, step = np.ldexp(wide_dy, -by_dy[:, np.newaxis]), np.empty_like(wide_x)
    products, means = (np.ldexp(each[chosen], -by_dy) for each in sums)
    total = total[chosen] if np.ndim(total) else total
    if own:
        forms.gradient_sums_into(scaled, wide_x, mean, var, epsilon, products, means)
    forms.normalize(wide_x, mean, var, products / total, means / total, epsilon, step)
    _subtract(scaled, weights.values if weights.values.shape[1] == 1 else weights.values[:, chosen], step)
    forms.frozen_input_gradient(step, var, np.ldexp(gamma, -by_gamma), epsilon, step)
    with np.errstate(over="ignore"):
        return as_data(np.ldexp(step, (by_dy + by_gamma)[:, np.newaxis]), x.dtype)


def _check_sum(total: float) -> None:
    if not math.isfinite(total):
        raise ValueError(f"sample_weight must have a finite sum, got {total}: scale it down")
