"""What TensorFlow calls to run one of our operations: compiled functions of C, without Python, on tensors' own memory.

Each gets `this`, which is 0, and the call's context, of which it asks inputs and outputs by TensorFlow's C functions:

    batch_norm_step    x, gamma, beta, moving_mean, moving_var, settings -> y, mean, var, moving_mean, moving_var
    backward_step      dy, x, y, mean, var, gamma, settings -> dx, dgamma, dbeta
    normalize_step     x, mean, var, gamma, beta, settings -> y
    frozen_step        dy, x, y, mean, var, gamma, settings -> dx, dgamma, dbeta

x, y, dy and dx are data, of any number of axes. Features are float32 or float64, all of one dtype, but mean and var
between batch_norm_step and backward_step, which are float64. Empty gamma and beta stand for 1 and 0. settings are axis,
epsilon, momentum and an activation's slope, in float64. y may be x where there is no activation.

`operations` compiles this module for each dtype and activation: what has no decorator sees the values of that.
"""

from typing import Any

import numpy as np

from bnnumba._addresses import array_at, ran
from bnnumba._jit import either, helper, inlined
from bnnumba._types import Array
from bnnumba.activations import Act
from bnnumba.keras.tensorflow._table import KERNELS, THREADED_FROM, number_in_table
from bnnumba.keras.tensorflow.tensors import (
    Shape,
    address_of_data,
    are_features,
    closed,
    dtype_of,
    features,
    is_well,
    opened,
    output,
    put_features,
    same_sizes,
    settings_of,
    shape_of,
    sizes_of,
)

__all__ = ["backward_step", "batch_norm_step", "frozen_step", "normalize_step"]

like: Any = np.float32(0)  # 0 in the dtype that kernels know the data's by
itemsize: int = 4  # of the dtype, in bytes
activation_with: Any = None  # the function that makes the activation, or None, of its slope
variant: int = 0  # the number of this dtype and activation in the table

BATCH_NORM, BACKWARD, NORMALIZE, FROZEN = STEP_NUMBERS = range(4)
STEPS = len(STEP_NUMBERS)


def data_at(tensor: int, shape: Shape) -> Array:
    array: Array = array_at(address_of_data(tensor), like, shape)
    return array


def kernel_for(step: int, shape: Shape) -> int:
    """Return the address of a step's kernel, with threads or without; or 0 where it is not compiled."""
    large = shape[0] * shape[1] * shape[2] * itemsize >= number_in_table(THREADED_FROM + step)
    address: int = number_in_table(KERNELS + 2 * (STEPS * variant + step) + large)
    return address


# ---- what kernels take last


@inlined
def nothing_forward(absent: None) -> tuple[()]:
    return ()


@inlined
def behind_forward(act: Act) -> tuple[None, Act]:
    return None, act


@inlined
def nothing_backward(absent: None, y: Array) -> tuple[()]:
    return ()


@inlined
def behind_backward(act: Act, y: Array) -> tuple[None, Act, Array]:
    return None, act, y


forward_end = either(nothing_forward, behind_forward)
backward_end = either(nothing_backward, behind_backward)


# ---- the steps


@helper
def move(moving: Array, batch: Array, count: int, momentum: float) -> Array:
    """Return the moving statistics, moved towards the batch's; of no values there are none."""
    if count > 0:
        for f in range(moving.size):
            moving[f] = momentum * moving[f] + (1.0 - momentum) * batch[f]
    return moving


def batch_norm_step(this: int, context: int) -> None:
    """Normalize x by its own moments, and move the moving statistics."""
    tensors = opened(context, 6, 5)
    x, moving_mean = tensors[0], tensors[3]
    axis, epsilon, momentum, slope = settings_of(tensors[5])
    sizes = sizes_of(x)
    shape = shape_of(sizes, axis)
    feature, ended = shape[1], are_features(tensors, 1, 4, shape[1])
    kernel = kernel_for(BATCH_NORM, shape)
    if ended and kernel != 0:
        row = sizes[axis : axis + 1].copy()
        y = output(context, tensors, 6, 0, sizes, -1)
        mean_at = output(context, tensors, 7, 1, row, -1)
        var_at = output(context, tensors, 8, 2, row, -1)
        moved_mean = output(context, tensors, 9, 3, row, -1)
        moved_var = output(context, tensors, 10, 4, row, -1)
        ended = is_well(tensors)
        if ended:
            mean, var = array_at(mean_at, np.float64(0), (feature,)), array_at(var_at, np.float64(0), (feature,))
            affine = features(tensors[1], feature, 1.0), features(tensors[2], feature, 0.0)
            results = array_at(y, like, shape), mean, var
            ended = ran(kernel, (data_at(x, shape), *affine, epsilon, *results, *forward_end(activation_with(slope))))
            kind, count = dtype_of(moving_mean), shape[0] * shape[2]
            put_features(move(features(moving_mean, feature, 0.0), mean, count, momentum), kind, moved_mean)
            put_features(move(features(tensors[4], feature, 1.0), var, count, momentum), kind, moved_var)
    closed(context, tensors, ended and kernel != 0)


def normalize_step(this: int, context: int) -> None:
    """Normalize x by the statistics that are given."""
    tensors = opened(context, 6, 1)
    axis, epsilon, _, slope = settings_of(tensors[5])
    sizes = sizes_of(tensors[0])
    shape = shape_of(sizes, axis)
    feature, ended = shape[1], are_features(tensors, 1, 4, shape[1])
    kernel = kernel_for(NORMALIZE, shape)
    if ended and kernel != 0:
        y = output(context, tensors, 6, 0, sizes, -1)
        ended = is_well(tensors)
        if ended:
            statistics = features(tensors[1], feature, 0.0), features(tensors[2], feature, 1.0)
            affine = features(tensors[3], feature, 1.0), features(tensors[4], feature, 0.0)
            result = array_at(y, like, shape)
            x = data_at(tensors[0], shape)
            ended = ran(kernel, (x, *statistics, *affine, epsilon, result, *forward_end(activation_with(slope))))
    closed(context, tensors, ended and kernel != 0)


def differentiate(context: int, step: int, instead_of: int) -> None:
    tensors = opened(context, 7, 3)
    axis, epsilon, _, slope = settings_of(tensors[6])
    sizes = sizes_of(tensors[1])
    shape = shape_of(sizes, axis)
    feature, ended = shape[1], are_features(tensors, 3, 5, shape[1]) and same_sizes(tensors[0], sizes)
    ended = ended and same_sizes(tensors[2], sizes)
    kernel = kernel_for(step, shape)
    if ended and kernel != 0:
        row = sizes[axis : axis + 1].copy()
        dy = data_at(tensors[0], shape)
        dx = output(context, tensors, 7, 0, sizes, instead_of)
        dgamma_at = output(context, tensors, 8, 1, row, -1)
        dbeta_at = output(context, tensors, 9, 2, row, -1)
        ended = is_well(tensors)
        if ended:
            statistics = features(tensors[3], feature, 0.0), features(tensors[4], feature, 1.0)
            gamma, dgamma, dbeta = features(tensors[5], feature, 1.0), np.empty(feature), np.empty(feature)
            given = dy, data_at(tensors[1], shape), *statistics, gamma, epsilon
            results = array_at(dx, like, shape), dgamma, dbeta
            ended = ran(kernel, (*given, *results, *backward_end(activation_with(slope), data_at(tensors[2], shape))))
            put_features(dgamma, dtype_of(tensors[5]), dgamma_at)
            put_features(dbeta, dtype_of(tensors[5]), dbeta_at)
    closed(context, tensors, ended and kernel != 0)


def backward_step(this: int, context: int) -> None:
    """Differentiate batch_norm_step."""
    differentiate(context, BACKWARD, 0)


def frozen_step(this: int, context: int) -> None:
    """Differentiate normalize_step."""
    differentiate(context, FROZEN, -1)
