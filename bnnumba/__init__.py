"""Batch normalization on the CPU at the speed of memory, from plain NumPy arrays.

The functions take arrays with any feature axes; `BatchNormalization` is a layer in Keras's terms; `bnnumba.kernels` is
what both call, and what a caller's own `@njit` code may call.
"""

from bnnumba.buffers import recycle_buffers
from bnnumba.folding import fold_into_conv, fold_into_dense
from bnnumba.functional import (
    Gradients,
    batch_norm,
    batch_norm_backward,
    moments,
    normalize,
    update_moving,
)
from bnnumba.layer import BatchNormalization
from bnnumba.pooling import Moments, merge_moments
from bnnumba.second import SecondGradients, batch_norm_double_backward
from bnnumba.streaming import population_moments

__version__ = "0.1.0"

__all__ = [
    "BatchNormalization",
    "Gradients",
    "Moments",
    "SecondGradients",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_double_backward",
    "fold_into_conv",
    "fold_into_dense",
    "merge_moments",
    "moments",
    "normalize",
    "population_moments",
    "recycle_buffers",
    "update_moving",
]
