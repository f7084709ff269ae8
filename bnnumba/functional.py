"""The public functions: check, view, kernel, restore."""

from __future__ import annotations

from operator import setitem
from typing import Any, Generic, Literal, NamedTuple, Never, TypedDict, TypeVar, Unpack, overload

import numpy as np

from bnnumba import axes, checks, direct, extreme, forms, integers, missing, names, outputs, weighted
from bnnumba._types import Array, Mask, SampleWeight
from bnnumba.activations import Activation, activation_of
from bnnumba.kernels import coefficients, serial
from bnnumba.outputs import Change, apart, apart_or_same, no_output, output, write
from bnnumba.pairs import Pair
from bnnumba.pooling import Moments, Spread
from bnnumba.weighted import weights_of

NanPolicy = Literal["propagate", "omit", "raise"]
MOST_COUNTED = 2**62  # past that, count/(count - 1) is 1

Dx = TypeVar("Dx", Array, None, Array | None)
Dresidual = TypeVar("Dresidual", Array, None, Array | None)


class Gradients(NamedTuple, Generic[Dx, Dresidual]):
    """dx and dresidual (x's shape and dtype; None unless asked for), dgamma and dbeta (feature shape, float64)."""

    dx: Dx
    dgamma: Array
    dbeta: Array
    dresidual: Dresidual = None  # type: ignore[assignment]  # which None is, where nothing is given


class _Options(TypedDict, total=False):
    """Of `batch_norm_backward`, those that its result's type does not depend on."""

    epsilon: float
    frozen: bool
    y: Array | None
    activation: Activation | None
    mask: Mask | None
    sample_weight: SampleWeight | None
    out: Array | None


def moments(
    x: Array,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    mask: Mask | None = None,
    sample_weight: SampleWeight | None = None,
    nan_policy: NanPolicy = "propagate",
    **other: Never,
) -> Moments:
    """Compute the mean and the population variance of every feature.

        mean = sum(x)/count    var = sum((x - mean)**2)/count
        with a mask or weights w: count = sum(w)    mean = sum(w*x)/count    var = sum(w*(x - mean)**2)/count

    Parameters
    ----------
    x : array, at least 1-D, float32, float64, float16, bfloat16, bool or integers, any strides
        Integers are read as they are, without a copy as floats.
    feature_axis : int or tuple of ints
        The axes that are kept; all the others are reduced. NumPy's `axis` is the opposite.
    mask : array of bool that broadcasts to x, optional
        Which values are reduced. With size 1 along the feature axes it tells positions, which all features share.
    sample_weight : array of real numbers, finite and >= 0, that broadcasts to x, instead of a mask
        How much each value counts. Where it is 0, or the mask is False, x may be anything, NaN too.
    nan_policy : "propagate", "omit" or "raise"
        What NaN does: makes its feature's moments NaN, does not count, or is a ValueError.

    Returns
    -------
    Moments
        mean and var, float64, of the feature shape (x's sizes along the feature axes, in x's own order of axes), and
        count, the number of values reduced per feature, or the sum of the weights, a float. With "omit", or a mask or
        weights that vary along the feature axes, count is an array of the feature shape, int64 or float64. With
        count = 0 mean and var are 0.

    Raises
    ------
    TypeError
        If an argument is not of such a type.
    ValueError
        If an axis is repeated, or a mask or weights are not as above; numpy.exceptions.AxisError, a ValueError, if an
        axis is out of range.

    Notes
    -----
    Sums are float64, of data shifted by a value near the mean (Chan, Golub, LeVeque 1983), so that a large offset costs
    no digits. `bnnumba.axes` says when x is copied.
    """
    if other:
        names.refuse(moments, other)
    x = checks.data("x", x, integers=True)
    view = axes.canonical_view(x, feature_axis)
    weights = weights_of(view, x, mask, sample_weight)
    omit = missing.omits_nan(nan_policy, x, sample_weight if mask is None else mask)
    mean, var = view.new_features()
    rest = np.empty_like(mean)
    count: Any = view.reduced
    if weights is None and not omit:
        forms.moments_and_rest_into(view.of(x), mean, var, rest)
    else:
        count = weighted.moments_into(view.of(x), weights, omit, mean, var, rest)
    mean, var, rest = (view.unflatten(each) for each in (mean, var, rest))
    return Moments.of(Spread(Pair(mean, rest), Pair(var, np.zeros(var.shape))), _unflattened(view, count))


def normalize(
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    epsilon: float = 1e-3,
    activation: Activation | None = None,
    residual: Array | None = None,
    nan_policy: Literal["propagate", "raise"] = "propagate",
    dtype: Any = None,
    out: Array | None = None,
    **other: Never,
) -> Array:
    """Normalize x by a given mean and variance: inference, with moving statistics, or standardization.

        y = act(gamma * (x - mean) * rstd + beta + residual)    rstd = 1/sqrt(var + epsilon)

    Parameters
    ----------
    x : array, at least 1-D, float32, float64, float16, bfloat16, bool or integers, any strides
        Integers are read as they are, without a copy as floats; they take no residual.
    mean, var : float arrays of the feature shape
    gamma, beta : float arrays of the feature shape, or None for 1 and 0
    feature_axis : int or tuple of ints
        The axes that mean, var, gamma and beta belong to.
    epsilon : real number >= 0
        Added to var: 1e-3 is a layer's, and hides what data of a small scale has; 0 standardizes. Where var + epsilon
        is 0, rstd is taken as 0.
    activation : None, a name or an instance of `bnnumba.activations`
        None: act(v) = v. All leave NaN as it is.
    residual : array of x's shape and dtype, in any memory order, or None for 0
    nan_policy : "propagate" or "raise"
        What NaN in x does: stays NaN, or is a ValueError.
    dtype : the result's dtype, for integers only: float32, float64, float16 or bfloat16
        None: float32 for bool and integers of 8 and 16 bits, float64 for wider ones.
    out : array of x's shape and the result's dtype, optional
        Takes the result. It may be x itself or residual itself; otherwise it shares no memory with an input.

    Returns
    -------
    array
        y, of x's shape, dtype (of integers see dtype) and memory order, or `out`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; nothing has then been written.
    """
    if other:
        names.refuse(normalize, other)
    if activation is None and residual is None and dtype is None and nan_policy == "propagate":
        found = direct.normalize(x, mean, var, gamma, beta, feature_axis, epsilon, out)
        if found is not None:
            return found
    x = checks.data("x", x, integers=True)
    view = axes.canonical_view(x, feature_axis)
    statistics = view.parameter("mean", mean), view.parameter("var", var)
    scale, offset = view.parameter("gamma", gamma, 1.0), view.parameter("beta", beta, 0.0)
    epsilon = checks.epsilon(epsilon)
    missing.allows_nan(nan_policy, x)
    others = {"mean": mean, "var": var, "gamma": gamma, "beta": beta}
    if x.dtype.kind in "biu":
        result_dtype = integers.result_dtype(x, dtype, residual)
        y = axes.empty_like(x, result_dtype) if out is None else integers.output(out, x, result_dtype, others)
        integers.normalize_into(view, x, (*statistics, scale, offset, epsilon), activation_of(activation), y)
        return y
    integers.no_dtype(dtype, x)
    inputs = {"x": x} if residual is None else {"x": x, "residual": checks.like("residual", residual, x)}
    act = activation_of(activation)
    y = axes.empty_like(x) if out is None else output(out, x, inputs, others)
    result = view.for_result(y)
    _normalize(view.of(x), (*statistics, scale, offset, epsilon), result, _behind(view, residual, act))
    return view.deliver(result, y)


def batch_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    epsilon: float = 1e-3,
    activation: Activation | None = None,
    residual: Array | None = None,
    mask: Mask | None = None,
    sample_weight: SampleWeight | None = None,
    out: Array | None = None,
    **other: Never,
) -> tuple[Array, Moments]:
    """Normalize x by its own moments: the training forward.

        y = act(gamma * (x - mean) * rstd + beta + residual)    rstd = 1/sqrt(var + epsilon)    mean, var = moments(x)

    Parameters
    ----------
    x, gamma, beta, feature_axis, epsilon, activation, residual, out
        As for `normalize`. With out=x, x is gone: `batch_norm_backward` can then not be called.
    mask, sample_weight
        As for `moments`. y is made of every value; of a feature with count = 0 it is act(beta + residual).

    Returns
    -------
    y : array
        Of x's shape, dtype and memory order, or `out`.
    moments : Moments
        The batch's, for `batch_norm_backward` and `update_moving`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; nothing has then been written.

    Notes
    -----
    Ioffe and Szegedy, "Batch Normalization", 2015.
    """
    if other:
        names.refuse(batch_norm, other)
    if activation is None and residual is None and mask is None and sample_weight is None:
        done = direct.batch_norm(x, gamma, beta, feature_axis, epsilon, out)
        if done is not None:
            return done
    x = checks.data("x", x)
    view = axes.canonical_view(x, feature_axis)
    scale, offset = view.parameter("gamma", gamma, 1.0), view.parameter("beta", beta, 0.0)
    epsilon = checks.epsilon(epsilon)
    inputs = {"x": x} if residual is None else {"x": x, "residual": checks.like("residual", residual, x)}
    act = activation_of(activation)
    weights = weights_of(view, x, mask, sample_weight)
    others = {"gamma": gamma, "beta": beta, "mask": mask, "sample_weight": sample_weight}
    y = axes.empty_like(x) if out is None else output(out, x, inputs, others)
    given, result, behind = view.of(x), view.for_result(y), _behind(view, residual, act)
    mean, var = view.new_features()
    count: Any = view.reduced
    if weights is None and extreme.ordinary_gamma(scale, given):
        forms.batch_norm_into(given, scale, offset, epsilon, result, mean, var, *behind)
    else:
        rest = np.empty_like(mean)
        if weights is None:
            forms.moments_and_rest_into(given, mean, var, rest)
        else:
            count = weighted.moments_into(given, weights, False, mean, var, rest)
        _normalize(weighted.counted(given, count), (mean, var, scale, offset, epsilon), result, behind)
    batch = Moments(view.unflatten(mean), view.unflatten(var), _unflattened(view, count))
    return view.deliver(result, y), batch


@overload
def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    needs_dx: Literal[True] = True,
    residual: Literal[False] = False,
    **options: Unpack[_Options],
) -> Gradients[Array, None]: ...
@overload
def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    needs_dx: Literal[True] = True,
    residual: Literal[True],
    **options: Unpack[_Options],
) -> Gradients[Array, Array]: ...
@overload
def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    needs_dx: bool = True,
    residual: bool = False,
    **options: Unpack[_Options],
) -> Gradients[Array | None, Array | None]: ...
def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    feature_axis: int | tuple[int, ...] = -1,
    *,
    epsilon: float = 1e-3,
    frozen: bool = False,
    needs_dx: bool = True,
    y: Array | None = None,
    activation: Activation | None = None,
    residual: bool = False,
    mask: Mask | None = None,
    sample_weight: SampleWeight | None = None,
    out: Array | None = None,
    **other: Never,
) -> Gradients[Any, Any]:
    """Compute the gradients of `batch_norm`, or with frozen=True those of `normalize`.

        dbeta = sum(dresidual)    dgamma = sum(dresidual * x_hat)    x_hat = (x - mean)*rstd
        training: dx = gamma*rstd * (dresidual - w*(dbeta + x_hat * dgamma)/count)    w = 1 without a mask or weights
        frozen:   dx = gamma*rstd * dresidual
        dresidual = dy, or with an activation dy * act'(v), told by y

    Parameters
    ----------
    dy, x : arrays of one shape and dtype
        The gradient with respect to y, in any memory order, and the forward's x.
    mean, var : float arrays of the feature shape
        Of the batch; or, frozen, the constants that `normalize` was given.
    gamma : float array of the feature shape, or None for 1
    feature_axis : int or tuple of ints
    epsilon : real number >= 0, as given forward
    frozen : bool
        Whether mean and var were constants.
    needs_dx : bool
        False leaves dx out, and a sweep over the data with it.
    y : array of x's shape and dtype, in any memory order
        The forward's result. Needed with an activation, and ignored without.
    activation : as given forward
    residual : bool
        Whether dresidual is wanted.
    mask, sample_weight
        As given forward. The sums run over all positions: y was made at each.
    out : array of x's shape and dtype, optional
        Takes dx. It may be dy itself or x itself; otherwise it shares no memory with an input.

    Returns
    -------
    Gradients
        dx, of x's shape, dtype and memory order, or `out`, or None; dgamma and dbeta, float64, of the feature shape;
        dresidual, like dx, or None. Without an activation dresidual is dy itself (a copy, if `out` takes dy's place).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; nothing has then been written.
    """
    if other:
        names.refuse(batch_norm_backward, other)
    plain = activation is None and mask is None and sample_weight is None
    if plain and residual is False and needs_dx is True and isinstance(frozen, bool):
        found = direct.backward(dy, x, mean, var, gamma, feature_axis, epsilon, frozen, out)
        if found is not None:
            return Gradients(*found)
    x = checks.data("x", x)
    dy = checks.like("dy", dy, x)
    view = axes.canonical_view(x, feature_axis)
    statistics = view.parameter("mean", mean), view.parameter("var", var)
    scale = view.parameter("gamma", gamma, 1.0)
    epsilon = checks.epsilon(epsilon)
    frozen, needs_dx = checks.flag("frozen", frozen), checks.flag("needs_dx", needs_dx)
    act, residual = activation_of(activation), checks.flag("residual", residual)
    y = None if act is None else _forward_result(y, x)
    weights = weights_of(view, x, mask, sample_weight)
    dx = dresidual = None
    if needs_dx:
        others = {"mean": mean, "var": var, "gamma": gamma, "y": y, "mask": mask, "sample_weight": sample_weight}
        dx = axes.empty_like(x) if out is None else output(out, x, {"dy": dy, "x": x}, others)
    else:
        no_output(out)
    masked = axes.empty_like(x) if residual and act is not None else None
    if residual and act is None:
        dresidual = dy if out is None or not np.may_share_memory(out, dy) else dy.copy(order="K")
    into_dx, into_masked = (None if array is None else view.for_result(array) for array in (dx, masked))
    behind = () if y is None else (into_masked, act, view.of(y))
    given, gradients = (view.of(dy), view.of(x)), coefficients.Gradients(*view.new_features())
    if weights is not None and not frozen:
        by = coefficients.Statistics(*statistics, scale, None, epsilon)
        weighted.backward_into(*given, by, weights, gradients, into_dx, behind)
    elif into_dx is None:
        forms.gradient_sums_into(*given, *statistics, epsilon, *gradients, *behind)
    else:
        made = extreme.frozen_gradient(given[0], statistics[1], scale, epsilon, behind) if frozen else None
        kernel = forms.frozen_backward_into if frozen else forms.batch_norm_backward_into
        kernel(*given, *statistics, scale, epsilon, into_dx, *gradients, *behind)
        extreme.put(made, into_dx)
    for array, result in ((dx, into_dx), (masked, into_masked)):
        if array is not None and result is not None:
            view.deliver(result, array)
    dgamma, dbeta = map(view.unflatten, gradients)
    return Gradients(dx, dgamma, dbeta, dresidual if masked is None else masked)


def input_gradient(
    dy: Array,
    x: Array,
    moments: Moments,
    gamma: Array | None,
    sums: tuple[Array, Array],
    feature_axis: int | tuple[int, ...] = -1,
    *,
    epsilon: float = 1e-3,
    **weights: Any,
) -> Array:
    """Compute dx of a training forward whose batch is more than this x: from the whole batch's moments and sums.

        dx = gamma*rstd * (dy - w*(dbeta + x_hat*dgamma)/count)    w = 1 without a mask or weights

    Parameters
    ----------
    dy, x : arrays of one shape and dtype
        A part of the batch. dy is what `batch_norm_backward` calls dresidual: behind an activation dy * act'(v).
    moments : Moments of all parts; with count = 0, dx is 0
    gamma, feature_axis, epsilon
        As for `batch_norm_backward`.
    sums : dgamma and dbeta, float arrays of the feature shape
        Those of all parts, added up.
    **weights
        This part's mask or sample_weight, if there is one.

    Returns
    -------
    array
        dx, of x's shape, dtype and memory order.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    x = checks.data("x", x)
    dy = checks.like("dy", dy, x)
    view = axes.canonical_view(x, feature_axis)
    statistics = view.parameter("mean", moments.mean), view.parameter("var", moments.var)
    scale = view.parameter("gamma", gamma, 1.0)
    gradients = coefficients.Gradients(view.parameter("dgamma", sums[0]), view.parameter("dbeta", sums[1]))
    count, epsilon = checks.not_negative("count", moments.count), checks.epsilon(epsilon)
    given = weights_of(view, x, **{"mask": None, "sample_weight": None, **weights})
    dx = axes.empty_like(x)
    result = view.for_result(dx)
    inputs = view.of(dy), view.of(x)
    if given is not None:
        by = coefficients.Statistics(*statistics, scale, None, epsilon)
        weighted.input_gradient_into(*inputs, by, gradients, count / given.unit, given, result, False)
    else:  # the kernel divides by the count of its own x
        share = view.reduced / count if count else 0.0
        forms.input_gradient(*inputs, *statistics, scale, *(each * share for each in gradients), epsilon, result)
    return view.deliver(result, dx)


def update_moving(
    moving_mean: Array,
    moving_var: Array,
    moments: Moments,
    momentum: float = 0.99,
    *,
    ddof: int = 0,
    skip_nonfinite: bool = False,
) -> None:
    """Move the moving statistics towards the batch's, in place.

        moving = momentum*moving + (1 - momentum)*batch

    Parameters
    ----------
    moving_mean, moving_var : writeable float32 or float64 arrays of the feature shape
        They share no memory with each other and with moments, unless one is exactly moments.mean or moments.var.
    moments : Moments
        With count = 0 nothing changes.
    momentum : real number in [0, 1]
        Keras's meaning: 0.99 keeps 99 %. PyTorch's momentum is 1 - momentum.
    ddof : 0 or 1
        0: the batch's variance is the population one, as in Keras, ONNX and Flax. 1: it is multiplied by
        count/max(count - 1, 1), as in PyTorch, TensorFlow's fused op and cuDNN; not for moments with weights.
    skip_nonfinite : bool
        True leaves the features as they were whose batch mean or variance is NaN or infinite. False lets these in, as
        in Keras.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; nothing has then been written.
    """
    checks.moments("moments", moments, Moments)
    momentum, ddof, shape = checks.momentum(momentum), checks.ddof(ddof), moments.mean.shape
    skip_nonfinite = checks.flag("skip_nonfinite", skip_nonfinite)
    checks.no_ddof(ddof, np.asarray(moments.count).dtype.kind == "f")
    moving_mean, moving_var = outputs.moving(shape, moving_mean=moving_mean, moving_var=moving_var)
    apart("moving_mean", moving_mean, [("moments.var", moments.var)])
    apart("moving_var", moving_var, [("moments.mean", moments.mean)])
    apart_or_same("moving_mean", moving_mean, "moments.mean", moments.mean)
    apart_or_same("moving_var", moving_var, "moments.var", moments.var)
    write(moved(moving_mean, moving_var, moments, momentum, ddof, skip_nonfinite))


def moved(
    moving_mean: Array, moving_var: Array, moments: Moments, momentum: float, ddof: int, skip_nonfinite: bool
) -> list[Change]:
    """What `update_moving` changes, for arguments that were checked."""
    new_mean, new_var = axes.flat_copy(moving_mean), axes.flat_copy(moving_var)
    batch_mean, batch_var = axes.flat_double(moments.mean), axes.flat_double(moments.var)
    kernel = serial.update_moving_finite if skip_nonfinite else serial.update_moving
    shape = moving_mean.shape
    if isinstance(moments.count, np.ndarray):
        counts = moments.count.ravel()
        batch_var = batch_var * (counts / np.maximum(counts - ddof, 1))
        kernel(new_mean, new_var, batch_mean, batch_var, 1, momentum, 0)
        there = (counts > 0).reshape(shape)
        new_mean, new_var = (
            np.where(there, new.reshape(shape), old) for new, old in ((new_mean, moving_mean), (new_var, moving_var))
        )
    else:
        count = min(int(moments.count), MOST_COUNTED) if ddof else int(moments.count > 0)
        kernel(new_mean, new_var, batch_mean, batch_var, count, momentum, ddof)
    pairs = (moving_mean, new_mean), (moving_var, new_var)
    return [(setitem, moving, ..., new.reshape(shape)) for moving, new in pairs]


def _unflattened(view: axes.View, count: Any) -> Any:
    return view.unflatten(count) if isinstance(count, np.ndarray) else count


def _normalize(x: Array, by: tuple[Any, ...], result: Array, behind: tuple[Any, ...]) -> None:
    """Fill the result. by: mean, var, gamma, beta and epsilon."""
    made = extreme.normalized(x, *by, *(behind or (None, None)))  # first, as the result may be x or the residual
    forms.normalize(x, *by, result, *behind)
    extreme.put(made, result)


def _behind(view: axes.View, residual: Array | None, act: Any) -> tuple[Any, ...]:
    """What a forward kernel takes after y: the residual and the activation, or nothing, as most calls have neither."""
    if residual is None and act is None:
        return ()
    return None if residual is None else view.of(residual), act


def _forward_result(y: object, x: Array) -> Array:
    """The y that backward needs behind an activation."""
    if y is None:
        raise TypeError("y, the result of the forward call, must be given where there is an activation")
    return checks.like("y", y, x)
