"""Batch normalization on the CPU at the speed of memory, from plain NumPy arrays.

The functions take arrays with any feature axes; `BatchNormalization` is a layer in Keras's terms; `bnnumba.kernels` is
what both call, and what a caller's own `@njit` code may call; `bnnumba.activations` is what may stand behind the
normalization. `bnnumba.torch`, `.keras`, `.jax`, `.mpi`, `.dask`, `.sklearn` and `.xarray` need the libraries of these
names: each is imported at its first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bnnumba import activations as activations
from bnnumba import kernels as kernels
from bnnumba.buffers import recycle_buffers
from bnnumba.folding import fold, fold_into_conv, fold_into_dense
from bnnumba.functional import Gradients, batch_norm, batch_norm_backward, moments, normalize, update_moving
from bnnumba.layer import BatchNormalization
from bnnumba.pooling import Moments, merge_moments
from bnnumba.second import SecondGradients, batch_norm_double_backward
from bnnumba.streaming import population_moments

if TYPE_CHECKING:
    from bnnumba import dask as dask
    from bnnumba import jax as jax
    from bnnumba import keras as keras
    from bnnumba import mpi as mpi
    from bnnumba import sklearn as sklearn
    from bnnumba import torch as torch
    from bnnumba import xarray as xarray

__version__ = "0.2.0.dev0"

__all__ = [
    "BatchNormalization",
    "Gradients",
    "Moments",
    "SecondGradients",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_double_backward",
    "fold",
    "fold_into_conv",
    "fold_into_dense",
    "merge_moments",
    "moments",
    "normalize",
    "population_moments",
    "recycle_buffers",
    "update_moving",
]

# What imports itself, and the library that each needs.
_ROOMS = {
    "dask": "dask",
    "jax": "jax",
    "keras": "keras",
    "mpi": "mpi4py",
    "sklearn": "sklearn",
    "torch": "torch",
    "xarray": "xarray",
}

if not TYPE_CHECKING:  # or no type checker would tell a wrong name

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return import_module(f"bnnumba.{name}")
        raise AttributeError(f"module 'bnnumba' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    """The public names; help() and completion get every one, so that a room that cannot be imported is no such name."""
    rooms = [room for room, needed in _ROOMS.items() if _is_there(needed)]
    return sorted([*__all__, "activations", "kernels", "__version__", *rooms])


def _is_there(library: str) -> bool:
    """Whether a library can be imported, or is imported: find_spec refuses one that came to be otherwise."""
    return sys.modules[library] is not None if library in sys.modules else find_spec(library) is not None
