"""Calls of a layer that PyTorch's own operations do faster, and those operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bnnumba.activations import LeakyRelu, Relu, Relu6, activation_of
from bnnumba.torch.checks import tensor_like
from bnnumba.torch.memory import HALF, ZERO

BEHIND = {Relu: functional.relu, Relu6: functional.relu6}


def hands_over(layer: Any, x: Tensor, features: tuple[Tensor | None, ...]) -> bool:
    """Whether PyTorch's operations are to do a call: a compiler makes one loop of them and their neighbours.

    They must mean the same: not with eps = 0, where PyTorch divides by 0, nor with mixtures of dtypes that it refuses.
    """
    if layer.exact or not torch.compiler.is_compiling():
        return False
    averages = layer.training and layer.momentum is None  # by a number in a tensor, which no graph of PyTorch's has
    if averages or layer.skip_nonfinite or layer.eps <= 0 or x.dtype not in ZERO:
        return False
    dtypes = {each.dtype for each in features if each is not None}
    return dtypes <= {x.dtype} or (x.element_size() == HALF and dtypes == {torch.float32})


def by_pytorch(layer: Any, x: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """Do as the layer, by PyTorch's operations."""
    y: Tensor = _BatchNorm.forward(layer, x)
    if residual is not None:
        tensor_like("residual", residual, x)
        y = y + residual
    act = activation_of(activation or None)
    if isinstance(act, LeakyRelu):
        return functional.leaky_relu(y, act.negative_slope)
    return y if act is None else BEHIND[type(act)](y)
