"""Models whose BatchNorm layers compute here, and back."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from bnnumba import checks
from bnnumba.activations import text_of
from bnnumba.outputs import Change, write
from bnnumba.torch.memory import ZERO
from bnnumba.torch.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d
from bnnumba.torch.sequence import Sequence, convertible, original_class, sequence_class

OURS = {nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d, nn.BatchNorm3d: BatchNorm3d}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}

_log = logging.getLogger("bnnumba.torch")


def convert(model: nn.Module, *, back: bool = False) -> nn.Module:
    """Let the BatchNorm layers of a model compute here, in place, and do the work of an activation that follows.

    Layers and sequences stay the objects that they are, with their parameters, running statistics, hooks and mode; only
    their class changes. So optimizers, checkpoints and other references to them stay good.

    Parameters
    ----------
    model : Module
        Its layers of exactly the classes BatchNorm1d, BatchNorm2d and BatchNorm3d are converted; of others, such as
        subclasses and SyncBatchNorm, none is, nor are layers with a tensor that is not on the CPU or of another dtype
        than float32, float64, bfloat16 and float16.
    back : bool
        True undoes that: layers of this package become PyTorch's, and sequences what they were. A layer that was made
        with an activation is left as it is.

    Returns
    -------
    Module
        The model itself; where it is such a layer or an nn.Sequential, it is of another class then.

    Raises
    ------
    TypeError
        If an argument is not as above.

    Notes
    -----
    An nn.Sequential that holds such a layer, also one of a subclass with PyTorch's own forward, decides in each call:
    where the next module is an nn.ReLU, nn.ReLU6 or nn.LeakyReLU, the layer does its work in the same sweep, unless
    either has hooks or a forward of its own. So modules may be replaced, inserted and removed, and hooks added, later.

    The logger "bnnumba.torch" says at level INFO what was done.
    """
    checks.instance("model", model, nn.Module)
    if checks.flag("back", back):
        _restore(model)
    else:
        _replace(model)
    return model


def _replace(model: nn.Module) -> None:
    kinds: dict[nn.Module, Any] = {}
    for name, layer in model.named_modules():
        if type(layer) not in OURS:
            continue
        refused = _refused(layer)
        if refused:
            _log.info("%s: left as it is: %s", name, refused)
            continue
        kinds[layer] = OURS[type(layer)]
        vars(layer)["_activation"] = text_of(None)
        _log.info("%s: %s of bnnumba", name, kinds[layer].__name__)
    for name, sequence in model.named_modules():
        if convertible(sequence) and any(module in kinds or type(module) in THEIRS for module in sequence):
            kind: Any = type(sequence)
            kinds[sequence] = sequence_class(kind)
            _log.info("%s: calls a layer and the activation behind it at once", name)
    write(_classes(kinds))


def _restore(model: nn.Module) -> None:
    kinds: dict[nn.Module, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, Sequence):
            kinds[module] = original_class(type(module))
        elif type(module) in THEIRS and module.activation is not None:
            _log.info("%s: left as it is: it has an activation of its own", name)
        elif type(module) in THEIRS:
            kinds[module] = THEIRS[type(module)]
        if module in kinds:
            _log.info("%s: %s of PyTorch", name, kinds[module].__name__)
    write(_classes(kinds))
    for module in kinds:
        vars(module).pop("_activation", None)


def _classes(kinds: dict[nn.Module, Any]) -> list[Change]:
    """The changes that give modules their classes, past PyTorch's own `__setattr__`, which is Python's."""
    return [(object.__setattr__, module, "__class__", kind) for module, kind in kinds.items()]


def _refused(layer: nn.Module) -> str:
    """Why a layer cannot be converted; empty where it can."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, name)
        if tensor is not None and tensor.device.type != "cpu":
            return f"its {name} is on {tensor.device}"
        if tensor is not None and tensor.dtype not in ZERO:
            return f"its {name} is {tensor.dtype}"
    return ""
