"""Models whose BatchNorm layers compute here, and back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn

from bnnumba import checks
from bnnumba.torch.memory import ZERO
from bnnumba.torch.modules import RECTIFIED, BatchNorm1d, BatchNorm2d, BatchNorm3d

OURS = {nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d, nn.BatchNorm3d: BatchNorm3d}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}

_log = logging.getLogger("bnnumba.torch")


class FusedReLU(nn.ReLU):
    """A ReLU with nothing left to do where the layer before it has done it; with any other input it is one."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # PyTorch's name
        """Return max(input, 0)."""
        return input if getattr(input, RECTIFIED, False) else super().forward(input)


def convert(model: nn.Module, *, back: bool = False) -> nn.Module:
    """Let the BatchNorm layers of a model compute here, in place, and fuse each with a ReLU directly behind it.

    Layers and ReLUs stay the objects that they are, with their parameters, running statistics, hooks and mode; only
    their class changes. So optimizers, checkpoints and other references to them stay good.

    Parameters
    ----------
    model : Module
        Its layers of exactly the classes BatchNorm1d, BatchNorm2d and BatchNorm3d are converted; of others, such as
        subclasses and SyncBatchNorm, none is, nor are layers with a tensor that is not on the CPU or of another dtype
        than float32, float64, bfloat16 and float16.
    back : bool
        True undoes that: layers of this package become PyTorch's, and fused ReLUs work again. A layer that was made
        with an activation is left as it is.

    Returns
    -------
    Module
        The model itself; where it is such a layer, it is of another class then.

    Raises
    ------
    TypeError
        If an argument is not as above.

    Notes
    -----
    A ReLU is fused where an nn.Sequential calls it next after the layer, the layer has no other place in the model, and
    neither has hooks. What a later hook, or code that calls the layer by itself, sees of it is then behind the ReLU; a
    ReLU still is one for all but such a layer's result.

    The logger "bnnumba.torch" says at level INFO what was done.
    """
    checks.instance("model", model, nn.Module)
    if checks.flag("back", back):
        _restore(model)
    else:
        _replace(model)
    return model


def _replace(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if type(layer) not in OURS:
            continue
        refused = _refused(layer)
        if refused:
            _log.info("%s: left as it is: %s", name, refused)
            continue
        layer.__class__ = OURS[type(layer)]
        layer.activation = None
        _log.info("%s: %s of bnnumba", name, type(layer).__name__)
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for layer, behind, name in _in_a_row(model):
        alone = places[id(layer)] == 1 and not _hooked(layer) and not _hooked(behind)
        if type(behind) in (nn.ReLU, FusedReLU) and layer.activation is None and alone:
            layer.activation, behind.__class__ = "relu", FusedReLU
            _log.info("%s: computed by the layer before it", name)


def _restore(model: nn.Module) -> None:
    for layer, behind, _ in _in_a_row(model):
        if type(behind) is FusedReLU:
            layer.activation = None
    for name, module in model.named_modules():
        if type(module) is FusedReLU:
            module.__class__ = nn.ReLU
            _log.info("%s: ReLU of PyTorch", name)
        elif type(module) in THEIRS and module.activation is not None:
            _log.info("%s: left as it is: it has an activation of its own", name)
        elif type(module) in THEIRS:
            module.__class__ = THEIRS[type(module)]
            del module.activation
            _log.info("%s: %s of PyTorch", name, type(module).__name__)


def _refused(layer: nn.Module) -> str:
    """Why a layer cannot be converted; empty where it can."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, name)
        if tensor is not None and tensor.device.type != "cpu":
            return f"its {name} is on {tensor.device}"
        if tensor is not None and tensor.dtype not in ZERO:
            return f"its {name} is {tensor.dtype}"
    return ""


def _in_a_row(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Layers of ours, what a sequence calls directly behind each, and its name in the model."""
    for name, sequence in model.named_modules():
        if isinstance(sequence, nn.Sequential) and type(sequence).forward is nn.Sequential.forward:
            for (_, layer), (own_name, behind) in pairwise(sequence._modules.items()):
                if type(layer) in THEIRS:
                    yield layer, behind, f"{name}.{own_name}".lstrip(".")


def _hooked(module: nn.Module) -> bool:
    hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(module, kind) for kind in hooks)
