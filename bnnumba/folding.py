"""Inference without the layer: its arithmetic goes into the linear layer before it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from bnnumba import axes, checks
from bnnumba._types import Array
from bnnumba.exchange import as_array
from bnnumba.layer import BatchNormalization
from bnnumba.second import reciprocal_std

# The classes that `fold` reads: the name of the weights, and the axes that count outputs.
TORCH: dict[str, tuple[str, tuple[int, ...]]] = {
    "Linear": ("weight", (0,)),
    **{f"Conv{n}d": ("weight", (0,)) for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": ("weight", (1,)) for n in (1, 2, 3)},
}
KERAS: dict[str, tuple[str, tuple[int, ...]]] = {
    "Dense": ("kernel", (-1,)),
    **{f"Conv{n}D": ("kernel", (-1,)) for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": ("kernel", (-2,)) for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": ("kernel", (-2, -1)) for n in (1, 2)},
    **{f"SeparableConv{n}D": ("pointwise_kernel", (-1,)) for n in (1, 2)},
}


def fold(before: Any, layer: Any) -> tuple[Array, Array]:
    """Fold a normalization at inference into the real layer before it, of PyTorch or Keras, as `fold_into_conv` does.

    Parameters
    ----------
    before : layer of PyTorch or Keras
        Linear, Conv1d to 3d and ConvTranspose1d to 3d, with groups; Dense, Conv1D to 3D, Conv1DTranspose to
        3DTranspose, DepthwiseConv1D and 2D, SeparableConv1D and 2D, without an activation of its own.
    layer : BatchNormalization, or one that `from_torch` or `from_keras` takes
        Its activation stays with the caller: it is not folded.

    Returns
    -------
    weights, bias : arrays
        New, in the order of axes of the layer's own weight or kernel (of a SeparableConv, of its pointwise_kernel).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    name, output_axes = _known(before)
    weights, bias = as_array(getattr(before, name)), None if before.bias is None else as_array(before.bias)
    groups = before.groups if "Transpose" in type(before).__name__ and name == "weight" else 1
    return fold_into_conv(weights, bias, _own(layer), output_axes, groups=groups)


def fold_into_dense(weights: Array, bias: Array | None, layer: BatchNormalization) -> tuple[Array, Array]:
    """Fold a layer at inference into the dense layer before it, a @ weights + bias.

        layer(a @ weights + bias) = act(a @ (weights*s) + (bias - moving_mean)*s + beta)
        s = gamma/sqrt(moving_variance + epsilon), and 0 where the root is

    Parameters
    ----------
    weights : array (inputs, outputs), float32, float64, float16 or bfloat16
    bias : array (outputs,), of any of these dtypes, or None for 0
    layer : BatchNormalization
        Built for the feature shape (outputs,). Its activation stays with the caller: it is not folded.

    Returns
    -------
    weights, bias : arrays of such shapes
        New, computed in float64, of the weights' dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    return _folded(_dense_weights(weights), (1,), bias, layer)


def fold_into_conv(
    weights: Array,
    bias: Array | None,
    layer: BatchNormalization,
    output_axis: int | tuple[int, ...],
    *,
    groups: int = 1,
) -> tuple[Array, Array]:
    """Fold a layer at inference into the convolution before it: as `fold_into_dense`, for weights of any shape.

    `fold` takes layers of PyTorch and Keras themselves, and knows the axes.

    Parameters
    ----------
    weights : array, at least 2-D, of the dtypes of data
    bias, layer
        As for `fold_into_dense`.
    output_axis : int or tuple of ints
        The axis of the weights that counts outputs. Keras: -1, but -2 in transposed convolutions, and (-2, -1) in
        depthwise ones, in this order. PyTorch and ONNX: 0, but 1 in transposed convolutions.
    groups : int
        Of a transposed convolution of PyTorch or ONNX, whose weights are (inputs, outputs/groups, ...). Others have all
        their outputs along output_axis.

    Returns
    -------
    weights, bias : arrays of such shapes
        New, computed in float64, of the weights' dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    weights = _conv_weights(weights)
    checks.axis("output_axis", output_axis)
    axes.feature_axes(output_axis, weights.ndim, "output_axis")  # refuses what is out of range
    order = output_axis if isinstance(output_axis, tuple) else (output_axis,)
    return _folded(weights, tuple(axis % weights.ndim for axis in order), bias, layer, _groups(groups, weights, order))


def _folded(
    weights: Array, output_axes: tuple[int, ...], bias: Array | None, layer: BatchNormalization, groups: int = 1
) -> tuple[Array, Array]:
    checks.instance("layer", layer, BatchNormalization)
    outputs = checks.one_feature_axis(layer.moving_mean)
    sizes = [weights.shape[axis] for axis in output_axes]
    _check_outputs(groups * prod(sizes), outputs)
    bias = np.zeros(outputs) if bias is None else np.array(_bias(bias, outputs), np.float64)
    scale = reciprocal_std(layer.moving_variance, layer.epsilon)
    if layer.gamma is not None:
        scale = layer.gamma * scale
    offset = (bias - layer.moving_mean) * scale + (0.0 if layer.beta is None else layer.beta)
    if groups > 1:  # the inputs of each group are a part of the first axis, and have outputs of their own
        scale = np.repeat(scale.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        output_axes = (0, *output_axes)
    else:
        scale = scale.reshape(sizes).transpose(np.argsort(output_axes))
    inputs = tuple(axis for axis in range(weights.ndim) if axis not in output_axes)
    dtype = weights.dtype.newbyteorder("=")
    folded = np.array(weights, np.float64) * np.expand_dims(scale, inputs)
    return folded.astype(dtype), offset.astype(dtype)


def _known(before: Any) -> tuple[str, tuple[int, ...]]:
    """Tell the name of a real layer's weights, and the axes of its outputs; refuse what may compute something else."""
    kind = type(before)
    library = {"torch": TORCH, "keras": KERAS}.get(kind.__module__.partition(".")[0], {})
    if kind.__name__ not in library:
        known = ", ".join([*TORCH, *KERAS])
        raise TypeError(f"before must be a layer of PyTorch or Keras ({known}), got {checks.described(before)}")
    activation = getattr(getattr(before, "activation", None), "__name__", "linear")
    if activation != "linear":
        raise ValueError(f"before must have no activation: it stands before the normalization, got {activation}")
    return library[kind.__name__]


def _own(layer: Any) -> Any:
    """A layer of ours, or made of another library's."""
    if isinstance(layer, BatchNormalization):
        return layer
    of_keras = type(layer).__module__.partition(".")[0] == "keras"
    return (BatchNormalization.from_keras if of_keras else BatchNormalization.from_torch)(layer)


def _groups(value: object, weights: Array, output_axes: tuple[int, ...]) -> int:
    groups = checks.whole("groups", value)
    if groups != 1 and output_axes not in ((1,), (1 - weights.ndim,)):
        raise ValueError(f"groups must be 1 unless output_axis is 1, of a transposed convolution, got {groups}")
    if groups < 1 or weights.shape[0] % groups:
        raise ValueError(f"groups must be >= 1 and divide the {weights.shape[0]} inputs, got {groups}")
    return groups


def _dense_weights(value: object) -> Array:
    array = checks.data("weights", value)
    if array.ndim != 2:
        raise ValueError(f"weights must have shape (inputs, outputs), got {array.shape}")
    return array


def _conv_weights(value: object) -> Array:
    array = checks.data("weights", value)
    if array.ndim < 2:
        raise ValueError(f"weights must have at least 2 axes, got {array.shape}")
    return array


def _check_outputs(came: int, features: int) -> None:
    if came != features:
        raise ValueError(f"weights must have {features} outputs, as the layer has features, got {came}")


def _bias(value: object, features: int) -> Array:
    array = checks.data("bias", value)
    if array.shape != (features,):
        raise ValueError(f"bias must have shape {(features,)}, got {array.shape}")
    return array
