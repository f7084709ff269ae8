"""Inference without the layer: its arithmetic goes into the linear layer before it."""

from __future__ import annotations

import numpy as np

from bnnumba import axes, checks
from bnnumba._types import Array
from bnnumba.layer import BatchNormalization
from bnnumba.second import reciprocal_std


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
    return _folded(_dense_weights(weights), 1, bias, layer)


def fold_into_conv(
    weights: Array, bias: Array | None, layer: BatchNormalization, output_axis: int
) -> tuple[Array, Array]:
    """Fold a layer at inference into the convolution before it: as `fold_into_dense`, for weights of any shape.

    Parameters
    ----------
    weights : array, at least 2-D, of the dtypes of data
    bias, layer
        As for `fold_into_dense`.
    output_axis : int
        The axis of the weights that counts outputs: -1 in Keras; 0 in PyTorch and ONNX, 1 in their transposed
        convolutions of one group.

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
    axis = checks.whole("output_axis", output_axis)
    return _folded(weights, axes.feature_axes(axis, weights.ndim, "output_axis")[0], bias, layer)


def _folded(weights: Array, axis: int, bias: Array | None, layer: BatchNormalization) -> tuple[Array, Array]:
    checks.instance("layer", layer, BatchNormalization)
    outputs = checks.one_feature_axis(layer.moving_mean)
    _check_outputs(weights, axis, outputs)
    bias = np.zeros(outputs) if bias is None else np.array(_bias(bias, outputs), np.float64)
    scale = reciprocal_std(layer.moving_variance, layer.epsilon)
    if layer.gamma is not None:
        scale = layer.gamma * scale
    inputs = tuple(each for each in range(weights.ndim) if each != axis)
    offset = (bias - layer.moving_mean) * scale + (0.0 if layer.beta is None else layer.beta)
    dtype = weights.dtype.newbyteorder("=")
    folded = np.array(weights, np.float64) * np.expand_dims(scale, inputs)
    return folded.astype(dtype), offset.astype(dtype)


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


def _check_outputs(weights: Array, axis: int, features: int) -> None:
    if weights.shape[axis] != features:
        raise ValueError(f"weights must have {features} outputs, as the layer has features, got {weights.shape[axis]}")


def _bias(value: object, features: int) -> Array:
    array = checks.data("bias", value)
    if array.shape != (features,):
        raise ValueError(f"bias must have shape {(features,)}, got {array.shape}")
    return array
