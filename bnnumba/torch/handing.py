"""Calls of a layer that PyTorch's own operations do faster, and those operations.

Under torch.compile that is every call, as a compiler makes one loop of them and their neighbours. Else it is a small
one: what PyTorch does around a kernel in C++, we do in Python.
"""

from __future__ import annotations

from itertools import starmap
from operator import call
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bnnumba.activations import activation_of
from bnnumba.torch.checks import tensor_like
from bnnumba.torch.memory import HALF, ZERO
from bnnumba.torch.registry import watched

Features = tuple[Tensor | None, ...]  # weight, bias, running_mean, running_var

BEHIND = {"relu": functional.relu, "relu6": functional.relu6}  # by what `text_of` writes; else it is a leaky ReLU

# Elements of x: with more, a call is faster here (Zen 3). In training, with its gradient, and at inference.
# With an activation or a residual, which we fuse, a third of that.
SMALL_STEP, SMALL_INFERENCE = 2**17, 3 * 2**17


def hands_over(layer: Any, x: Tensor, features: Features, alone: bool) -> bool:
    """Whether PyTorch's operations are to do a call. alone: without an activation and a residual.

    They must mean the same: not with eps = 0, where PyTorch divides by 0, nor where PyTorch has other errors.
    """
    if layer.exact or layer.skip_nonfinite or layer.eps <= 0.0:
        return False
    if torch.compiler.is_compiling():
        averages = layer.training and layer.momentum is None  # by a number in a tensor, which no graph of theirs has
        return not averages and _of_fitting_dtypes(x, features)
    most = SMALL_STEP if layer.training else SMALL_INFERENCE
    small = 0 < x.numel() <= (most if alone else most // 3)
    return small and x.dtype is torch.float32 and x.is_cpu and not watched(x) and _are_single(features, x.shape[1])


def by_pytorch(layer: Any, x: Tensor, residual: Tensor | None, activation: str, features: Features) -> Tensor:
    """Do as the layer, by PyTorch's operations."""
    if residual is not None:
        tensor_like("residual", residual, x)  # before anything has moved
    if torch.compiler.is_compiling() or layer.momentum is None:
        y: Tensor = _BatchNorm.forward(layer, x)
    else:
        y = _small(layer, x, features)
    if residual is not None:
        y = y + residual
    if not activation:
        return y
    if activation in BEHIND:
        return BEHIND[activation](y)
    act: Any = activation_of(activation)
    return functional.leaky_relu(y, act.negative_slope)


def _small(layer: Any, x: Tensor, features: Features) -> Tensor:
    """Do as PyTorch's layer, in fewer steps of Python; what changes does so in one."""
    weight, bias, mean, var = features
    running = mean is not None
    by_batch = layer.training or not running
    moves = layer.training and layer.track_running_stats and running
    if not (moves or not by_batch):
        mean = var = None
    batches = layer._batches() if moves else None
    y: Tensor
    if batches is None:
        y = torch.batch_norm(x, weight, bias, mean, var, by_batch, layer.momentum, layer.eps, False)
    else:
        step = torch.batch_norm, x, weight, bias, mean, var, by_batch, layer.momentum, layer.eps, False
        y, _ = starmap(call, (step, (batches.add_, 1)))
    return y


def _of_fitting_dtypes(x: Tensor, features: Features) -> bool:
    """Whether PyTorch takes features of these dtypes with x."""
    dtypes = {each.dtype for each in features if each is not None}
    return x.dtype in ZERO and (dtypes <= {x.dtype} or (x.element_size() == HALF and dtypes == {torch.float32}))


def _are_single(features: Features, channels: int) -> bool:
    """Whether features are plain float32 for so many channels, running statistics both or none.

    Running statistics that share one place in memory, as expanded ones do, PyTorch would write without a word.
    """
    for each in features:
        if each is None:
            continue
        if each.dtype is not torch.float32 or each.shape != (channels,) or not (each.is_cpu and each.is_contiguous()):
            return False
    return (features[2] is None) is (features[3] is None)
