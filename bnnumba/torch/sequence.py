"""Sequences that let a layer of ours do the work of the activation that they call next, decided at each call."""

from __future__ import annotations

import copyreg
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as modules

from bnnumba.activations import LeakyRelu, text_of
from bnnumba.torch.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d
from bnnumba.torch.synchronized import SyncBatchNorm

LAYERS = (BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm)
FORWARDS = {kind: kind.forward for kind in (*LAYERS, nn.ReLU, nn.ReLU6, nn.LeakyReLU)}  # of those that are known
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Sequence(nn.Sequential):
    """What `sequence_class` adds to a sequence: PyTorch's results, in fewer sweeps over memory."""

    def forward(self, input: Any) -> Any:  # noqa: A002  # PyTorch's name
        """Call the modules one after the other; a layer waits until it is known what follows."""
        waiting: Any = None
        for module in self:
            if waiting is not None:
                activation = _activation(module)
                input = waiting.activated(input, None, activation)  # noqa: A001
                waiting = None
                if activation:
                    continue
            if type(module) in LAYERS and not module._activation and _is_plain(module):
                waiting = module
            else:
                input = module(input)  # noqa: A001
        return input if waiting is None else waiting(input)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As PyTorch's, but by the class that was converted: the other one has no name."""
        made, arguments, *rest = super().__reduce_ex__(max(int(protocol), 2))
        if made is copyreg.__newobj__ and arguments == (type(self),):  # type: ignore[attr-defined]
            made, arguments = _new, (original_class(type(self)),)
        return made, arguments, *rest


@cache
def sequence_class(kind: Any) -> Any:
    """Make the class of converted sequences of a class, with its name."""
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (Sequence, kind), names)


def original_class(kind: Any) -> Any:
    """Return what `sequence_class` made a class of."""
    return kind.__bases__[1]


def convertible(module: nn.Module) -> bool:
    """Whether a module is a sequence, not converted yet, that calls its modules one after the other."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _new(kind: Any) -> Any:
    converted = sequence_class(kind)
    return converted.__new__(converted)


def _activation(module: Any) -> str:
    """What a layer is to do in place of a module; "" where it is no known activation, or something watches it."""
    kind = type(module)
    if kind not in FORWARDS or kind in LAYERS or not _is_plain(module):
        return ""
    if kind is nn.ReLU:
        return "relu"
    if kind is nn.ReLU6:
        return "relu6" if (module.min_val, module.max_val) == (0, 6) else ""
    if torch.compiler.is_compiling():  # a compiler does not know a slope as a constant
        return ""
    try:
        return text_of(LeakyRelu(module.negative_slope))
    except (TypeError, ValueError):  # of which y does not tell the gradient
        return ""


def _is_plain(module: Any) -> bool:
    """Whether a call of a module is its class's known forward and nothing else."""
    kind, own = type(module), vars(module)
    return (
        FORWARDS.get(kind) is kind.forward
        and "forward" not in own
        and own.get("_compiled_call_impl") is None
        and not any(own[name] for name in HOOKS)
        and not modules._has_any_global_hook()
    )
