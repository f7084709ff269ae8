"""PyTorch's native operations, without autograd except for a residual with ReLU and for second derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.cases import DTYPES, EPSILON, Problem
from bench.library import Library
from bench.machine import THREADS

torch.set_num_threads(THREADS)

MOMENTUM = 0.1  # without effect: where it would be used, no moving statistics are passed
ALL = (True, True, True)  # dx, dgamma and dbeta are all needed


class NativeOps(Library):
    """torch.native_batch_norm and its backward. Images with channels last keep that order in memory.

    Data may be float32, float64 or bfloat16; gamma, beta and the moving statistics are float32, or float64 with it.
    """

    version = torch.__version__
    dtypes = DTYPES

    def __init__(self, problem: Problem) -> None:
        self.shape, self.axis = problem.case.single_axis
        self.x, self.dy = self._tensor(problem.x), self._tensor(problem.dy)
        self.residual, self.ddx = problem.residual, problem.ddx
        self.gamma, self.beta, self.mean, self.var = (torch.from_numpy(f.ravel()) for f in problem.features)

    def fetch(self, value: torch.Tensor) -> np.ndarray:
        value = value if value.dtype == torch.float64 else value.float()
        return value.movedim(1, self.axis).numpy() if value.ndim > 1 else value.numpy()

    def moments(self) -> Callable:
        return partial(torch.ops.aten.batch_norm_update_stats, self.x, None, None, MOMENTUM)

    def inference(self) -> Callable:
        return self._forward(self.mean, self.var, training=False)

    def training_forward(self) -> Callable:
        return self._forward(None, None, training=True)

    def backward(self) -> Callable:
        _, mean, rstd = self.training_forward()()
        return partial(self._backward, None, None, mean, rstd, True)

    def frozen_backward(self) -> Callable:
        return partial(self._backward, self.mean, self.var, None, None, False)

    def forward_backward(self) -> Callable:
        forward = self.training_forward()

        def run() -> tuple[Any, ...]:
            y, mean, rstd = forward()
            return y, *self._backward(None, None, mean, rstd, True)

        return run

    def residual_relu(self) -> Callable:
        """Use autograd, in place where possible: PyTorch has no single operation for this on the CPU."""
        leaves = [t.clone().requires_grad_() for t in (self.x, self.gamma, self.beta, self._tensor(self.residual))]
        x, gamma, beta, residual = leaves

        def run() -> tuple[Any, ...]:
            y = torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, MOMENTUM, EPSILON)
            y = torch.relu_(y.add_(residual))
            return y.detach(), *torch.autograd.grad(y, leaves, self.dy)

        return run

    def double_backward(self) -> Callable:
        """Use autograd; the graph of the gradient is kept."""
        leaves = [t.clone().requires_grad_() for t in (self.dy, self.x, self.gamma)]
        dy, x, gamma = leaves
        y = torch.nn.functional.batch_norm(x, None, None, gamma, self.beta, True, MOMENTUM, EPSILON)
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        return partial(torch.autograd.grad, dx, leaves, self._tensor(self.ddx), retain_graph=True)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """The array with PyTorch's order of axes and its own order in memory. The clone is aligned by PyTorch."""
        if array.dtype.name == "bfloat16":  # ml_dtypes' type, which torch.from_numpy refuses
            tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        return tensor.reshape(self.shape).movedim(self.axis, 1).clone()

    def _forward(self, mean: Any, var: Any, training: bool) -> Callable:
        return partial(torch.native_batch_norm, self.x, self.gamma, self.beta, mean, var, training, MOMENTUM, EPSILON)

    def _backward(self, mean: Any, var: Any, batch_mean: Any, batch_rstd: Any, training: bool) -> Any:
        return torch.ops.aten.native_batch_norm_backward(
            self.dy, self.x, self.gamma, mean, var, batch_mean, batch_rstd, training, EPSILON, ALL
        )
