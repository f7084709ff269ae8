"""Models trained on all ranks of torch.distributed; see `torch_ranks`, which has the layer alone."""

import sys

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

from bnnumba import torch as ours
from tests.processes.torch_cases import RANK, SIZE, gathered, part, same_on_all, start

STEPS, ROWS = 20, 24


class Block(nn.Module):
    """A residual block; the layer is given the residual where it takes one."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)),
        )

    def forward(self, x):
        return torch.relu(self.body(x) + x)


def make_model():
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*stem, Block(4), Block(4), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5))


def batch(step, rows=ROWS):
    """Images that differ much from rank to rank."""
    generator = torch.Generator().manual_seed(step)
    x, labels = torch.randn(rows, 3, 6, 6, generator=generator), torch.randint(5, (rows,), generator=generator)
    return x + torch.linspace(-2, 2, rows)[:, None, None, None], labels


def evenly(rows):
    return [rows * rank // SIZE for rank in range(SIZE + 1)]


def losses(model, cut=None, pieces=1, steps=STEPS):
    """Those of the whole batch, in each step; without a cut one process has it. In pieces, gradients are added up."""
    optimizer, found = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), []
    for step in range(steps):
        x, labels = batch(step)
        optimizer.zero_grad()
        total = 0.0
        for piece in range(pieces):
            own = [each[piece::pieces] for each in (x, labels)]
            number = len(own[0])
            own = [part(each, cut) if cut else each for each in own]
            ready = piece == pieces - 1 or not cut or SIZE == 1
            with nn.parallel.DistributedDataParallel.no_sync(model) if not ready else torch.enable_grad():
                loss = nn.functional.cross_entropy(model(own[0]), own[1], reduction="sum") / number / pieces
                (loss * (SIZE if cut else 1)).backward()  # DistributedDataParallel averages over the ranks
            total += loss.item()
        optimizer.step()
        found.append(sum(gathered(total)) if cut else total)
    return torch.tensor(found)


def watch(*_):
    """A hook that watches."""


def distributed_model(model, **options):
    return DistributedDataParallel(model, **options) if SIZE > 1 else model


def residual_network():
    """Losses of 20 steps are those of one process, for even and uneven parts; of layers by themselves they are not.

    A hook of one rank keeps an activation there from being fused.
    """
    expected = losses(make_model())
    for cut in (evenly, lambda rows: [0] + [1 + (rows - 1) * rank // SIZE for rank in range(1, SIZE + 1)]):
        model = distributed_model(ours.convert(make_model(), sync=True))
        if RANK == 0:
            next(module for module in model.modules() if isinstance(module, nn.ReLU)).register_forward_hook(watch)
        torch.testing.assert_close(losses(model, cut), expected, rtol=2e-4, atol=2e-4)
        same_on_all(model)
    apart = losses(distributed_model(ours.convert(make_model())), evenly)
    if SIZE > 1:
        assert (apart - expected).abs().max() > 0.05, apart - expected


def accumulated():
    expected = losses(make_model(), pieces=3, steps=5)
    model = distributed_model(ours.convert(make_model(), sync=True))
    torch.testing.assert_close(losses(model, evenly, pieces=3, steps=5), expected, rtol=2e-4, atol=2e-4)


class Checkpointed(nn.Module):
    """A sequence whose blocks are computed again in backward."""

    def __init__(self, model, reentrant):
        super().__init__()
        self.model, self.reentrant = model, reentrant

    def forward(self, x):
        for module in self.model:
            x = checkpoint(module, x, use_reentrant=self.reentrant) if isinstance(module, Block) else module(x)
        return x


def checkpointed():
    """The losses are the same; running statistics move twice, as PyTorch's do."""
    for reentrant in (False, True):
        plain = Checkpointed(make_model(), reentrant)
        model = Checkpointed(ours.convert(make_model(), sync=True), reentrant)
        expected = losses(plain, steps=5)
        torch.testing.assert_close(losses(distributed_model(model), evenly, steps=5), expected, rtol=2e-4, atol=2e-4)
        for own, theirs in zip(model.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-3)


def compiled():
    """With a break of the graph at each layer that exchanges something; inference has none."""
    expected = losses(make_model(), steps=4)
    model = ours.convert(make_model(), sync=True)
    twin = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(losses(distributed_model(twin), evenly, steps=4), expected, rtol=2e-4, atol=2e-4)
    x = batch(0)[0]
    alone = torch.compile(model.eval(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(alone(x), model(x))


def averaged():
    """The model's copy shares its group; `update_bn` takes the batches of all ranks together."""
    batches = [batch(step)[0] for step in range(3)]
    copies = []
    for sync in (True, False):
        model = make_model()
        if sync:
            ours.convert(model, sync=True, process_group=distributed.group.WORLD)
        copies.append(AveragedModel(model))
        update_bn([part(x, evenly) if sync else x for x in batches], copies[-1])
    for own, theirs in zip(*(each.buffers() for each in copies), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)


def sharded():
    """By FSDP, whose ranks hold parts of the parameters, and take their storage away in between."""
    expected = losses(make_model(), steps=3)
    model = ours.convert(make_model(), sync=True)
    if SIZE > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (SIZE,)))
    torch.testing.assert_close(losses(model, evenly, steps=3), expected, rtol=2e-4, atol=2e-4)


def fails():
    """The last rank's own error, behind its model's second layer."""
    model = ours.convert(make_model(), sync=True)
    if RANK == SIZE - 1:
        model[3].body[2].register_forward_pre_hook(lambda *_: sys.exit("the last rank's own error"))
    model(part(batch(0)[0], evenly))


CHECKS = (residual_network, accumulated, checkpointed, compiled, averaged, sharded)
SCENARIOS = {each.__name__: each for each in (*CHECKS, fails)}

if __name__ == "__main__":
    start()
    for name in sys.argv[1:] or [check.__name__ for check in CHECKS]:
        print(name, flush=True)
        SCENARIOS[name]()
    distributed.barrier()
    print(f"rank {RANK} of {SIZE} is right", flush=True)
