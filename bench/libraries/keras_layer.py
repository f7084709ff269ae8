"""Keras's layer on TensorFlow, inside `tf.function`: what a Keras model runs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.cases import EPSILON, Problem
from bench.library import Library
from bench.quiet_tensorflow import tf

import keras  # isort: skip  # after quiet_tensorflow, which sets the environment


class Layer(Library):
    """keras.layers.BatchNormalization; gradients by tf.GradientTape.

    Each entry has its own layer, because a training call changes the moving statistics.
    """

    version = keras.__version__

    def __init__(self, problem: Problem) -> None:
        shape, self.axis = problem.case.single_axis
        self.x, self.dy = (tf.constant(array.reshape(shape)) for array in (problem.x, problem.dy))
        self.reduced = [other for other in range(len(shape)) if other != self.axis]
        self.residual = problem.residual
        self.weights = [f.ravel() for f in problem.features]

    def moments(self) -> Callable:
        # The layer itself calls this.
        return partial(tf.function(partial(keras.ops.moments, axes=self.reduced)), self.x)

    def inference(self) -> Callable:
        return partial(tf.function(self._layer()), self.x, training=False)

    def training_forward(self) -> Callable:
        return partial(tf.function(self._layer()), self.x, training=True)

    def backward(self) -> Callable:
        return self._backward(training=True)

    def frozen_backward(self) -> Callable:
        return self._backward(training=False)

    def forward_backward(self) -> Callable:
        layer = self._layer()

        @tf.function
        def run(x: Any, dy: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return [y, *tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)]

        return partial(run, self.x, self.dy)

    def residual_relu(self) -> Callable:
        layer, residual = self._layer(), tf.constant(self.residual.reshape(self.x.shape))

        @tf.function
        def run(x: Any, residual: Any, dy: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch((x, residual))
                y = tf.nn.relu(layer(x, training=True) + residual)
            return [y, *tape.gradient(y, [x, layer.gamma.value, layer.beta.value, residual], dy)]

        return partial(run, self.x, residual, self.dy)

    def _backward(self, training: bool) -> Callable:
        """Record the forward once; every call then runs its compiled gradient."""
        layer = self._layer()
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.x)
            y = tf.function(layer)(self.x, training=training)
        return partial(tape.gradient, y, [self.x, layer.gamma.value, layer.beta.value], self.dy)

    def _layer(self) -> keras.layers.Layer:
        layer = keras.layers.BatchNormalization(axis=self.axis, epsilon=EPSILON)
        layer.build(self.x.shape)
        layer.set_weights(self.weights)
        return layer
