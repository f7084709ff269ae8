"""Tensors and arrays on the same memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnumba._types import Array

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def array_of(tensor: Tensor | None) -> Any:
    """The array on a tensor's memory; None of None."""
    if tensor is None:
        return None
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(_bfloat16())


def features_of(tensor: Tensor | None) -> Any:
    """Parameters or statistics as an array of float64, maybe on the same memory; None of None."""
    if tensor is None:
        return None
    array = (tensor.detach() if tensor.element_size() > 2 else tensor.detach().float()).numpy()
    return array.astype(np.float64, copy=False)


def features_like(gamma: Tensor | None, array: Array) -> Tensor:
    """The tensor of an array of features, in gamma's dtype; float64 where gamma is None."""
    if gamma is None or gamma.dtype is torch.float64:
        return torch.from_numpy(array)
    if gamma.dtype is torch.float32:
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array).to(gamma.dtype)


def tensor_of(array: Array) -> Tensor:
    """The tensor on an array's memory."""
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def new(x: Tensor, needed: bool = True) -> Tensor:
    """A new tensor of x's shape, dtype and memory format, as PyTorch sees it; or an empty one."""
    if not needed:
        return x.new_empty(0)
    last = x.ndim in CHANNELS_LAST and not x.is_contiguous() and x.stride(1) == 1
    return torch.empty_like(x, memory_format=CHANNELS_LAST[x.ndim] if last else torch.contiguous_format)


def new_features(x: Tensor) -> Tensor:
    """A new tensor of axis 1's size, float64."""
    return x.new_empty(x.shape[1], dtype=torch.float64)


def _bfloat16() -> Any:
    try:
        from ml_dtypes import bfloat16  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tensors of bfloat16 need ml_dtypes: pip install 'bnnumba[half]'") from error
    return bfloat16
