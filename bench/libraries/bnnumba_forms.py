"""bnnumba twice: its public functions, and its kernels as a caller's own compiled code runs them."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numba
import numpy as np

import bnnumba
from bench.cases import DTYPES, EPSILON, Problem
from bench.library import Library
from bench.machine import THREADS
from bnnumba.activations import NAMED
from bnnumba.axes import canonical_view
from bnnumba.kernels import serial

RELU = NAMED["relu"]

numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))


class Functions(Library):
    """The public functions, with their checks and views. They start threads where the data is large enough."""

    version = bnnumba.__version__
    dtypes = DTYPES

    def __init__(self, problem: Problem) -> None:
        doubles = {name: getattr(problem, name).astype(np.float64) for name in ("gamma", "beta", "mean", "var")}
        self.problem = problem._replace(**doubles)  # like our own moments; float32 would be converted in every call
        self.y, self.dx = np.full_like(problem.x, np.nan), np.full_like(problem.x, np.nan)

    def moments(self) -> Callable:
        return partial(bnnumba.moments, self.problem.x, self.problem.case.feature_axis)

    def inference(self) -> Callable:
        case, x, _, gamma, beta, mean, var = self.problem
        return partial(bnnumba.normalize, x, mean, var, gamma, beta, case.feature_axis, epsilon=EPSILON, out=self.y)

    def training_forward(self) -> Callable:
        case, x, _, gamma, beta, _, _ = self.problem
        return partial(bnnumba.batch_norm, x, gamma, beta, case.feature_axis, epsilon=EPSILON, out=self.y)

    def backward(self) -> Callable:
        mean, var, _ = bnnumba.moments(self.problem.x, self.problem.case.feature_axis)
        return self._backward(mean, var, frozen=False)

    def frozen_backward(self) -> Callable:
        return self._backward(self.problem.mean, self.problem.var, frozen=True)

    def forward_backward(self) -> Callable:
        case, x, dy, gamma, beta, _, _ = self.problem

        def run() -> tuple[np.ndarray, ...]:
            y, (mean, var, _) = bnnumba.batch_norm(x, gamma, beta, case.feature_axis, epsilon=EPSILON, out=self.y)
            return y, *bnnumba.batch_norm_backward(
                dy, x, mean, var, gamma, case.feature_axis, epsilon=EPSILON, out=self.dx
            )

        return run

    def residual_relu(self) -> Callable:
        case, x, dy, gamma, beta, _, _ = self.problem
        residual = self.problem.residual
        common = {"epsilon": EPSILON, "activation": "relu"}

        def run() -> tuple[np.ndarray, ...]:
            y, (mean, var, _) = bnnumba.batch_norm(
                x, gamma, beta, case.feature_axis, **common, residual=residual, out=self.y
            )
            return y, *bnnumba.batch_norm_backward(
                dy, x, mean, var, gamma, case.feature_axis, **common, y=y, residual=True, out=self.dx
            )

        return run

    def double_backward(self) -> Callable:
        case, x, dy, gamma, _, _, _ = self.problem
        mean, var, _ = bnnumba.moments(x, case.feature_axis)
        given = self.problem.ddx, None, None, dy, x, mean, var, gamma, case.feature_axis
        return partial(bnnumba.batch_norm_double_backward, *given, epsilon=EPSILON)

    def _backward(self, mean: np.ndarray, var: np.ndarray, frozen: bool) -> Callable:
        case, x, dy, gamma, _, _, _ = self.problem
        return partial(
            bnnumba.batch_norm_backward,
            *(dy, x, mean, var, gamma, case.feature_axis),
            epsilon=EPSILON,
            frozen=frozen,
            out=self.dx,
        )


class SerialKernels(Library):
    """The kernels without threads, on canonical arrays, without checks: what a caller's own `prange` calls."""

    version = bnnumba.__version__
    dtypes = DTYPES
    missing: ClassVar = {"double_backward": "no single kernel does it"}

    def __init__(self, problem: Problem) -> None:
        view = canonical_view(problem.x, problem.case.feature_axis)
        self.x, self.dy, self.residual = (view.of(a) for a in (problem.x, problem.dy, problem.residual))
        self.gamma, self.beta, self.mean, self.var = (view.flatten(f) for f in problem.features)
        self.y, self.dx = np.full_like(self.x, np.nan), np.full_like(self.x, np.nan)

    def moments(self) -> Callable:
        return partial(serial.moments, self.x)

    def inference(self) -> Callable:
        def run() -> np.ndarray:
            serial.normalize(self.x, self.mean, self.var, self.gamma, self.beta, EPSILON, self.y)
            return self.y

        return run

    def training_forward(self) -> Callable:
        def run() -> np.ndarray:
            serial.batch_norm(self.x, self.gamma, self.beta, EPSILON, self.y)
            return self.y

        return run

    def backward(self) -> Callable:
        mean, var = serial.moments(self.x)
        return lambda: self._backward(serial.batch_norm_backward, mean, var)

    def frozen_backward(self) -> Callable:
        return lambda: self._backward(serial.frozen_backward, self.mean, self.var)

    def forward_backward(self) -> Callable:
        def run() -> tuple[np.ndarray, ...]:
            mean, var = serial.batch_norm(self.x, self.gamma, self.beta, EPSILON, self.y)
            return self.y, *self._backward(serial.batch_norm_backward, mean, var)

        return run

    def residual_relu(self) -> Callable:
        residual, dresidual = self.residual, np.full_like(self.x, np.nan)
        mean, var, dgamma, dbeta = np.empty((4, self.x.shape[1]))

        def run() -> tuple[np.ndarray, ...]:
            serial.batch_norm_into(self.x, self.gamma, self.beta, EPSILON, self.y, mean, var, residual, RELU)
            serial.batch_norm_backward_into(
                *(self.dy, self.x, mean, var, self.gamma, EPSILON, self.dx, dgamma, dbeta), dresidual, RELU, self.y
            )
            return self.y, self.dx, dgamma, dbeta, dresidual

        return run

    def _backward(self, kernel: Callable, mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, ...]:
        dgamma, dbeta = kernel(self.dy, self.x, mean, var, self.gamma, EPSILON, self.dx)
        return self.dx, dgamma, dbeta
