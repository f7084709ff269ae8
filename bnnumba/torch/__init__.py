"""PyTorch's BatchNorm layers on the CPU, computed here: a drop-in for models that run or train there."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.torch needs PyTorch: see pytorch.org for how to install it") from error

from bnnumba.torch.conversion import convert
from bnnumba.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
)
from bnnumba.torch.synchronized import SyncBatchNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "SyncBatchNorm",
    "convert",
]
