"""Training steps that compile whatever they need: what `warm-up` runs where no list of kernels tells that."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from bnnumba import BatchNormalization, moments

HALVES = ("float16", "bfloat16")
SHAPES = (8, 4, 6, 6), (64, 4, 64, 64)  # for the serial and the threaded form
ACTIVATIONS = None, "relu"
Step = tuple[str, Callable[[], object]]  # its name, and itself


def half_precision(dtype: str) -> Iterator[Step]:
    """Steps of our layer and functions for float16 or bfloat16."""
    kind = np.dtype(np.float16 if dtype == "float16" else import_module("ml_dtypes").bfloat16)
    for shape in SHAPES:
        x = np.ones(shape, kind)
        mask = np.ones((shape[0], 1, 1, 1), bool)
        yield f"moments of {dtype}, {shape}", lambda x=x: moments(x, 1)  # type: ignore[misc]
        for activation in ACTIVATIONS:
            for options in ({}, {"residual": x}, {"mask": mask}, {"mask": mask, "residual": x}):
                words = ", ".join(filter(None, (dtype, str(shape), activation, *options)))
                yield f"a layer of {words}", lambda x=x, a=activation, o=options: _step(x, a, o)  # type: ignore[misc]


def of_pytorch(dtype: str) -> Iterator[Step]:
    """Steps of the layers of `bnnumba.torch`."""
    torch, layers = import_module("torch"), import_module("bnnumba.torch")
    for shape in SHAPES:
        x = torch.ones(shape, dtype=getattr(torch, dtype))
        for activation in ACTIVATIONS:
            for residual in (None, x):
                layer = layers.BatchNorm2d(shape[1], activation=activation)
                layer.exact = True  # or a small x is left to PyTorch
                words = f"{dtype}, {shape}{', relu' if activation else ''}{', residual' if residual is x else ''}"
                yield f"a layer of PyTorch of {words}", lambda x=x, r=residual, n=layer: _torch_step(x, r, n)  # type: ignore[misc]
            words = f"{dtype}, {shape}{', relu' if activation else ''}"
            yield f"a synchronized layer of PyTorch of {words}", lambda x=x, a=activation: _part_step(x, a or "")  # type: ignore[misc]


def _step(x: Any, activation: Any, options: dict[str, Any]) -> None:
    layer = BatchNormalization(1, activation=activation)
    for trainable in (True, False):
        layer.trainable = trainable
        layer(x, training=True, **options)
        layer.backward(x)
    residual = {name: value for name, value in options.items() if name == "residual"}
    layer(x, **residual)


def _torch_step(x: Any, residual: Any, layer: Any) -> None:
    """Train and infer, where all, or only parameters, or nothing needs a gradient, in the default dtype and x's."""
    for parameters in (layer, layer.to(x.dtype)):
        for training in (True, False):
            parameters.train(training)
            for needed in (True, False):
                leaf = x.clone().requires_grad_(needed)
                added = None if residual is None else residual.clone().requires_grad_(needed)
                parameters(leaf, added).sum().backward()
            parameters.requires_grad_(False)(x, residual)
            parameters.requires_grad_(True)


def _part_step(x: Any, activation: str) -> None:
    """Do what a rank of many does with its part of a batch."""
    parts, compute = import_module("bnnumba.torch.parts"), import_module("bnnumba.torch.compute")
    ones = x.new_ones(x.shape[1]).double()
    whole = parts.Whole(ones, ones, x.numel() // x.shape[1], True)
    parts.moments_of(x)
    y, statistics = compute.forward(x, None, None, None, ones, ones, 1e-5, activation)
    sums = parts.gradient_sums(x, x, y if activation else None, statistics, 1e-5, activation)
    parts.input_gradient(sums.dresidual, x, None, whole, (ones.numpy(), ones.numpy()), 1e-5)
