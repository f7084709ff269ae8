"""Batch normalization of PyTorch's tensors for the Keras layer: by the operations of `bnnumba.torch`."""

from __future__ import annotations

from torch import Tensor, no_grad

from bnnumba.activations import Act, text_of
from bnnumba.keras.normalized import Normalized
from bnnumba.torch import operations

IN_ANY_ORDER = (4, 5)  # numbers of axes of which our operations take the features first or last without a copy


def refusal(x: Tensor) -> str:
    """Why Keras's own call must be taken for x; empty where it need not."""
    return "" if x.device.type in ("cpu", "meta") else f"its input is on {x.device}"


def batch_norm(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    moving: tuple[Tensor, Tensor],
    axis: int,
    epsilon: float,
    momentum: float,
    activation: Act | None,
) -> Normalized:
    """Normalize x by its own moments, see `Normalized`."""
    view = _view(x, axis)
    y, statistics = operations.batch_norm(view, None, gamma, beta, None, None, epsilon, text_of(activation))
    mean, var = statistics[:2]
    moved = moving
    if x.numel() > 0:
        with no_grad():
            pairs = zip(moving, (mean, var), strict=True)
            moved = tuple((momentum * old + (1.0 - momentum) * new).to(old.dtype) for old, new in pairs)
    return Normalized(_back(y, x, axis), mean, var, *moved)


def normalize(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    axis: int,
    epsilon: float,
    activation: Act | None,
) -> Tensor:
    """Normalize x by a mean and a variance."""
    given = _view(x, axis), None, gamma, beta, mean, var, epsilon, text_of(activation)
    return _back(operations.batch_norm_layer(*given, moving=None, skip_nonfinite=False), x, axis)


def _view(x: Tensor, axis: int) -> Tensor:
    """The view whose axis 1 has the features."""
    axis %= x.ndim
    if _moves(x):
        return x.movedim(axis, 1)
    sizes = x.shape[:axis].numel(), x.shape[axis]
    return x.reshape(sizes if axis == x.ndim - 1 else (*sizes, x.shape[axis + 1 :].numel()))


def _back(y: Tensor, x: Tensor, axis: int) -> Tensor:
    """What is like `_view(x, axis)`, with x's axes."""
    return y.movedim(1, axis) if _moves(x) else y.reshape(x.shape)


def _moves(x: Tensor) -> bool:
    return x.ndim in IN_ANY_ORDER or (x.ndim > 1 and not x.is_contiguous())
