"""BatchNorm2d of `bnnumba.torch` beside PyTorch's own: forward and backward through autograd; checked, and then timed.

As in `bench_batch_norm`, nothing is timed without --benchmark-only. Both write to recycled memory; what follows
PyTorch's layer works in place.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from bench.machine import THREADS

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)
nn, ours = torch.nn, pytest.importorskip("bnnumba.torch")

torch.set_num_threads(THREADS)

FIRST, LAST = torch.contiguous_format, torch.channels_last
SHAPES = (
    (8, 16, 8, 8),
    (32, 64, 8, 8),
    (32, 64, 16, 16),
    (32, 256, 14, 14),
    (4, 96, 57, 57),
    (32, 2048, 7, 7),
    (32, 64, 56, 56),
    (32, 64, 112, 112),
)
CASES = {
    f"{order}-{'x'.join(map(str, shape))}": (shape, memory)
    for shape in SHAPES
    for order, memory in (("first", FIRST), ("last", LAST))
}
ROUNDING = 1e-4  # nearer to 0 than that, float32 does not decide what a ReLU lets pass


class Step(NamedTuple):
    """What is trained: PyTorch's way and ours, as functions of a layer, x and the residual."""

    theirs: Callable
    ours: Callable
    options: dict


STEPS = {
    "alone": Step(lambda layer, x, _: layer(x), lambda layer, x, _: layer(x), {}),
    "relu": Step(lambda layer, x, _: layer(x).relu_(), lambda layer, x, _: layer(x), {"activation": "relu"}),
    "residual relu": Step(
        lambda layer, x, residual: layer(x).add_(residual).relu_(),
        lambda layer, x, residual: layer(x, residual),
        {"activation": "relu"},
    ),
}
