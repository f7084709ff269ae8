"""BatchNorm1d, BatchNorm2d and BatchNorm3d of PyTorch, and its lazy ones, computed here."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnnumba import checks
from bnnumba.activations import Activation, activation_of, public, text_of
from bnnumba.torch.checks import one_value_per_channel
from bnnumba.torch.handing import by_pytorch, hands_over
from bnnumba.torch.operations import batch_norm_layer


class Layer(_BatchNorm):
    """What BatchNorm1d, BatchNorm2d and BatchNorm3d share.

        y = act(weight * (x - mean)/sqrt(var + eps) + bias + residual)    act: none, or the activation
        training: mean and var are the batch's, and
                  running = (1 - momentum)*running + momentum*batch, with var times n/(n - 1)
                  momentum None: the average over all batches, momentum = 1/num_batches_tracked
        otherwise: mean and var are running_mean and running_var

    Constructor, attributes and state dict are PyTorch's, but for the following.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype
        As PyTorch's module of the same name takes them.
    activation : None, a name or an instance of `bnnumba.activations`, by keyword only
    skip_nonfinite : bool, by keyword only
        True leaves the running statistics of features as they were whose batch mean or variance is NaN or infinite, as
        float16 with a scaled loss has them now and then. The batch counts in num_batches_tracked.

    Attributes
    ----------
    exact : bool, False
        True computes everything here, with this package's bits. False leaves to PyTorch's operations what torch.compile
        or torch.export takes, as a compiler joins them with what is around them.
    """

    skip_nonfinite = False
    exact = False

    def __init__(
        self, *arguments: Any, activation: Activation | None = None, skip_nonfinite: bool = False, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.activation, self.skip_nonfinite = activation, checks.flag("skip_nonfinite", skip_nonfinite)

    @property
    def activation(self) -> Activation | None:
        """What stands behind the normalization."""
        return public(activation_of(self._activation or None))

    @activation.setter
    def activation(self, value: Activation | None) -> None:
        self._activation = text_of(value)  # which operations of PyTorch take

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002  # PyTorch's name
        """Return y, of input's shape, dtype and memory format.

        Parameters
        ----------
        input : tensor on the CPU, float32, float64, bfloat16 or float16
        residual : tensor of input's shape and dtype, or None for 0

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, in training there is but one value per channel, or one of running_mean and
            running_var is None.
        """
        return self.activated(input, residual, self._activation)

    def activated(self, input: Tensor, residual: Tensor | None, activation: str) -> Tensor:  # noqa: A002
        """Do as `forward`, but with this activation."""
        self._check_input_dim(input)
        weight, bias, mean, var = features = self._features()
        running = mean is not None or var is not None
        by_batch, moves = self.training or not running, self.training and self.track_running_stats and running
        if by_batch and input.numel() == max(input.shape[1], 1):
            one_value_per_channel(input.shape)
        if hands_over(self, input, features, not activation and residual is None):
            return by_pytorch(self, input, residual, activation, features)
        given = (None, None) if by_batch else (mean, var)
        moving = (mean, var, self._batches(), self.momentum) if moves else None
        others = residual, weight, bias, *given, self.eps, activation
        y: Tensor = batch_norm_layer(input, *others, moving=moving, skip_nonfinite=self.skip_nonfinite)
        return y

    def _features(self) -> tuple[Tensor | None, ...]:
        """Return weight, bias, running_mean and running_var."""
        own, kept = self._parameters, self._buffers
        try:  # past Module.__getattr__, which costs a microsecond for each
            return own["weight"], own["bias"], kept["running_mean"], kept["running_var"]
        except KeyError:  # they may also be elsewhere, as parametrized weights are
            return self.weight, self.bias, self.running_mean, self.running_var

    def _batches(self) -> Tensor | None:
        name = "num_batches_tracked"
        return self._buffers[name] if name in self._buffers else getattr(self, name)

    def __getattr__(self, name: str) -> Any:
        """PyTorch's; but what replaces the layer by another, which has no activation, is refused."""
        if name == "qconfig" and self._activation:  # convert_sync_batchnorm and quantization ask for it
            raise RuntimeError(
                f"this layer has activation={self.activation!r}, which SyncBatchNorm and quantized layers have not: "
                "put a module of its own behind the layer, and set layer.activation = None"
            )
        return super().__getattr__(name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of version 0.1 as well."""
        if "activation" in state:
            others = {name: value for name, value in state.items() if name != "activation"}
            state = {**others, "_activation": text_of(state["activation"])}
        super().__setstate__(state)

    def extra_repr(self) -> str:
        """PyTorch's, and the activation and skip_nonfinite, if there are any."""
        activation = f", activation={self.activation!r}" if self.activation else ""
        return f"{super().extra_repr()}{activation}{', skip_nonfinite=True' if self.skip_nonfinite else ''}"


class BatchNorm1d(Layer, nn.BatchNorm1d):
    """A `Layer` for (batch, channels) or (batch, channels, length)."""


class BatchNorm2d(Layer, nn.BatchNorm2d):
    """A `Layer` for (batch, channels, height, width)."""


class BatchNorm3d(Layer, nn.BatchNorm3d):
    """A `Layer` for (batch, channels, depth, height, width)."""


class LazyLayer(Layer):
    """A `Layer` that takes its num_features from its first input, and then becomes the layer that is not lazy."""

    def initialize_parameters(self, input: Tensor, residual: Tensor | None = None) -> None:  # noqa: A002, ARG002
        """Make weights and statistics for the input's features."""
        super().initialize_parameters(input)


class LazyBatchNorm1d(LazyLayer, nn.LazyBatchNorm1d):
    """A `LazyLayer` that becomes `BatchNorm1d`."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(LazyLayer, nn.LazyBatchNorm2d):
    """A `LazyLayer` that becomes `BatchNorm2d`."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(LazyLayer, nn.LazyBatchNorm3d):
    """A `LazyLayer` that becomes `BatchNorm3d`."""

    cls_to_become = BatchNorm3d
