"""How operations are made known to PyTorch: to autograd by themselves, to torch.compile by name."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numba
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import custom_op

from bnnumba import forms

Function = Callable[..., Any]

PLAIN = Tensor, torch.nn.Parameter


class Operation:
    """A function of tensors with its derivative, which torch.compile takes into its graph as one node.

    Parameters
    ----------
    name : str
        Behind "bnnumba::".
    compute : function
    shapes : function
        The same on tensors that have no data.
    save, differentiate : functions, or None where there is no derivative
        As `torch.library.register_autograd` describes them.
    changes : tuple of str
        The arguments that it changes.
    """

    def __init__(
        self,
        name: str,
        compute: Function,
        shapes: Function,
        save: Function | None = None,
        differentiate: Function | None = None,
        changes: tuple[str, ...] = (),
    ) -> None:
        self._compute = self._differentiable = compute
        self._registered = custom_op(f"bnnumba::{name}", compute, mutates_args=changes, device_types="cpu")
        self._registered.register_fake(shapes)
        if save is not None and differentiate is not None:
            self._registered.register_autograd(differentiate, setup_context=save)
            self._differentiable = _function(compute, save, differentiate).apply

    def __call__(self, *arguments: Any) -> Any:
        """Compute; past PyTorch's dispatcher, which costs more than all else of a small call, unless it is watched."""
        if _watched(arguments[0]):
            return self._registered(*arguments)
        differentiable = torch.is_grad_enabled() or forward_ad._current_level >= 0  # where no_grad is none
        return (self._differentiable if differentiable else self._compute)(*arguments)


def _watched(tensor: Tensor) -> bool:
    """Whether a call is traced: by torch.compile, by TorchScript, by a dispatch mode, or on tensors without data."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
        return True
    return type(tensor) not in PLAIN


def within_threads(compute: Function) -> Function:
    """The same, with no more threads than PyTorch's operations have, as in a data loader's worker."""

    @wraps(compute)
    def limited(*arguments: Any) -> Any:
        allowed = torch.get_num_threads()
        if allowed >= numba.config.NUMBA_NUM_THREADS:
            return compute(*arguments)
        if allowed == 1:  # no word to Numba, which would start its threads
            with forms.without_threads():
                return compute(*arguments)
        before = numba.get_num_threads()
        numba.set_num_threads(min(before, allowed))
        try:
            return compute(*arguments)
        finally:
            numba.set_num_threads(before)

    return limited


def _function(compute: Function, save: Function, differentiate: Function) -> Any:
    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            output = compute(*arguments)
            save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return differentiate(ctx, *gradients)

    return Differentiable
