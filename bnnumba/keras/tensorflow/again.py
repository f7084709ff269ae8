"""Derivatives from the second on, by TensorFlow's own operations, in float64."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def differentiate_again(operation: Any, dd: tuple[Any, ...], kind: Any, *, frozen: bool) -> list[Any]:
    """The gradients of dy, x and gamma, and frozen those of mean and var, of a backward step.

    dd: the gradients of its dx, dgamma and dbeta. kind: the class of the activation, whose slopes are constant.
    """
    dy, x, y, mean, var, gamma, settings = operation.inputs
    inputs = [dy, x, gamma, *((mean, var) if frozen else ())]
    with tf.GradientTape() as tape:
        inputs = [tf.identity(each) for each in inputs]  # on which what is made here depends in this way only
        tape.watch(inputs)
        given = _behind(inputs[0], y, kind, settings)
        results = _backward(given, inputs[1], inputs[2], inputs[3:], settings, operation.outputs[1])
    found = tape.gradient(results, inputs, dd, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    ddy, dx, dgamma, *others = found
    return [ddy, dx, None, *(others or (None, None)), dgamma, None]


def _behind(dy: Any, y: Any, kind: Any, settings: Any) -> Any:
    """What the activation that gave y makes of dy."""
    if kind is None:
        return dy
    below = tf.cast(settings[3], dy.dtype) * dy
    passed = tf.where(y > 0, dy, below if kind._fields else tf.zeros_like(dy))
    return tf.where(y < 6, passed, tf.zeros_like(dy)) if kind.__name__ == "Relu6" else passed


def _backward(dy: Any, x: Any, gamma: Any, constants: list[Any], settings: Any, like: Any) -> list[Any]:
    """Return dx, dgamma and dbeta as functions of all others. constants: mean and var, if they are no functions of x.

    like: what dgamma and dbeta are like.
    """
    sizes, axis = tf.shape(x), tf.cast(settings[0], tf.int32)
    shape = [tf.reduce_prod(sizes[:axis]), sizes[axis], tf.reduce_prod(sizes[axis + 1 :])]
    dy3, x3 = (tf.cast(tf.reshape(each, shape), tf.float64) for each in (dy, x))
    if constants:
        mean, var = (tf.cast(each, tf.float64)[:, tf.newaxis] for each in constants)
    else:
        mean = tf.reduce_mean(x3, [0, 2], keepdims=True)
        var = tf.reduce_mean((x3 - mean) ** 2, [0, 2], keepdims=True)
    spread = var + settings[1]
    nothing = tf.equal(spread, 0)
    rstd = tf.where(nothing, tf.zeros_like(spread), tf.math.rsqrt(tf.where(nothing, tf.ones_like(spread), spread)))
    x_hat = (x3 - mean) * rstd
    dbeta, dgamma = (tf.reduce_sum(each, [0, 2], keepdims=True) for each in (dy3, dy3 * x_hat))
    if not constants:
        dy3 -= (dbeta + x_hat * dgamma) / tf.cast(shape[0] * shape[2], tf.float64)
    dx = dy3 * rstd if gamma.shape == [0] else dy3 * rstd * tf.cast(gamma, tf.float64)[:, tf.newaxis]
    sums = [tf.cast(tf.reshape(each, [-1]), like.dtype) for each in (dgamma, dbeta)]
    return [tf.cast(tf.reshape(dx, sizes), x.dtype), *sums]
