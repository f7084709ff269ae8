"""Batches that ranks of torch.distributed share, and what `SyncBatchNorm` makes of them beside the oracle."""

import os
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
from torch import distributed

from bnnumba import torch as ours
from tests.tools import bounds, oracle
from tests.tools.problems import problem

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
LAST = RANK == SIZE - 1


def start(seconds=120):
    if os.path.exists("/sys/class/net/lo"):  # otherwise gloo asks for the host's name, which may lead nowhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=os.environ["MEETING"],
        rank=RANK,
        world_size=SIZE,
        timeout=timedelta(seconds=seconds),
    )


def gathered(value, group=None):
    """Each rank's value."""
    values = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(values, value, group)
    return values


def summed(tensor):
    """The sum over all ranks, in float64."""
    total = tensor.detach().double().clone()
    distributed.all_reduce(total)
    return total


def bits(*tensors):
    return [None if each is None else each.detach().double().numpy().tobytes() for each in tensors]


def same_on_all(layer):
    own = bits(*layer.buffers())
    assert all(other == own for other in gathered(own)), "ranks differ"


def evenly(rows):
    return np.linspace(0, rows, SIZE + 1).astype(int)


def unevenly(rows):
    return np.array([rows * rank**2 // SIZE**2 for rank in range(SIZE + 1)])


def all_on_the_last(rows):
    return np.array([0] * SIZE + [rows])


def all_on_the_first(rows):
    return np.array([0] + [rows] * SIZE)


def part(tensor, cut=unevenly):
    """This rank's part of the first axis."""
    cuts = cut(len(tensor))
    return tensor[cuts[RANK] : cuts[RANK + 1]]


class Case(NamedTuple):
    """A batch, how many of its first axis each rank has, and the layer's options."""

    shape: tuple
    dtype: type = np.float32
    cut: object = unevenly
    offset: float = 0.0
    options: dict = {}  # noqa: RUF012
    residual: bool = False
    memory_format: torch.memory_format = torch.contiguous_format


CASES = {
    "columns": Case((40, 5)),
    "more columns than a vector, far from 0": Case((120, 70), offset=1e6),
    "images": Case((9, 4, 5, 5), cut=evenly, offset=-100.0),
    "images, channels last": Case((9, 4, 5, 5), offset=1e4, memory_format=torch.channels_last),
    "lengths, float64": Case((9, 3, 17), np.float64, offset=1e6),
    "volumes, channels last": Case((9, 3, 4, 2, 3), memory_format=torch.channels_last_3d),
    "empty but on the last rank": Case((40, 5), cut=all_on_the_last, offset=1e6),
    "empty but on the first rank": Case((40, 5, 2), np.float64, cut=all_on_the_first),
    "threads": Case((9000, 64), cut=evenly),
    "a long message": Case((60, 5000)),
    "relu": Case((40, 5), options={"activation": "relu"}),
    "relu and residual": Case((9, 4, 5, 5), options={"activation": "relu"}, residual=True),
    "residual": Case((40, 5), np.float64, residual=True),
    "leaky": Case((40, 5), np.float64, options={"activation": oracle.LEAKY}),
    "without weights": Case((40, 5), options={"affine": False}),
}


def train(case, p, residual):
    """The layer after a step, y, and the gradients of x and of the residual."""
    layer = ours.SyncBatchNorm(case.shape[1], 1e-3, 1.0, dtype=torch.float64, **case.options)
    if layer.affine:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(p.gamma))
            layer.bias.copy_(torch.from_numpy(p.beta))
    given = [p.x, p.dy] if residual is None else [p.x, p.dy, residual]
    x, dy, *added = [part(torch.from_numpy(each), case.cut).to(memory_format=case.memory_format) for each in given]
    inputs = [each.clone().requires_grad_() for each in (x, *added)]
    y = layer(*inputs)
    y.backward(dy)
    return layer, y.detach(), [each.grad for each in inputs]


def check_case(case):
    p = problem(case.shape, 1, case.dtype, case.offset)
    residual = problem(case.shape, 1, case.dtype, seed=1).x if case.residual else None
    layer, y, gradients = train(case, p, residual)
    own = slice(*case.cut(case.shape[0])[RANK : RANK + 2])
    assert y.is_contiguous(memory_format=case.memory_format)

    gamma, beta = (p.gamma, p.beta) if layer.affine else (None, None)
    exact = oracle.batch_norm(p.x, gamma, beta, 1)
    count = p.x.size // p.x.shape[1]
    tolerance = {"rtol": 1e-6 if case.dtype is np.float32 else 1e-12, "atol": 1e-12}
    statistics = [each.astype(float).ravel() for each in (exact.mean, exact.var)]
    np.testing.assert_allclose(layer.running_mean.numpy(), statistics[0], **tolerance)
    np.testing.assert_allclose(layer.running_var.numpy(), statistics[1] * count / (count - 1), **tolerance)
    assert layer.num_batches_tracked == 1
    activation = case.options.get("activation")
    mine = exact._replace(x_hat=exact.x_hat[own], y=exact.y[own])
    bounds.check_fused_y(case.dtype, y.numpy(), mine, activation, None if residual is None else residual[own])

    whole_y = np.concatenate(gathered(y.numpy()))
    behind = oracle.behind(p.dy, whole_y, activation)
    expected = oracle.backward(behind, p.x, *statistics, gamma, 1)
    allowed = np.broadcast_to(bounds.dx(case.dtype, expected), case.shape)
    bounds.check("dx", gradients[0].numpy(), expected.dx[own], allowed[own])
    if case.residual:
        np.testing.assert_array_equal(gradients[1].numpy(), behind[own])
    if layer.affine:
        share = oracle.backward(behind[own], p.x[own], *statistics, gamma, 1)
        for name, tensor in {"dgamma": layer.weight.grad, "dbeta": layer.bias.grad}.items():
            bound = getattr(bounds, name)
            bounds.check(name, tensor.numpy(), getattr(share, name), bound(case.dtype, share))
            bounds.check(name, summed(tensor).numpy(), getattr(expected, name), bound(case.dtype, expected))

    same_on_all(layer)
    again, other_y, other_gradients = train(case, p, residual)
    assert bits(*layer.buffers(), y, *gradients) == bits(*again.buffers(), other_y, *other_gradients), "runs differ"
