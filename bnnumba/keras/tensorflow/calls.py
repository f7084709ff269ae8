"""Calls of our operations, eager and in graphs, and their derivatives."""

from __future__ import annotations

from functools import cache
from threading import RLock
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import op_def_library

from bnnumba.keras.tensorflow.again import differentiate_again
from bnnumba.keras.tensorflow.operations import STEPS, Kind, ready

_making = RLock()  # an operation is told to TensorFlow once: threads may want it at the same time


@tf.autograph.experimental.do_not_convert
def call(step: str, kind: Kind, inputs: tuple[Any, ...]) -> Any:
    """Make the call of a step's operation with an activation of a class; return its outputs.

    inputs: tensors, in the order of `operations.STEPS`.
    """
    data, features = inputs[0].dtype, inputs[-2].dtype
    with _making:
        name = ready(step, kind, data)
        _make_differentiable(step, name, kind)
    if tf.executing_eagerly():
        attributes = "T", data.as_datatype_enum, "U", features.as_datatype_enum
        outputs = execute.execute(name.encode(), len(STEPS[step].outputs), [*inputs], attributes, context.context())
        given = inputs
    else:
        names = [each.partition(":")[0] for each in STEPS[step].inputs]
        operation = op_def_library._apply_op_helper(name, **dict(zip(names, inputs, strict=True)))[2]
        attributes = "T", data, "U", features
        outputs, given = operation.outputs, operation.inputs
    if execute.must_record_gradient():
        execute.record_gradient(name, given, attributes, outputs)
    return outputs


@cache
def _make_differentiable(step: str, name: str, kind: Kind) -> None:
    """Tell TensorFlow an operation's derivative."""

    def forward(operation: Any, dy: Any, *_: Any) -> list[Any]:
        return _differentiate(operation, dy, kind, step)

    def backward(operation: Any, *dd: Any) -> list[Any]:
        return differentiate_again(operation, dd, kind, frozen=step == "frozen_step")

    tf.RegisterGradient(name)(backward if step in ("backward_step", "frozen_step") else forward)


def _differentiate(operation: Any, dy: Any, kind: Kind, step: str) -> list[Any]:
    """The gradients of x, gamma and beta; of `normalize_step` also those of mean and var."""
    training = step == "batch_norm_step"
    x, *others, settings = operation.inputs
    gamma, beta = others[:2] if training else others[2:]
    mean, var = operation.outputs[1:3] if training else others[:2]
    kept = x if kind is None else operation.outputs[0]
    backward = "backward_step" if training else "frozen_step"
    dx, dgamma, dbeta = call(backward, kind, (dy, x, kept, mean, var, gamma, settings))
    sums = [None if each.shape == [0] else sum_of for each, sum_of in ((gamma, dgamma), (beta, dbeta))]
    if training:
        return [dx, *sums, None, None, None]
    scale = tf.math.divide_no_nan(tf.ones_like(var), tf.sqrt(var + tf.cast(settings[1], var.dtype)))
    if gamma.shape != [0]:
        dvar = -0.5 * gamma * scale**2 * dgamma
        scale *= gamma
    else:
        dvar = -0.5 * scale**2 * dgamma
    return [dx, -scale * dbeta, dvar, *sums, None]
