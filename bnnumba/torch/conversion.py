"""Models whose BatchNorm layers compute here, and back."""

from __future__ import annotations

import logging
from typing import Any, Literal, overload

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnnumba import checks
from bnnumba.activations import text_of
from bnnumba.outputs import Change, write
from bnnumba.torch.memory import ZERO
from bnnumba.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
)
from bnnumba.torch.report import Report
from bnnumba.torch.sequence import Sequence, convertible, original_class, sequence_class
from bnnumba.torch.synchronized import SyncBatchNorm

OURS = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
    nn.LazyBatchNorm1d: LazyBatchNorm1d,
    nn.LazyBatchNorm2d: LazyBatchNorm2d,
    nn.LazyBatchNorm3d: LazyBatchNorm3d,
    nn.SyncBatchNorm: SyncBatchNorm,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
ADDED = "_activation", "_name", "_original"  # attributes of a converted layer

_log = logging.getLogger("bnnumba.torch")


@overload
def convert(
    model: nn.Module,
    *,
    back: bool = False,
    sync: bool = False,
    process_group: Any = None,
    report: Literal[False] = False,
) -> nn.Module: ...
@overload
def convert(
    model: nn.Module, *, back: bool = False, sync: bool = False, process_group: Any = None, report: Literal[True]
) -> Report: ...
def convert(
    model: nn.Module, *, back: bool = False, sync: bool = False, process_group: Any = None, report: bool = False
) -> nn.Module | Report:
    """Let the BatchNorm layers of a model compute here, in place, and do the work of an activation that follows.

    Layers and sequences stay the objects that they are, with their parameters, running statistics, hooks and mode; only
    their class changes. So optimizers, checkpoints and other references to them stay good.

    Parameters
    ----------
    model : Module
        Its layers of exactly PyTorch's classes are converted: BatchNorm1d, BatchNorm2d and BatchNorm3d, the lazy ones
        of these, and nn.SyncBatchNorm, which becomes `SyncBatchNorm`. Of other classes, such as subclasses, none is,
        nor are layers with a tensor that is not on the CPU or of another dtype than float32, float64, bfloat16 and
        float16.
    back : bool
        True undoes that: layers become again what they were, or PyTorch's, and sequences too. A layer that was made
        with an activation is left as it is.
    sync : bool
        True makes BatchNorm layers, those of this package too, `SyncBatchNorm` layers.
    process_group : torch.distributed.ProcessGroup or None, with sync=True only
        Whose ranks share a batch. With None, an nn.SyncBatchNorm keeps its own, and others get all ranks.
    report : bool
        True returns what was done, instead of the model.

    Returns
    -------
    Module
        The model itself; where it is such a layer or an nn.Sequential, it is of another class then.
    Report
        By the names of modules: which were converted, and which were left alone and why.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    An nn.Sequential that holds such a layer, also one of a subclass with PyTorch's own forward, decides in each call:
    where the next module is an nn.ReLU, nn.ReLU6 or nn.LeakyReLU, the layer does its work in the same sweep, unless
    either has hooks or a forward of its own. So modules may be replaced, inserted and removed, and hooks added, later.

    The logger "bnnumba.torch" says at level INFO what was done.
    """
    checks.instance("model", model, nn.Module)
    back, sync, report = checks.flag("back", back), checks.flag("sync", sync), checks.flag("report", report)
    if back and sync:
        raise ValueError("sync must be False where back is True, got True")
    if process_group is not None and not sync:
        raise ValueError(f"process_group must be None without sync=True, got {checks.described(process_group)}")
    done = Report({}, {})
    if back:
        _restore(model, done)
    else:
        _replace(model, sync, process_group, done)
    return done if report else model


def _replace(model: nn.Module, sync: bool, group: Any, done: Report) -> None:
    kinds: dict[nn.Module, Any] = {}
    changes: list[Change] = []
    for name, layer in model.named_modules():
        kind = _kind(layer, sync)
        if kind is None:
            continue
        refused = _refused(layer, kind)
        if refused:
            done.left[name] = refused
            _log.info("%s: left as it is: %s", name, refused)
            continue
        kinds[layer] = kind
        changes += [(vars(layer).update, _additions(layer, name, kind, group))]
        done.converted[name] = f"{kind.__name__} of bnnumba"
        _log.info("%s: %s", name, done.converted[name])
    for name, sequence in model.named_modules():
        if convertible(sequence) and any(module in kinds or type(module) in THEIRS for module in sequence):
            known: Any = type(sequence)
            kinds[sequence] = sequence_class(known)
            done.converted[name] = "calls a layer and the activation behind it at once"
            _log.info("%s: %s", name, done.converted[name])
    write([*changes, *_classes(kinds)])


def _kind(layer: Any, sync: bool) -> Any:
    """The class that a layer is to have, its own where it cannot be told; None where it has that already."""
    kind = type(layer)
    if not isinstance(layer, _BatchNorm) or kind is SyncBatchNorm or (kind in THEIRS and not sync):
        return None
    if sync and (kind in OURS or kind in THEIRS):
        return SyncBatchNorm
    return OURS.get(kind, kind)


def _additions(layer: Any, name: str, kind: Any, group: Any) -> dict[str, Any]:
    """The attributes that a layer needs as one of another class."""
    added = {"_activation": vars(layer).get("_activation", text_of(None))}
    if kind is not SyncBatchNorm:
        return added
    was = THEIRS.get(type(layer), type(layer))
    own = vars(layer).get("process_group") if group is None else group
    return {**added, "_name": name, "_original": was, "process_group": own}


def _restore(model: nn.Module, done: Report) -> None:
    kinds: dict[nn.Module, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, Sequence):
            kinds[module] = original_class(type(module))
        elif type(module) in THEIRS and module.activation is not None:
            done.left[name] = "it has an activation of its own"
            _log.info("%s: left as it is: %s", name, done.left[name])
        elif type(module) in THEIRS:
            kinds[module] = vars(module).get("_original", THEIRS[type(module)])
        if module in kinds:
            done.converted[name] = f"{kinds[module].__name__} of PyTorch"
            _log.info("%s: %s", name, done.converted[name])
    write(_classes(kinds))
    for module, kind in kinds.items():
        own = vars(module)
        for added in (*ADDED, *(() if kind is nn.SyncBatchNorm else ("process_group",))):
            if isinstance(module, _BatchNorm):
                own.pop(added, None)


def _classes(kinds: dict[nn.Module, Any]) -> list[Change]:
    """The changes that give modules their classes, past PyTorch's own `__setattr__`, which is Python's."""
    return [(object.__setattr__, module, "__class__", kind) for module, kind in kinds.items()]


def _refused(layer: Any, kind: Any) -> str:
    """Why a layer cannot be converted; empty where it can."""
    if kind is type(layer):
        return f"its class is {kind.__name__}, and not one of PyTorch's BatchNorm layers itself"
    if kind is SyncBatchNorm and isinstance(layer, LazyModuleMixin):
        return "it has no features yet: synchronize it after its first call"
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, name)
        if tensor is not None and tensor.device.type != "cpu":
            return f"its {name} is on {tensor.device}"
        if tensor is not None and tensor.dtype not in ZERO:
            return f"its {name} is {tensor.dtype}"
    return ""
