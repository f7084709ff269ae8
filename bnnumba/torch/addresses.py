"""The kernels on tensors, given by their addresses: an array of each would cost more than all else of a small call.

    like                        0 in the dtype of the data; half precision's is an integer's, as in `kernels`
    x, y, dx, ...               addresses of data of the canonical shape (outer, feature, inner); None without
    gamma, running_mean, ...    addresses of features, float64 where `wide`, else float32; 0 without
    statistics                  address of mean, var and beta as (3, feature), float64
    relu, remade, frozen, ...   True or None
    moves, averages             whether running statistics move, and by the inverse of `batches`, a counter's address

What is None is known when Numba compiles: each combination is a function of its own, with one kernel in it.
"""

import ctypes
from typing import Any

import numpy as np
from numba import carray, config, types
from numba.extending import intrinsic

from bnnumba._jit import helper, signed
from bnnumba._types import Array
from bnnumba.kernels.fused import (
    add_relu_backward_into,
    add_relu_gradient_sums_into,
    batch_norm_add_into,
    batch_norm_add_relu_into,
    batch_norm_relu_into,
    frozen_add_relu_backward_into,
    frozen_relu_backward_into,
    normalize_add,
    normalize_add_relu,
    normalize_relu,
    relu_backward_into,
    relu_gradient_sums_into,
    remade_relu_backward_into,
)
from bnnumba.kernels.passes import (
    batch_norm_backward_into,
    batch_norm_into,
    frozen_backward_into,
    gradient_sums_into,
    normalize,
    update_moving,
)

if config.DISABLE_JIT:

    def array_at(address: int, like: Any, shape: tuple[int, ...]) -> Array:
        """Return the array of like's dtype at an address."""
        memory = (ctypes.c_char * (np.prod(shape, dtype=int) * like.itemsize)).from_address(address)
        return np.ndarray(shape, like.dtype, memory)

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def _pointer(_: Any, address: Any, like: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(like)(address, like), generate

    @helper
    def array_at(address: int, like: Any, shape: tuple[int, ...]) -> Array:
        """Return the array of like's dtype at an address."""
        array: Array = carray(_pointer(address, like), shape)
        return array


@helper
def read_features(address: int, wide: int, default: float, features: Array) -> None:
    """Fill features with those at an address, or where that is 0 with the default."""
    if address == 0:
        for f in range(features.size):
            features[f] = default
    elif wide:
        doubles = array_at(address, np.float64(0), (features.size,))
        for f in range(features.size):
            features[f] = doubles[f]
    else:
        singles = array_at(address, np.float32(0), (features.size,))
        for f in range(features.size):
            features[f] = singles[f]


@helper
def write_features(features: Array, wide: int, address: int) -> None:
    """Store features at an address."""
    if wide:
        doubles = array_at(address, np.float64(0), (features.size,))
        for f in range(features.size):
            doubles[f] = features[f]
    else:
        singles = array_at(address, np.float32(0), (features.size,))
        for f in range(features.size):
            singles[f] = features[f]


# ---- the kernels; what is None is known when Numba compiles them, so that there is one call in each


def move_at(
    running_mean: int,
    wide_mean: int,
    running_var: int,
    wide_var: int,
    batches: int,
    averages: bool,
    momentum: float,
    statistics: int,
    feature: int,
    count: int,
) -> None:
    """Count a batch, and move the running statistics towards its own; by 1/batches if it `averages`, 0 uncounted."""
    rows = array_at(statistics, np.float64(0), (3, feature))
    mean, var = np.empty(feature), np.empty(feature)
    read_features(running_mean, wide_mean, 0.0, mean)
    read_features(running_var, wide_var, 1.0, var)
    counted = signed(0)
    if batches:
        counter = array_at(batches, signed(0), (1,))
        counter[0] += 1
        counted = counter[0]
    average = 1.0 - 1.0 / counted if counted else 1.0
    kept = average if averages else 1.0 - momentum
    update_moving(mean, var, rows[0], rows[1], count, kept, 1)
    write_features(mean, wide_mean, running_mean)
    write_features(var, wide_var, running_var)


def batch_norm_at(
    like: Any,
    x: int,
    residual: int | None,
    relu: bool | None,
    running: bool | None,
    moves: bool,
    running_mean: int,
    wide_mean: int,
    running_var: int,
    wide_var: int,
    batches: int,
    averages: bool,
    momentum: float,
    gamma: int,
    wide_gamma: int,
    beta: int,
    wide_beta: int,
    epsilon: float,
    outer: int,
    feature: int,
    inner: int,
    y: int,
    statistics: int,
) -> None:
    """Fill y, and statistics with what made it.

    Mean and var are the running ones if `running`; else x's own, towards which the running ones move if it `moves`.
    """
    shape = outer, feature, inner
    data, result = array_at(x, like, shape), array_at(y, like, shape)
    added = data if residual is None else array_at(residual, like, shape)
    scale, rows = np.empty(feature), array_at(statistics, np.float64(0), (3, feature))
    mean, var, shift = rows[0], rows[1], rows[2]
    read_features(gamma, wide_gamma, 1.0, scale)
    read_features(beta, wide_beta, 0.0, shift)
    if running is not None:
        read_features(running_mean, wide_mean, 0.0, mean)
        read_features(running_var, wide_var, 1.0, var)
        if relu is None and residual is None:
            normalize(data, mean, var, scale, shift, epsilon, result)
        elif residual is None:
            normalize_relu(data, mean, var, scale, shift, epsilon, result)
        elif relu is None:
            normalize_add(data, added, mean, var, scale, shift, epsilon, result)
        else:
            normalize_add_relu(data, added, mean, var, scale, shift, epsilon, result)
    elif relu is None and residual is None:
        batch_norm_into(data, scale, shift, epsilon, result, mean, var)
    elif residual is None:
        batch_norm_relu_into(data, scale, shift, epsilon, result, mean, var)
    elif relu is None:
        batch_norm_add_into(data, added, scale, shift, epsilon, result, mean, var)
    else:
        batch_norm_add_relu_into(data, added, scale, shift, epsilon, result, mean, var)
    if moves:
        move_at(
            running_mean,
            wide_mean,
            running_var,
            wide_var,
            batches,
            averages,
            momentum,
            statistics,
            feature,
            outer * inner,
        )


def backward_at(
    like: Any,
    dy: int,
    y: int | None,
    x: int,
    statistics: int,
    gamma: int,
    wide_gamma: int,
    remade: bool | None,
    frozen: bool | None,
    epsilon: float,
    outer: int,
    feature: int,
    inner: int,
    dx: int | None,
    dresidual: int | None,
    dgamma: int,
    dbeta: int,
    wide_sums: int,
) -> None:
    """Fill dx and dresidual, those that are not None, dgamma and dbeta.

    y is what a ReLU gave, or None; then if `remade`, it is made again, for the training backward only.
    """
    shape = outer, feature, inner
    gradient, data = array_at(dy, like, shape), array_at(x, like, shape)
    given = data if y is None else array_at(y, like, shape)
    result = data if dx is None else array_at(dx, like, shape)
    masked = data if dresidual is None else array_at(dresidual, like, shape)
    scale = np.empty(feature)
    read_features(gamma, wide_gamma, 1.0, scale)
    rows = array_at(statistics, np.float64(0), (3, feature))
    mean, var = rows[0], rows[1]
    a, b = np.empty(feature), np.empty(feature)
    if remade is not None:
        remade_relu_backward_into(gradient, data, mean, var, scale, rows[2], epsilon, result, a, b)
    elif y is None:
        if dx is None:
            gradient_sums_into(gradient, data, mean, var, epsilon, a, b)
        elif frozen is None:
            batch_norm_backward_into(gradient, data, mean, var, scale, epsilon, result, a, b)
        else:
            frozen_backward_into(gradient, data, mean, var, scale, epsilon, result, a, b)
    elif dresidual is None:
        if dx is None:
            relu_gradient_sums_into(gradient, given, data, mean, var, epsilon, a, b)
        elif frozen is None:
            relu_backward_into(gradient, given, data, mean, var, scale, epsilon, result, a, b)
        else:
            frozen_relu_backward_into(gradient, given, data, mean, var, scale, epsilon, result, a, b)
    elif dx is None:
        add_relu_gradient_sums_into(gradient, given, data, mean, var, epsilon, masked, a, b)
    elif frozen is None:
        add_relu_backward_into(gradient, given, data, mean, var, scale, epsilon, result, masked, a, b)
    else:
        frozen_add_relu_backward_into(gradient, given, data, mean, var, scale, epsilon, result, masked, a, b)
    write_features(a, wide_sums, dgamma)
    write_features(b, wide_sums, dbeta)


KERNELS = ("move_at", "batch_norm_at", "backward_at")  # each may call those before it
