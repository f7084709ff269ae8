"""SyncBatchNorm of PyTorch for tensors on the CPU: its batch is that of all processes together."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from bnnumba.torch.group import group_of, initialized
from bnnumba.torch.modules import Layer
from bnnumba.torch.together import batch_norm_together, caller_of


class SyncBatchNorm(Layer):
    """A `Layer` for (batch, channels, ...) whose batch in training is that of all ranks of a process group together.

        count, mean, var = those of all ranks' x
        dx = weight*rstd * (dresidual - (sum(dbias) + x_hat*sum(dweight))/count)    sum over all ranks
        dweight, dbias: this rank's share, which DistributedDataParallel averages as it does with every other gradient

    Constructor, attributes and state dict are those of nn.SyncBatchNorm, which has no work for a CPU. Mean and var, and
    so the running statistics, have the same bits on all ranks. Parts of the batch may differ in size, and be empty.
    Inference sends nothing. Without torch.distributed, or with one rank, this is BatchNorm.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype
        As nn.SyncBatchNorm takes them.
    process_group : torch.distributed.ProcessGroup or None
        Whose ranks share the batch; None: all ranks. It needs a backend for the CPU: gloo, or MPI.
    activation, skip_nonfinite
        As `Layer` takes them, by keyword only.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. In training a ValueError on all ranks, if they do not make the same call of the
        same layer, with the same channels, dtype and options, or have one value per channel altogether.
    RuntimeError
        In training, where another rank has failed, or did not come within the process group's timeout: then on all
        ranks that wait for it, in words that name the layer.

    Notes
    -----
    All ranks make the same training calls, and call `backward` on what depends on them. Layers are told by their
    number, in the order of their first training calls. Copies share the process group.
    """

    _name = ""  # what `convert` found it under

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        given = num_features, eps, momentum, affine, track_running_stats, device, dtype
        super().__init__(*given, **options)
        self.process_group = process_group

    def activated(self, input: Tensor, residual: Tensor | None, activation: str) -> Tensor:  # noqa: A002
        """Do as `forward`, but with this activation."""
        if not self.training or not initialized():
            return super().activated(input, residual, activation)
        y: Tensor = _trained(self, input, residual, activation)
        return y

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of all but the process group."""
        made = type(self).__new__(type(self))
        memo[id(self)], memo[id(self.process_group)] = made, self.process_group
        made.__setstate__(copy.deepcopy(self.__dict__, memo))
        return made


@torch._disable_dynamo  # type: ignore[untyped-decorator]  # torch.compile's graphs end before and begin anew behind an exchange
def _trained(layer: Any, x: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    group = group_of(layer.process_group)
    if group is None:
        return Layer.activated(layer, x, residual, activation)
    layer._check_input_dim(x)
    weight, bias, mean, var = layer._features()
    moves = layer.track_running_stats and (mean is not None or var is not None)
    batches = layer._batches() if moves else None
    moving = (mean, var, batches, layer.momentum) if moves else None
    caller = caller_of(
        *(layer, layer._name, group, 0 if batches is None else int(batches)),
        *(("features", x.shape[1]), ("dtype", str(x.dtype)), ("eps", layer.eps), ("momentum", layer.momentum)),
        # not the activation: a hook on one rank, to log something for instance, keeps that in a module of its own
        *(("track_running_stats", moves), ("skip_nonfinite", layer.skip_nonfinite)),
    )
    others = layer.eps, activation, moving, layer.skip_nonfinite
    return batch_norm_together(x, residual, weight, bias, *others, caller)
