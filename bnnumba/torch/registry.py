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
is_batch = torch._C._functorch.is_legacy_batchedtensor  # of torch.autograd.grad(..., is_grads_batched=True)


def register(
    name: str,
    compute: Function,
    shapes: Function,
    save: Function | None = None,
    differentiate: Function | None = None,
    changes: tuple[str, ...] = (),
) -> Function:
    """Make a function of tensors an operation of PyTorch, which torch.compile takes into its graph as one node.

    Parameters
    ----------
    name : str
        Behind "bnnumba::".
    compute : function
    shapes : function
        The same on tensors that have no data.
    save, differentiate : functions, or None where there is nothing to save, or no derivative
        As `torch.library.register_autograd` describes them.
    changes : tuple of str
        The arguments that it changes.
    """
    operation: Any = custom_op(f"bnnumba::{name}", compute, mutates_args=changes, device_types="cpu")
    operation.register_fake(shapes)
    if differentiate is not None:
        operation.register_autograd(differentiate, setup_context=save)
    registered: Function = operation
    return registered


def watched(tensor: Tensor) -> bool:
    """Whether something else follows a call, or a tensor is of a subclass, a batch of gradients, or has no data.

    What follows may be torch.compile, TorchScript, torch.func or a dispatch mode.

    Then an operation must be called. Else what it computes may be: PyTorch's dispatcher costs more than all else of a
    small call.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._are_functorch_transforms_active():
        return True
    modes: int = torch._C._len_torch_dispatch_stack()
    return modes > 0 or type(tensor) not in PLAIN or tensor.is_meta or is_batch(tensor)


def recorded() -> bool:
    """Whether a call may be differentiated. Where forward_ad is on, no_grad keeps none from it."""
    level: int = forward_ad._current_level
    return torch.is_grad_enabled() or level >= 0


def differentiable(function: type[torch.autograd.Function]) -> Function:
    """A function of autograd's as a call, without what its own `apply` does in Python for tensors of torch.func."""
    apply: Function = super(torch.autograd.Function, function).apply
    return apply


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
