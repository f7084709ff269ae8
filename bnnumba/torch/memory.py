"""The memory of tensors: where it is, and in which order; new tensors; and arrays on the same."""

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnumba.torch import checks

HALF = 2  # bytes of an element
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
ZERO = {  # in the dtype that kernels know the data's by
    torch.float32: np.float32(0),
    torch.float64: np.float64(0),
    torch.bfloat16: np.int16(0),
    torch.float16: np.uint16(0),
}
WIDE = {torch.float32: False, torch.float64: True}  # the dtypes that kernels read features in
LEAST_ADDRESS = 2**40  # what is lower may be an offset into no memory

Features = tuple[Tensor | None, int, bool]  # the address of its memory, and whether it is float64


def zero_of(name: str, x: Tensor) -> Any:
    """0 in the dtype that kernels know x's by."""
    if x.dtype not in ZERO or not x.is_cpu:
        checks.tensor(name, x, ZERO)
    return ZERO[x.dtype]


def layout_of(x: Tensor) -> tuple[torch.memory_format, tuple[int, int, int]]:
    """The memory format that PyTorch gives what it makes of x; and x's canonical shape in it, axis 1 being features."""
    batch, channels, *positions = x.shape
    inner = prod(positions)
    contiguous = x.is_contiguous() and batch * channels * inner > 0  # what is empty always is
    if contiguous or x.ndim not in CHANNELS_LAST or x.stride(1) != 1:
        return torch.contiguous_format, (batch, channels, inner)
    return CHANNELS_LAST[x.ndim], (batch * inner, channels, 1)


def dense(tensor: Tensor, order: torch.memory_format) -> Tensor:
    """The tensor itself, or a copy in this order."""
    tensor = tensor.contiguous(memory_format=order)
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def dense_like(name: str, tensor: Tensor, x: Tensor, order: torch.memory_format) -> Tensor:
    """Check that a tensor goes with x; and return it, or a copy, in this order."""
    checks.tensor_like(name, tensor, x)
    return dense(tensor, order)


def new(x: Tensor, order: torch.memory_format) -> Tensor:
    """A new tensor of x's shape and dtype in this order."""
    return torch.empty_like(x, memory_format=order)


def address(name: str, tensor: Tensor) -> int:
    """Where a tensor's memory is; where it needs none, any number."""
    place: int = tensor.data_ptr()
    if place < LEAST_ADDRESS:
        checks.allocated(name, tensor)
    return place


def features(name: str, tensor: Tensor | None, channels: int) -> Features:
    """Features as kernels take them: contiguous, in float32 or float64; None of None."""
    if tensor is None:
        return None, 0, False
    wide = WIDE.get(tensor.dtype)
    if wide is None or tensor.shape != (channels,) or not (tensor.is_cpu and tensor.is_contiguous()) or tensor.is_neg():
        checks.features_tensor(name, tensor, channels)
        tensor = (tensor.float() if wide is None else tensor).resolve_neg().contiguous()
        wide = WIDE[tensor.dtype]
    return tensor, address(name, tensor), wide


def array_of(tensor: Tensor | None) -> Any:
    """The array on a tensor's memory, or one of float32 for half precision; None of None."""
    if tensor is None:
        return None
    tensor = tensor.detach().resolve_neg()
    return (tensor if tensor.element_size() > HALF else tensor.float()).numpy()


class _Memory:
    """A dense tensor's memory, which NumPy reads without `Tensor.numpy`: after that no storage could be resized."""

    def __init__(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        self._tensor, place = tensor, (address("tensor", tensor), False)
        zero: Any = ZERO[tensor.dtype]
        self.__array_interface__ = {"data": place, "shape": shape, "typestr": zero.dtype.str, "version": 3}


def canonical(tensor: Tensor, shape: tuple[int, int, int]) -> Any:
    """The array (outer, feature, inner) on the memory of a tensor that is dense in x's order, as kernels take it."""
    return np.asarray(_Memory(tensor, shape))
