"""NumPy, as who knows it well would write it: few sweeps, in place, into buffers that exist. It has no threads here."""

from collections.abc import Callable
from string import ascii_lowercase

import numpy as np

from bench.cases import EPSILON, Problem
from bench.libraries import Library


class Plain(Library):
    """Whole-array operations; sums of products by einsum, which needs no array for the products."""

    version = np.__version__

    def __init__(self, problem: Problem) -> None:
        case = problem.case
        self.x, self.dy = problem.x, problem.dy
        self.gamma, self.beta, self.mean, self.var = (np.expand_dims(f, case.reduced) for f in problem[3:])
        self.y, self.dx = np.full_like(self.x, np.nan), np.full_like(self.x, np.nan)
        self.axes, self.count = case.reduced, case.count
        data = ascii_lowercase[: self.x.ndim]
        self.subscripts = f"{data},{data}->{''.join(data[axis] for axis in case.kept)}"

    def moments(self) -> Callable:
        return lambda: self._centre(self.y)

    def inference(self) -> Callable:
        def run() -> np.ndarray:
            scale = self.gamma / np.sqrt(self.var + EPSILON)
            np.multiply(self.x, scale, out=self.y)
            return np.add(self.y, self.beta - self.mean * scale, out=self.y)

        return run

    def training_forward(self) -> Callable:
        return lambda: self._forward()[0]

    def backward(self) -> Callable:
        _, mean, var = self._forward()
        return lambda: self._backward(mean, var)

    def frozen_backward(self) -> Callable:
        def run() -> tuple[np.ndarray, ...]:
            rstd = 1 / np.sqrt(self.var + EPSILON)
            dbeta = self.dy.sum(self.axes, keepdims=True)
            dgamma = (self._dot(self.dy, self.x) - dbeta * self.mean) * rstd
            return np.multiply(self.dy, self.gamma * rstd, out=self.dx), dgamma, dbeta

        return run

    def forward_backward(self) -> Callable:
        def run() -> tuple[np.ndarray, ...]:
            y, mean, var = self._forward()
            return y, *self._backward(mean, var)

        return run

    def _dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The sum of a*b for every feature."""
        return np.expand_dims(np.einsum(self.subscripts, a, b), self.axes)

    def _centre(self, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fill out = x - mean(x)."""
        mean = self.x.mean(self.axes, keepdims=True)
        np.subtract(self.x, mean, out=out)
        return mean, self._dot(out, out) / self.count

    def _forward(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, var = self._centre(self.y)
        np.multiply(self.y, self.gamma / np.sqrt(var + EPSILON), out=self.y)
        return np.add(self.y, self.beta, out=self.y), mean, var

    def _backward(self, mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dx, rstd = self.dx, 1 / np.sqrt(var + EPSILON)
        dbeta = self.dy.sum(self.axes, keepdims=True)
        np.subtract(self.x, mean, out=dx)
        dgamma = self._dot(self.dy, dx) * rstd
        np.multiply(dx, -dgamma * rstd / self.count, out=dx)
        np.add(dx, self.dy, out=dx)
        np.subtract(dx, dbeta / self.count, out=dx)
        return np.multiply(dx, self.gamma * rstd, out=dx), dgamma, dbeta
