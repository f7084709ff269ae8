"""Small calls, where Python costs as much as the kernel: the kernel alone, functions and layer, and PyTorch's."""

from collections.abc import Callable
from timeit import timeit
from typing import Any

import numpy as np

import bnnumba
from bnnumba.kernels import serial

SHAPES = ((32, 64), (128, 64), (64, 256))
EPSILON = 1e-3
ROUNDS, CALLS = 20, 500  # in turns; the shortest round counts

Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Print a table."""
    print("microseconds of a call, float32; Python's share: what a function takes more than its kernel")
    heads = ("shape", "call", "kernel", "bnnumba", "Python's share", "PyTorch", "PyTorch / bnnumba")
    print("".join(f"{head:>18}" for head in heads))
    for shape in SHAPES:
        for name, calls in passes(shape).items():
            times = measured(calls)
            ours, kernel, theirs = times["bnnumba"], times.get("kernel"), times.get("PyTorch")
            cells = (
                "x".join(map(str, shape)),
                name,
                *(
                    "-" if value is None else f"{value:.2f}"
                    for value in (kernel, ours, kernel and ours - kernel, theirs)
                ),
                "-" if theirs is None else f"{theirs / ours:.2f}",
            )
            print("".join(f"{cell:>18}" for cell in cells), flush=True)


def passes(shape: tuple[int, int]) -> dict[str, Calls]:
    """The calls to compare, by pass."""
    channels, rng = shape[1], np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32) for _ in range(2))
    gamma, beta, var = (rng.uniform(0.5, 1.5, channels) for _ in range(3))
    mean, dgamma, dbeta = (np.zeros(channels) for _ in range(3))
    x3, dy3, out = (array.reshape(*shape, 1) for array in (x, dy, np.empty_like(x)))
    layer = bnnumba.BatchNormalization()
    theirs = of_pytorch(x, dy, gamma, beta)

    def step() -> None:
        layer(x, training=True)
        layer.backward(dy)

    found: dict[str, Calls] = {
        "forward": {
            "kernel": lambda: serial.batch_norm_into(x3, gamma, beta, EPSILON, out, mean, var),
            "bnnumba": lambda: bnnumba.batch_norm(x, gamma, beta),
        },
        "inference": {
            "kernel": lambda: serial.normalize(x3, mean, var, gamma, beta, EPSILON, out),
            "bnnumba": lambda: bnnumba.normalize(x, mean, var, gamma, beta),
        },
        "backward": {
            "kernel": lambda: serial.batch_norm_backward_into(dy3, x3, mean, var, gamma, EPSILON, out, dgamma, dbeta),
            "bnnumba": lambda: bnnumba.batch_norm_backward(dy, x, mean, var, gamma),
        },
        "layer, forward": {"bnnumba": lambda: layer(x, training=True)},
        "layer, inference": {"bnnumba": lambda: layer(x)},
        "layer, step": {"bnnumba": step},
    }
    return {name: {**calls, **({"PyTorch": theirs[name]} if name in theirs else {})} for name, calls in found.items()}


def of_pytorch(x: np.ndarray, dy: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> Calls:
    """PyTorch's operations, and its layer through autograd; none where it is not installed."""
    try:
        import torch  # noqa: PLC0415
    except ModuleNotFoundError:
        return {}
    batch, gradient, scale, offset = (torch.from_numpy(each.astype(np.float32)) for each in (x, dy, gamma, beta))
    mean, var = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
    forward = (batch, scale, offset, mean, var, True, 0.1, EPSILON)
    _, saved, rstd = torch.native_batch_norm(*forward)
    backward: Any = torch.ops.aten.native_batch_norm_backward
    leaf, layer = batch.clone().requires_grad_(), torch.nn.BatchNorm1d(x.shape[1])
    leaves = [leaf, *layer.parameters()]
    return {
        "forward": lambda: torch.native_batch_norm(*forward),
        "inference": lambda: torch.nn.functional.batch_norm(batch, mean, var, scale, offset, False, 0.1, EPSILON),
        "backward": lambda: backward(gradient, batch, scale, mean, var, saved, rstd, True, EPSILON, [True] * 3),
        "layer, step": lambda: torch.autograd.grad(layer(leaf), leaves, gradient),
    }


def measured(calls: Calls) -> dict[str, float]:
    """Microseconds of each call, which take turns."""
    rounds = [{name: timeit(call, number=CALLS) / CALLS * 1e6 for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) for name in calls}


if __name__ == "__main__":
    main()
