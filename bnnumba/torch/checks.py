"""Errors of PyTorch's tensors and layers, in words that name the argument, what was expected and what came.

Tensors are checked by what they say of themselves. Where PyTorch has an error of its own, its words are used.
"""

from collections.abc import Collection
from typing import Any, NoReturn


def tensor(name: str, value: Any, dtypes: Collection[object]) -> None:
    """A tensor of PyTorch on the CPU, of one of these dtypes."""
    _on_cpu(name, value)
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must be {', '.join(map(str, dtypes))}, got {value.dtype}")


def tensor_like(name: str, value: Any, x: Any) -> None:
    """A tensor of PyTorch with x's shape and dtype, on the CPU."""
    _like(name, value, x)
    _on_cpu(name, value)


def features_tensor(name: str, value: Any, channels: int) -> None:
    """A floating tensor of PyTorch with a value for each channel, on the CPU."""
    _features(name, value, channels)
    _on_cpu(name, value)


def statistics_tensor(value: Any, channels: int, dtype: object) -> None:
    """A mean, a variance and a beta for each channel, as operations of PyTorch hand them on."""
    if value.shape != (3, channels) or value.dtype is not dtype or not value.is_contiguous():
        shape = tuple(value.shape)
        raise ValueError(f"statistics must be contiguous {dtype}, (3, {channels}), got {value.dtype}, {shape}")
    _on_cpu("statistics", value)


def counter_tensor(name: str, value: Any, dtype: object) -> None:
    """A tensor of PyTorch with one value, on the CPU."""
    if value.numel() != 1 or value.dtype is not dtype:
        raise TypeError(f"{name} must be a tensor of one {dtype}, got {value.dtype}, {tuple(value.shape)}")
    _on_cpu(name, value)


def allocated(name: str, value: Any) -> None:
    """Refuse a tensor of PyTorch whose storage was taken away."""
    if value.numel() and not value.untyped_storage().data_ptr():
        raise ValueError(f"{name} must have memory, got a tensor of shape {tuple(value.shape)} without")


def running_pair(mean: object, var: object, needed: bool) -> None:
    """Refuse running statistics of which one is missing, as PyTorch does, in its words; or both, where needed."""
    if needed or mean is not var:
        raise ValueError("running_mean and running_var must either both be None or neither be None")


def one_value_per_channel(shape: Collection[int]) -> NoReturn:
    """Refuse to train on one value per channel, as PyTorch does, in its words."""
    raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")


def no_transform() -> NoReturn:
    """Refuse torch.func, of which PyTorch's operations made in Python know little."""
    raise NotImplementedError("batch normalization has no transforms of torch.func here (grad, vmap, jvp, ...)")


def without_data(x: Any, residual: Any, features: dict[str, Any], dtypes: Collection[object]) -> None:
    """Refuse tensors without data, or None, that do not go together."""
    if x.dtype not in dtypes:
        raise TypeError(f"input must be {', '.join(map(str, dtypes))}, got {x.dtype}")
    for name, value in {"residual": residual, **features}.items():
        if value is not None and value.device != x.device:
            raise ValueError(f"{name} must be on {x.device}, as input is, got a tensor on {value.device}")
    if residual is not None:
        _like("residual", residual, x)
    for name, value in features.items():
        if value is not None:
            _features(name, value, x.shape[1])


def _on_cpu(name: str, value: Any) -> None:
    if not value.is_cpu:
        raise ValueError(f"{name} must be on the CPU, got a tensor on {value.device}")


def _like(name: str, value: Any, x: Any) -> None:
    if value.shape != x.shape:
        raise ValueError(f"{name} must have the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}")
    if value.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {value.dtype}")


def _features(name: str, value: Any, channels: int) -> None:
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a tensor of real floats, got {value.dtype}")
    if value.shape != (channels,):
        raise ValueError(f"{name} must have shape ({channels},), got {tuple(value.shape)}")
