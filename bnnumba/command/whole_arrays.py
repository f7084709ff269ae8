"""NumPy's batch normalization, as who knows it well would write it: few sweeps, in place, into buffers that exist."""

from string import ascii_lowercase
from typing import Any

import numpy as np

from bnnumba._types import Array


class WholeArrays:
    """Whole-array operations; sums of products by einsum, which needs no array for the products.

    gamma and beta broadcast against x. y and dx are the buffers.
    """

    def __init__(self, x: Array, dy: Array, gamma: Any, beta: Any, reduced: tuple[int, ...], epsilon: float) -> None:
        self.x, self.dy, self.gamma, self.beta, self.epsilon = x, dy, gamma, beta, epsilon
        self.y, self.dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
        self.axes = reduced
        self.count = int(np.prod([x.shape[axis] for axis in reduced]))
        data = ascii_lowercase[: x.ndim]
        kept = "".join(data[axis] for axis in range(x.ndim) if axis not in reduced)
        self.subscripts = f"{data},{data}->{kept}"

    def train(self) -> tuple[Array, Array, Array]:
        """Return y, mean and var."""
        mean, var = self.centre(self.y)
        np.multiply(self.y, self.gamma / np.sqrt(var + self.epsilon), out=self.y)
        return np.add(self.y, self.beta, out=self.y), mean, var

    def differentiate(self, mean: Array, var: Array) -> tuple[Array, Array, Array]:
        """Return dx, dgamma and dbeta."""
        dx, rstd = self.dx, 1 / np.sqrt(var + self.epsilon)
        dbeta = self.dy.sum(self.axes, keepdims=True)
        np.subtract(self.x, mean, out=dx)
        dgamma = self.dot(self.dy, dx) * rstd
        np.multiply(dx, -dgamma * rstd / self.count, out=dx)
        np.add(dx, self.dy, out=dx)
        np.subtract(dx, dbeta / self.count, out=dx)
        return np.multiply(dx, self.gamma * rstd, out=dx), dgamma, dbeta

    def dot(self, a: Array, b: Array) -> Array:
        """The sum of a*b for every feature."""
        total: Array = np.expand_dims(np.einsum(self.subscripts, a, b), self.axes)
        return total

    def centre(self, out: Array) -> tuple[Array, Array]:
        """Fill out = x - mean(x); return mean and var."""
        mean = self.x.mean(self.axes, keepdims=True)
        np.subtract(self.x, mean, out=out)
        return mean, self.dot(out, out) / self.count
