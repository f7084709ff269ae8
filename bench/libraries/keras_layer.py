"""Keras's layer on TensorFlow, inside `tf.function`: what a Keras model runs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.cases import EPSILON, Problem
from bench.libraries import Library
from bench.libraries.quiet_tensorflow import tf

import keras  # isort: skip  # must come after TensorFlow was made quiet


class Layer(Library):
    """keras.layers.BatchNormalization; gradients by tf.GradientTape. Its training call moves its moving statistics."""

    version = keras.__version__

    def __init__(self, problem: Problem) -> None:
        shape, axis = problem.case.single_axis
        self.x, self.dy = (tf.constant(array.reshape(shape)) for array in (problem.x, problem.dy))
        self.reduced = [other for other in range(len(shape)) if other != axis]
        layer = keras.layers.BatchNormalization(axis=axis, epsilon=EPSILON)
        layer.build(shape)
        layer.set_weights([f.ravel() for f in problem[3:]])
        self.call = tf.function(layer)
        self.weights = [layer.gamma.value, layer.beta.value]

    def moments(self) -> Callable:
        # what the layer itself calls
        return partial(tf.function(partial(keras.ops.moments, axes=self.reduced)), self.x)

    def inference(self) -> Callable:
        return partial(self.call, self.x, training=False)

    def training_forward(self) -> Callable:
        return partial(self.call, self.x, training=True)

    def backward(self) -> Callable:
        return self._backward(training=True)

    def frozen_backward(self) -> Callable:
        return self._backward(training=False)

    def forward_backward(self) -> Callable:
        @tf.function
        def run(x: Any, dy: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = self.call(x, training=True)
            return [y, *tape.gradient(y, [x, *self.weights], dy)]

        return partial(run, self.x, self.dy)

    def _backward(self, training: bool) -> Callable:
        """The forward is recorded once; its compiled gradient then runs as often as it is asked for."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.x)
            y = self.call(self.x, training=training)
        return partial(tape.gradient, y, [self.x, *self.weights], self.dy)
