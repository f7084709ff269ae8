"""Batch normalization of TensorFlow's tensors: as operations of TensorFlow with kernels of ours, without Python.

    batch_norm     the training forward, which also moves moving statistics
    normalize      by statistics that are given

Both may be differentiated, in eager code and in `tf.function`. The first derivatives are kernels of ours, too; those
from the second on are TensorFlow's, of the same equations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

from bnnumba.activations import Act
from bnnumba.keras.normalized import Normalized
from bnnumba.keras.tensorflow.calls import call
from bnnumba.keras.tensorflow.operations import Kind


def refusal(_: Any) -> str:
    """Why Keras's own call must be taken; empty where it need not."""
    if not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph()):
        return "XLA compiles what calls it (jit_compile=True), and knows no operation of others"
    return ""


def batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    moving: tuple[Any, Any],
    axis: int,
    epsilon: float,
    momentum: float,
    activation: Act | None,
) -> Normalized:
    """Normalize x by its own moments, see `Normalized`.

    Parameters
    ----------
    x : tensor of float32, float64, float16 or bfloat16, with at least one axis
    gamma, beta : tensors or variables of the feature shape, or None for 1 and 0
    moving : moving_mean and moving_variance; they are not changed here
    axis : int
    epsilon, momentum : float
    activation : an instance of a class in `bnnumba.activations`, or None
    """
    mean, var = _features(*moving)
    scale, offset = _affine(gamma, beta, mean.dtype)
    given = x, scale, offset, mean, var, _settings(x, axis, epsilon, momentum, activation)
    return Normalized(*call("batch_norm_step", _kind(activation), given))


def normalize(
    x: Any,
    mean: Any,
    var: Any,
    gamma: Any,
    beta: Any,
    axis: int,
    epsilon: float,
    activation: Act | None,
) -> Any:
    """Normalize x by a mean and a variance: act(gamma * (x - mean)/sqrt(var + epsilon) + beta); see `batch_norm`."""
    mean, var = _features(mean, var)
    scale, offset = _affine(gamma, beta, mean.dtype)
    given = x, mean, var, scale, offset, _settings(x, axis, epsilon, 0.0, activation)
    return call("normalize_step", _kind(activation), given)[0]


def _kind(activation: Act | None) -> Kind:
    return None if activation is None else type(activation)


def _features(*given: Any) -> list[Any]:
    """Tensors of one dtype that our kernels read: float64, or float32."""
    tensors = [tf.convert_to_tensor(each) for each in given]
    wide = all(each.dtype == tf.float64 for each in tensors)
    return [tf.cast(each, tf.float64 if wide else tf.float32) for each in tensors]


def _affine(gamma: Any, beta: Any, dtype: Any) -> list[Any]:
    """Gamma and beta as tensors of a dtype; none as an empty one."""
    given = [None if each is None else tf.convert_to_tensor(each) for each in (gamma, beta)]
    return [tf.zeros([0], dtype) if each is None else tf.cast(each, dtype) for each in given]


def _settings(x: Any, axis: int, epsilon: float, momentum: float, activation: Act | None) -> Any:
    slope = activation[0] if activation else 0.0
    return tf.constant(np.array([axis % x.shape.rank, epsilon, momentum, slope]))
