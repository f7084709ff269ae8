"""Layers on all ranks of torch.distributed at once; `tests.tools.subprocesses.run_torch_ranks` starts them.

Without a name, all scenarios run. Every rank makes the whole batch, and trains on its part. What comes out is compared
with the oracle of the whole batch, or with one process's layer, which is compared with PyTorch's elsewhere.
"""

import copy
import os
import signal
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from torch import distributed, nn

from bnnumba import torch as ours
from bnnumba.torch import together
from tests.processes.torch_cases import CASES, LAST, RANK, SIZE, bits, check_case, gathered, part, same_on_all, start
from tests.processes.torch_cases import summed as of_all_ranks
from tests.tools.torch_layers import data, near

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def pair(features=3, dtype=torch.float32, **options):
    """The layer, and one process's."""
    return tuple(kind(features, dtype=dtype, **options) for kind in (ours.SyncBatchNorm, ours.BatchNorm2d))


def check_step(layer, whole, x, dy):
    """A step on a rank's part, beside one process's on the whole batch."""
    one, other = part(x).clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = layer(one), whole(other)
    for each in (layer, whole):
        each.zero_grad()
    y.backward(part(dy))
    expected.backward(dy)
    near(y, part(expected))
    near(one.grad, part(other.grad))
    for own, theirs in zip(layer.parameters(), whole.parameters(), strict=True):
        total = of_all_ranks(own.grad).to(own.dtype)
        near(total, theirs.grad)
    for own, theirs in zip(layer.buffers(), whole.buffers(), strict=True):
        near(own, theirs)
    same_on_all(layer)


def options():
    """Steps of different sizes, one of them empty."""
    for given in ({}, {"momentum": None}, {"affine": False, "momentum": 0.7}, {"track_running_stats": False}):
        layers = pair(**given)
        for seed, rows in enumerate((12, 7, 0, 13)):
            check_step(*layers, *data((rows, 3, 2, 2), seed=seed))
        x = data((6, 3, 2, 2))[0]
        near(*(layer.eval()(x) for layer in layers))
    for dtype in DTYPES:
        check_step(*pair(dtype=dtype), *data((12, 3, 2, 2), dtype))
    check_step(*(layer.float() for layer in pair()), *data((12, 3, 2, 2), torch.bfloat16))  # as under autocast


def refused(*words):
    """The same error on all ranks, that names what they called."""
    if SIZE == 1:
        return nullcontext()
    return pytest.raises(ValueError, match=".*".join(["all ranks must make the same calls", *words]))


def mixed_calls():
    """Every rank gets the error, nothing has changed, and the next calls may match again."""
    x = data((12, 3, 2, 2))[0]
    layer = ours.SyncBatchNorm(3)
    with refused(r"features=3", "features=2") if not LAST or SIZE == 1 else refused("features"):
        (ours.SyncBatchNorm(2) if LAST and SIZE > 1 else layer)(x[:, : 2 if LAST and SIZE > 1 else 3])
    for name, usual, other in (("eps", 1e-5, 0.1), ("momentum", 0.1, None), ("skip_nonfinite", False, True)):
        layer = ours.SyncBatchNorm(3, **({name: other} if LAST else {}))
        with refused(f"{name}={usual}", f"{name}={other}"):
            layer(x)
        assert layer.num_batches_tracked == (SIZE == 1)
    one, other = ours.SyncBatchNorm(3), ours.SyncBatchNorm(3)
    for each in (one, other):
        each(x)
    with refused("training call of layer", "training call of layer"):
        (other if LAST else one)(x)
        assert SIZE == 1
    with refused("gradients=True", "gradients=False"), torch.no_grad() if LAST else nullcontext():
        one(x)
    other.num_batches_tracked += LAST
    with refused("num_batches_tracked=1", "num_batches_tracked=2"):
        other(x)
    y = ours.SyncBatchNorm(3)(x.clone().requires_grad_())
    with refused("backward of", "training call of"):
        ours.SyncBatchNorm(3)(x) if LAST else y.sum().backward()
        assert SIZE == 1
    check_case(CASES["images"])


def alone():
    """Inference sends nothing, nor does a layer without statistics, nor one of a group with one rank."""
    x = data((12, 3, 2, 2))[0]
    groups = [distributed.new_group([rank]) for rank in range(SIZE)]
    if LAST:
        near(ours.SyncBatchNorm(3).eval()(x), x / (1 + 1e-5) ** 0.5)
        near(ours.SyncBatchNorm(3, track_running_stats=False).eval()(x), nn.BatchNorm2d(3)(x))
        near(ours.SyncBatchNorm(3, process_group=groups[RANK])(x), nn.BatchNorm2d(3)(x))
        if SIZE > 1:
            with pytest.raises(TypeError, match=r"process_group must be None or a group .* got int -100"):
                ours.SyncBatchNorm(3, process_group=groups[0])(x)


def some_ranks():
    """A group of the even ranks, and one of the odd ones; a message of the caller's waits meanwhile."""
    groups = [distributed.new_group(list(range(SIZE))[which::2]) for which in (0, 1)] if SIZE > 1 else [None]
    mine, waiting = groups[RANK % 2 if SIZE > 1 else 0], torch.tensor([7.0 + RANK])
    sent = distributed.isend(waiting, (RANK + 1) % SIZE) if SIZE > 1 else None
    layer = ours.SyncBatchNorm(2, momentum=1.0, process_group=mine)
    layer(torch.full((3, 2), float(RANK)))
    near(layer.running_mean, torch.full((2,), sum(gathered(float(RANK), mine)) / len(gathered(0, mine))))
    copied = copy.deepcopy(layer)
    assert copied.process_group is mine
    assert copied.running_mean is not layer.running_mean
    copied(torch.full((3, 2), float(RANK)))
    assert bits(copied.running_mean) == bits(layer.running_mean)
    check_case(CASES["columns"])
    if sent is not None:
        distributed.recv(received := torch.empty(1), (RANK - 1) % SIZE)
        assert received == 7.0 + (RANK - 1) % SIZE
        sent.wait()


def exchanges(call):
    """What `call` returns, and how often it exchanged something."""
    made, exchange = [], together.exchange
    together.exchange = lambda *arguments: made.append(1) or exchange(*arguments)
    try:
        return call(), len(made)
    finally:
        together.exchange = exchange


def gradients_of_some():
    """Backward is called on all ranks, also where nothing needs a gradient; only if a rank needs dx, sums are sent."""
    x, dy = data((12, 3, 2, 2))
    layer, whole = pair(affine=False)
    other = x.clone().requires_grad_()
    whole(other).backward(dy)
    own = part(x).clone().requires_grad_(LAST)
    y, forward = exchanges(lambda: layer(own))
    assert y.requires_grad
    _, backward = exchanges(lambda: y.backward(part(dy)))
    assert (forward, backward) == ((1, 1) if SIZE > 1 else (0, 0))
    if LAST:
        near(own.grad, part(other.grad))
    assert not layer(part(x)).requires_grad
    layer = ours.SyncBatchNorm(3)
    y = layer(part(x))
    assert exchanges(lambda: y.backward(part(dy)))[1] == 0
    near(of_all_ranks(layer.bias.grad).float(), dy.sum((0, 2, 3)))
    empty = (x[:0] if LAST else x).clone().requires_grad_()
    ours.SyncBatchNorm(3)(empty).sum().backward()
    assert empty.grad.shape == empty.shape


def one_value():
    """A value on each rank is a batch; one altogether is refused on all ranks, and has moved nothing."""
    layer = ours.SyncBatchNorm(3)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        layer(torch.ones(int(LAST), 3))
    assert layer.num_batches_tracked == 0
    if SIZE > 1:
        layer(torch.full((1, 3), float(RANK)))
        near(layer.running_mean, torch.full((3,), 0.1 * (SIZE - 1) / 2))


def not_supported():
    x = data((12, 3, 2, 2))[0].requires_grad_()
    layer = ours.SyncBatchNorm(3)
    with pytest.raises(ValueError, match=r"expected at least 2D input \(got 1D input\)"):
        layer(x[0, 0, 0])
    with pytest.raises(ValueError, match="residual must have the shape of x"):
        layer(x, x[0])
    assert layer.num_batches_tracked == 0
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    if SIZE > 1:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            dx.sum().backward()


# ---- ranks that fail


def raises():
    """Only on the last rank; the others would wait for it."""
    layer = ours.SyncBatchNorm(3)
    layer(torch.ones(4, 3))
    assert not LAST, "the last rank's own error"
    layer(torch.ones(4, 3))


def killed():
    """In the middle of a program, while the others wait in backward."""
    y = ours.SyncBatchNorm(3)(torch.ones(4, 3, requires_grad=True))
    if LAST:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    y.sum().backward()


def late():
    """A rank that comes after the timeout, which is 3 seconds, finds the others gone."""
    layer = ours.SyncBatchNorm(3)
    layer(torch.ones(4, 3))
    if LAST:
        time.sleep(8)
    layer(torch.ones(4, 3))


CHECKS = (options, mixed_calls, alone, some_ranks, gradients_of_some, one_value, not_supported)
SCENARIOS = {each.__name__: each for each in (*CHECKS, raises, killed, late)}

if __name__ == "__main__":
    names = sys.argv[1:]
    start(3 if names == ["late"] else 120)
    for name, case in CASES.items() if not names else ():
        print(name, flush=True)  # the last that is printed is the one that failed
        check_case(case)
    for name in names or [check.__name__ for check in CHECKS]:
        print(name, flush=True)
        SCENARIOS[name]()
    distributed.barrier()
    print(f"rank {RANK} of {SIZE} is right", flush=True)
