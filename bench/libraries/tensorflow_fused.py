"""TensorFlow's fused operation, called eagerly: a `tf.function` around a single operation costs more."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, ClassVar

from bench.cases import EPSILON, Case, Problem
from bench.library import Library
from bench.quiet_tensorflow import tf


class FusedOp(Library):
    """tf.raw_ops.FusedBatchNormV3 and its gradient. All reduced axes become rows: (rows, 1, 1, features)."""

    version = tf.__version__
    missing: ClassVar = {
        "moments": "the fused operation does not stop at the moments",
        "residual_relu": "on the CPU the fused operation takes no residual",
    }

    def __init__(self, problem: Problem) -> None:
        features = problem.case.feature_shape
        data = (prod(problem.case.shape) // prod(features), 1, 1, prod(features))
        self.x, self.dy = (tf.constant(array.reshape(data)) for array in (problem.x, problem.dy))
        self.gamma, self.beta, self.mean, self.var = (tf.constant(f.ravel()) for f in problem.features)

    @classmethod
    def refuses(cls, case: Case) -> str:
        return "" if case.channels_last else "on the CPU the fused operation takes channels last only"

    def inference(self) -> Callable:
        return self._forward(self.mean, self.var, is_training=False)

    def training_forward(self) -> Callable:
        none = tf.constant([], tf.float32)
        return self._forward(none, none, is_training=True)

    def backward(self) -> Callable:
        saved = self.training_forward()()
        return partial(self._gradient, saved.reserve_space_1, saved.reserve_space_2, is_training=True)

    def frozen_backward(self) -> Callable:
        return partial(self._gradient, self.mean, self.var, is_training=False)

    def forward_backward(self) -> Callable:
        forward = self.training_forward()

        def run() -> tuple[Any, ...]:
            saved = forward()
            return saved.y, *self._gradient(saved.reserve_space_1, saved.reserve_space_2, is_training=True)

        return run

    def _forward(self, mean: Any, var: Any, is_training: bool) -> Callable:
        return partial(
            tf.raw_ops.FusedBatchNormV3,
            x=self.x,
            scale=self.gamma,
            offset=self.beta,
            mean=mean,
            variance=var,
            epsilon=EPSILON,
            is_training=is_training,
        )

    def _gradient(self, mean: Any, var: Any, is_training: bool) -> Any:
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=self.dy,
            x=self.x,
            scale=self.gamma,
            reserve_space_1=mean,
            reserve_space_2=var,
            reserve_space_3=mean,  # read only on a GPU
            epsilon=EPSILON,
            is_training=is_training,
        )[:3]
