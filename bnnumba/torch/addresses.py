"""The kernels on tensors, given by their addresses: an array of each would cost more than all else of a small call.

    like          0 in the dtype of the data; half precision's is an integer's, as in `kernels`
    shape         (outer, feature, inner)
    data          addresses of data; None without
    statistics    address of mean, var and beta as (3, feature), float64
    features      address of features, or 0 without; and whether they are float64, else float32

What is None is known when Numba compiles: each combination is a function of its own, with one kernel in it.
"""

from typing import Any

import numpy as np

from bnnumba._addresses import array_at
from bnnumba._jit import either, helper, signed
from bnnumba._types import Act, Array
from bnnumba.kernels.passes import (
    activation_gradient,
    batch_norm_backward_into,
    batch_norm_into,
    frozen_backward_into,
    gradient_sums_into,
    normalize,
    update_moving,
)

__all__ = ["backward_at", "batch_norm_at", "behind_at", "move_at"]

Shape = tuple[int, int, int]
Running = tuple[int, bool, int, bool]  # features: running_mean, running_var
Affine = tuple[int, bool, int, bool, float]  # features: gamma, beta; and epsilon
Inputs = tuple[Array, Array, Array, Array]  # dy, x, mean, var
Scale = tuple[Array, float]  # gamma, epsilon
Two = tuple[Array, Array]
Behind = tuple[Array | None, Act | None]  # the residual, the activation
Backward = tuple[Array | None, Act | None, Array | None]  # dresidual, the activation, y
Step = tuple[int, bool, float]  # the address of num_batches_tracked, or 0; whether momentum is its inverse; or momentum


@helper
def _no_array(address: None, like: Any, shape: tuple[int, ...]) -> None:
    return None


maybe_array_at = either(_no_array, array_at)  # None where the address is


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


# ---- the kernels


def move_at(statistics: int, feature: int, count: int, running: Running, step: Step) -> None:
    """Count a batch, and move the running statistics towards its own; by 1/batches if it averages, 0 uncounted."""
    running_mean, wide_mean, running_var, wide_var = running
    batches, averages, momentum = step
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
    shape: Shape,
    data: tuple[int, int | None, int, int],
    affine: Affine,
    running: Running,
    given: bool | None,
    step: Step | None,
    activation: Act | None,
) -> None:
    """Fill y, and statistics with what made it. data: x, the residual, y and statistics.

    Mean and var are the running ones if they are `given`, not None; else x's own, towards which the running ones move
    if there is a step.
    """
    x_at, residual_at, y_at, statistics = data
    gamma, wide_gamma, beta, wide_beta, epsilon = affine
    outer, feature, inner = shape
    scale, rows = np.empty(feature), array_at(statistics, np.float64(0), (3, feature))
    read_features(gamma, wide_gamma, 1.0, scale)
    read_features(beta, wide_beta, 0.0, rows[2])
    x, y = array_at(x_at, like, shape), array_at(y_at, like, shape)
    behind = maybe_array_at(residual_at, like, shape), activation
    _normalize(given, x, rows, (scale, epsilon), y, behind, running)
    _move(step, statistics, feature, outer * inner, running)


def _by_batch(absent: None, x: Array, rows: Array, scale: Scale, y: Array, behind: Behind, running: Running) -> None:
    gamma, epsilon = scale
    batch_norm_into(x, gamma, rows[2], epsilon, y, rows[0], rows[1], *behind)


def _by_running(given: bool, x: Array, rows: Array, scale: Scale, y: Array, behind: Behind, running: Running) -> None:
    (gamma, epsilon), (mean_at, wide_mean, var_at, wide_var) = scale, running
    read_features(mean_at, wide_mean, 0.0, rows[0])
    read_features(var_at, wide_var, 1.0, rows[1])
    normalize(x, rows[0], rows[1], gamma, rows[2], epsilon, y, *behind)


def _stay(absent: None, statistics: int, feature: int, count: int, running: Running) -> None:
    return None


def _step(step: Step, statistics: int, feature: int, count: int, running: Running) -> None:
    move_at(statistics, feature, count, running, step)


_normalize = either(_by_batch, _by_running)
_move = either(_stay, _step)


def backward_at(
    like: Any,
    shape: Shape,
    data: tuple[int, int | None, int, int],
    weight: tuple[int, bool, float],
    frozen: bool | None,
    activation: Act | None,
    results: tuple[int | None, int | None],
    sums: tuple[int, int, bool],
) -> None:
    """Fill the results dx and dresidual, those that are not None, and the sums dgamma and dbeta.

    data: dy, y, x and statistics. y is what an activation gave; or None, and where there is one it is made again, for
    the training backward only. weight: gamma's features, and epsilon.
    """
    dy_at, y_at, x_at, statistics = data
    gamma, wide_gamma, epsilon = weight
    dx_at, dresidual_at = results
    dgamma_at, dbeta_at, wide_sums = sums
    feature = shape[1]
    scale, rows = np.empty(feature), array_at(statistics, np.float64(0), (3, feature))
    read_features(gamma, wide_gamma, 1.0, scale)
    inputs = array_at(dy_at, like, shape), array_at(x_at, like, shape), rows[0], rows[1]
    y = maybe_array_at(y_at, like, shape)
    behind = maybe_array_at(dresidual_at, like, shape), activation, y
    dgamma, dbeta = np.empty(feature), np.empty(feature)
    dx = maybe_array_at(dx_at, like, shape)
    _differentiate(dx, frozen, inputs, (scale, epsilon), (dgamma, dbeta), behind, rows[2])
    write_features(dgamma, wide_sums, dgamma_at)
    write_features(dbeta, wide_sums, dbeta_at)


def _sums_only(
    absent: None, frozen: Any, inputs: Inputs, scale: Scale, sums: Two, behind: Backward, beta: Array
) -> None:
    gradient_sums_into(*inputs, scale[1], *sums, *behind)


def _with_dx(dx: Array, frozen: Any, inputs: Inputs, scale: Scale, sums: Two, behind: Backward, beta: Array) -> None:
    _fill_dx(frozen, dx, inputs, scale, sums, behind, beta)


def _training(absent: None, dx: Array, inputs: Inputs, scale: Scale, sums: Two, behind: Backward, beta: Array) -> None:
    _, activation, y = behind
    beta_to_remake = _where_given(activation, _where_absent(y, beta))  # y, behind an activation
    batch_norm_backward_into(*inputs, *scale, dx, *sums, *behind, beta_to_remake)


def _frozen(frozen: bool, dx: Array, inputs: Inputs, scale: Scale, sums: Two, behind: Backward, beta: Array) -> None:
    frozen_backward_into(*inputs, *scale, dx, *sums, *behind)


@helper
def _none(value: Any, beta: Array | None) -> None:
    return None


@helper
def _itself(value: Any, beta: Array | None) -> Array | None:
    return beta


_differentiate = either(_sums_only, _with_dx)
_fill_dx = either(_training, _frozen)
_where_absent = either(_itself, _none)
_where_given = either(_none, _itself)


def behind_at(like: Any, shape: Shape, dy: int, y: int, activation: Act, dresidual: int) -> None:
    """Fill dresidual with dy behind the activation that gave y."""
    activation_gradient(
        array_at(dy, like, shape), array_at(y, like, shape), activation, array_at(dresidual, like, shape)
    )
