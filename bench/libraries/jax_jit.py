"""JAX on its CPU device: plain formulas under `jit`, which XLA fuses."""

import os
from collections.abc import Callable
from typing import Any

from bench.cases import EPSILON, Problem
from bench.library import Library
from bench.machine import CORES, THREADS

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if THREADS != CORES:
    os.environ["NPROC"] = str(THREADS)  # sets the size of XLA's thread pool, for which JAX has no option

import jax
import jax.numpy as jnp


class Compiled(Library):
    """One compiled function for each pass, with its arguments and results on the device. A call waits for the results.

    The variance is E[x**2] - mean**2, as Flax computes it by default: the fastest here, and the least exact. The
    gradients are written out, which takes two thirds of the time that `jax.vjp` of the forward takes.
    """

    version = jax.__version__

    def __init__(self, problem: Problem) -> None:
        self.reduced, self.count = problem.case.reduced, problem.case.count
        self.residual = problem.residual
        self.x, self.dy = jax.device_put((problem.x, problem.dy))
        features = (jnp.expand_dims(f, self.reduced) for f in problem.features)
        self.gamma, self.beta, self.mean, self.var = features

    def moments(self) -> Callable:
        return _entry(self._moments, self.x)

    def inference(self) -> Callable:
        return _entry(_normalize, self.x, self.mean, self.var, self.gamma, self.beta)

    def training_forward(self) -> Callable:
        def forward(x: Any, gamma: Any, beta: Any) -> Any:
            return _normalize(x, *self._moments(x), gamma, beta)

        return _entry(forward, self.x, self.gamma, self.beta)

    def backward(self) -> Callable:
        mean, var = self.moments()()
        return _entry(self._backward, self.dy, self.x, mean, var, self.gamma)

    def frozen_backward(self) -> Callable:
        return _entry(self._frozen_backward, self.dy, self.x, self.mean, self.var, self.gamma)

    def forward_backward(self) -> Callable:
        def both(dy: Any, x: Any, gamma: Any, beta: Any) -> tuple[Any, ...]:
            mean, var = self._moments(x)
            return _normalize(x, mean, var, gamma, beta), *self._backward(dy, x, mean, var, gamma)

        return _entry(both, self.dy, self.x, self.gamma, self.beta)

    def residual_relu(self) -> Callable:
        def both(dy: Any, x: Any, residual: Any, gamma: Any, beta: Any) -> tuple[Any, ...]:
            mean, var = self._moments(x)
            y = jnp.maximum(_normalize(x, mean, var, gamma, beta) + residual, 0)
            dresidual = jnp.where(y > 0, dy, 0)
            return y, *self._backward(dresidual, x, mean, var, gamma), dresidual

        return _entry(both, self.dy, self.x, jax.device_put(self.residual), self.gamma, self.beta)

    def _moments(self, x: Any) -> tuple[Any, Any]:
        mean = x.mean(self.reduced, keepdims=True)
        return mean, jnp.maximum((x * x).mean(self.reduced, keepdims=True) - mean * mean, 0)

    def _backward(self, dy: Any, x: Any, mean: Any, var: Any, gamma: Any) -> tuple[Any, ...]:
        scaled, dgamma, dbeta = self._frozen_backward(dy, x, mean, var, gamma)
        rstd = jax.lax.rsqrt(var + EPSILON)
        return scaled - gamma * rstd * (dbeta + (x - mean) * rstd * dgamma) / self.count, dgamma, dbeta

    def _frozen_backward(self, dy: Any, x: Any, mean: Any, var: Any, gamma: Any) -> tuple[Any, ...]:
        rstd = jax.lax.rsqrt(var + EPSILON)
        dbeta = dy.sum(self.reduced, keepdims=True)
        dgamma = ((dy * x).sum(self.reduced, keepdims=True) - mean * dbeta) * rstd
        return gamma * rstd * dy, dgamma, dbeta


def _entry(function: Callable, *arguments: Any) -> Callable:
    """Compile. Each call donates the results of the last call, so that XLA writes into their memory."""
    compiled = jax.jit(lambda _, *arguments: function(*arguments), donate_argnums=0, keep_unused=True)
    results = jax.jit(function)(*arguments)

    def run() -> Any:
        nonlocal results
        results = jax.block_until_ready(compiled(results, *arguments))
        return results

    return run


def _normalize(x: Any, mean: Any, var: Any, gamma: Any, beta: Any) -> Any:
    return (x - mean) * (gamma * jax.lax.rsqrt(var + EPSILON)) + beta
