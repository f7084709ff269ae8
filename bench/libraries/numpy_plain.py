"""NumPy, without threads. `python -m bnnumba` compares itself with the same training step."""

from collections.abc import Callable

import numpy as np

from bench.cases import DTYPES, EPSILON, Problem
from bench.library import Library
from bnnumba.command.whole_arrays import WholeArrays


class Plain(Library):
    """Operations on whole arrays, in place."""

    version = np.__version__
    dtypes = DTYPES

    def __init__(self, problem: Problem) -> None:
        reduced = problem.case.reduced
        self.gamma, self.beta, self.mean, self.var = (np.expand_dims(f, reduced) for f in problem.features)
        self.residual = problem.residual
        self.arrays = WholeArrays(problem.x, problem.dy, self.gamma, self.beta, reduced, EPSILON)

    def moments(self) -> Callable:
        return lambda: self.arrays.centre(self.arrays.y)

    def inference(self) -> Callable:
        x, y = self.arrays.x, self.arrays.y

        def run() -> np.ndarray:
            scale = self.gamma / np.sqrt(self.var + EPSILON)
            np.multiply(x, scale, out=y)
            return np.add(y, self.beta - self.mean * scale, out=y)

        return run

    def training_forward(self) -> Callable:
        return lambda: self.arrays.train()[0]

    def backward(self) -> Callable:
        _, mean, var = self.arrays.train()
        return lambda: self.arrays.differentiate(mean, var)

    def frozen_backward(self) -> Callable:
        x, dy, dx, axes, dot = self.arrays.x, self.arrays.dy, self.arrays.dx, self.arrays.axes, self.arrays.dot

        def run() -> tuple[np.ndarray, ...]:
            rstd = 1 / np.sqrt(self.var + EPSILON)
            dbeta = dy.sum(axes, keepdims=True)
            dgamma = (dot(dy, x) - dbeta * self.mean) * rstd
            return np.multiply(dy, self.gamma * rstd, out=dx), dgamma, dbeta

        return run

    def forward_backward(self) -> Callable:
        def run() -> tuple[np.ndarray, ...]:
            y, mean, var = self.arrays.train()
            return y, *self.arrays.differentiate(mean, var)

        return run

    def residual_relu(self) -> Callable:
        residual, dresidual, dy = self.residual, np.full_like(self.arrays.x, np.nan), self.arrays.dy

        def run() -> tuple[np.ndarray, ...]:
            y, mean, var = self.arrays.train()
            np.maximum(np.add(y, residual, out=y), 0, out=y)
            self.arrays.dy = np.multiply(dy, y > 0, out=dresidual)
            return y, *self.arrays.differentiate(mean, var), dresidual

        return run
