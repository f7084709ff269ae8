"""Train a small residual network of PyTorch, before and after `bnnumba.torch.convert`: `python -m bench.residual`.

The images are scikit-learn's handwritten digits, enlarged to 32 x 32, with noise: on an even background, one rounding
would decide for many pixels at once whether a ReLU passes them. All networks have the same start and the same batches.
Training amplifies roundings, so the losses of each network are compared with those of PyTorch in float64.

In the last network, the layer also adds the residual and applies the ReLU after it. This needs a change to the
network's code, here in the class `Block`.
"""

import argparse
import copy
import time
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from bench.machine import THREADS, recycle_memory
from bnnumba.torch import convert


class Block(nn.Module):
    """relu(shortcut(x) + norm(body(x)))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(n, outputs, 3, s, 1, bias=False) for n, s in ((inputs, stride), (outputs, 1)))
        self.body = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), second)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()
        self.fused = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fused:
            return self.norm(self.body(x), self.shortcut(x))
        return self.norm(self.body(x)).add_(self.shortcut(x)).relu_()


def make_network(width: int = 16) -> nn.Module:
    """Three stages of two blocks, as He et al. (2015) use for CIFAR, but with one input channel."""
    stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    sizes = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
    stages = [block for n, m, stride in sizes for block in (Block(n, m, stride), Block(m, m, 1))]
    return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def converted(network: nn.Module) -> nn.Module:
    return convert(copy.deepcopy(network))


def fused(network: nn.Module) -> nn.Module:
    network = converted(network)
    for block in network.modules():
        if isinstance(block, Block):
            block.fused, block.norm.activation = True, "relu"
    return network


EXACT = "PyTorch, float64"
NETWORKS = {
    EXACT: lambda network: copy.deepcopy(network).double(),
    "PyTorch": copy.deepcopy,
    "converted": converted,
    "converted, residuals in the layer": fused,
}


class Trained(NamedTuple):
    """The loss and the seconds of every step."""

    losses: torch.Tensor
    seconds: torch.Tensor


class Trainer:
    """A network and its steps so far. Several trainers can take turns."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.dtype = network, next(network.parameters()).dtype
        self.optimizer = torch.optim.SGD(network.parameters(), 0.005, momentum=0.9)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        x, begin = x.to(self.dtype), time.perf_counter()
        loss = functional.cross_entropy(self.network(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - begin)
        self.losses.append(loss.item())

    def trained(self) -> Trained:
        return Trained(torch.tensor(self.losses, dtype=torch.float64), torch.tensor(self.seconds))


def train(steps: int, batch_size: int, channels_last: bool, width: int = 16) -> dict[str, Trained]:
    """Train all networks. They take turns after every step."""
    torch.manual_seed(0)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    pixels, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = functional.interpolate(pixels.float().view(-1, 1, 8, 8) / 16, scale_factor=4)
    images += 0.5 * torch.randn_like(images)
    start = make_network(width).to(memory_format=memory_format)
    trainers = {name: Trainer(make(start)) for name, make in NETWORKS.items()}
    for chosen in torch.randint(len(images), (steps, batch_size)):
        x = images[chosen].to(memory_format=memory_format)
        for trainer in trainers.values():
            trainer.step(x, labels[chosen])
    return {name: trainer.trained() for name, trainer in trainers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.residual", description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    recycle_memory()
    torch.set_num_threads(THREADS)
    for order in ("first", "last"):
        results = train(options.steps, options.batch_size, order == "last")
        exact = results[EXACT].losses
        print(f"\nChannels {order}, batches of {options.batch_size}, {options.steps} steps, {THREADS} threads\n")
        print(f"{'network':36}{'first loss':>12}{'last loss':>12}{'most off':>12}{'least step':>12}{'median':>12}")
        for name, (losses, seconds) in results.items():
            off = ((losses - exact).abs() / exact).max()
            times = "".join(f"{1e3 * each:9.1f} ms" for each in (seconds.min(), seconds.median()))
            print(f"{name:36}{losses[0]:12.4f}{losses[-1]:12.4f}{off:12.1e}{times}")


if __name__ == "__main__":
    main()
