"""Whole models of PyTorch beside the same, converted: `python -m bench.torch_models`.

A UNet, a ResNet-18 and a MobileNetV2, small enough for a minute each: training steps and inference, channels first and
last, eager and compiled. The two of a pair have the same weights and take turns; the least time of each counts. Before,
their results are compared.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.machine import THREADS, recycle_memory
from bnnumba.torch import convert

ORDERS = {"first": torch.contiguous_format, "last": torch.channels_last}
MODES: dict[str, Callable] = {"eager": lambda model: model, "compiled": torch.compile}


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """body(x) + shortcut(x), with a ReLU behind it where there is one."""

    def __init__(self, body: list[nn.Module], shortcut: list[nn.Module], relu: bool) -> None:
        super().__init__()
        self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    """He et al. (2015), for images of 64 x 64."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        body = [*conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs)]
        return Residual(body, conv_norm(inputs, outputs, 1, stride) if stride > 1 else [], relu=True)

    widths = [64, 64, 128, 256, 512]
    stages = [each for n, m in pairwise(widths) for each in (block(n, m, 1 if n == m else 2), block(m, m, 1))]
    stem = [*conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def mobilenet() -> nn.Module:
    """Sandler et al. (2018), with half of the channels."""

    def block(inputs: int, outputs: int, stride: int, factor: int) -> nn.Module:
        wide = inputs * factor
        body = [*conv_norm(inputs, wide, 1), nn.ReLU6(), *conv_norm(wide, wide, 3, stride, wide), nn.ReLU6()]
        body += conv_norm(wide, outputs, 1)
        same = stride == 1 and inputs == outputs
        return Residual(body, [], relu=False) if same else nn.Sequential(*body)

    stages = [(1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1)]
    layers: list[nn.Module] = [*conv_norm(3, 16, 3, 2), nn.ReLU6()]
    inputs = 16
    for factor, outputs, number, stride in stages:
        for each in range(number):
            layers.append(block(inputs, outputs, stride if each == 0 else 1, factor))
            inputs = outputs
    last = [*conv_norm(inputs, 640, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(640, 10)]
    return nn.Sequential(*layers, *last)


class UNet(nn.Module):
    """Ronneberger et al. (2015), with batch normalization."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(self.twice(n, m) for n, m in pairwise((3, *widths)))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(m, n, 2, 2) for n, m in pairwise(widths))
        self.up = nn.ModuleList(self.twice(2 * n, n) for n in widths[:-1])
        self.head = nn.Conv2d(widths[0], 10, 1)

    @staticmethod
    def twice(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(*conv_norm(inputs, outputs), nn.ReLU(), *conv_norm(outputs, outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for depth, down in enumerate(self.down):
            x = down(x if depth == 0 else functional.max_pool2d(x, 2))
            kept.append(x)
        for rise, up, beside in zip(reversed(self.rise), reversed(self.up), reversed(kept[:-1]), strict=True):
            x = up(torch.cat([beside, rise(x)], 1))
        return self.head(x).mean((2, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "UNet": (UNet, (4, 3, 96, 96)),
    "ResNet-18": (resnet18, (16, 3, 64, 64)),
    "MobileNetV2": (mobilenet, (16, 3, 64, 64)),
}


def steps(model: nn.Module, call: Callable, x: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """A training step, and inference; each returns what its results are compared by."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)

    def train() -> Tensor:
        model.train()
        loss = functional.cross_entropy(call(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer() -> Tensor:
        model.eval()
        with torch.no_grad():
            return call(x)

    return {"training step": train, "inference": infer}


def measure(name: str, order: str, mode: str, rounds: int) -> Iterator[tuple[str, list[float]]]:
    """Yield each kind of step with the least seconds of PyTorch and of the converted model."""
    torch.manual_seed(0)
    torch.compiler.reset()
    make, shape = MODELS[name]
    theirs = make().to(memory_format=ORDERS[order])
    ours = convert(copy.deepcopy(theirs))
    x, labels = torch.randn(shape).to(memory_format=ORDERS[order]), torch.randint(10, shape[:1])
    pairs = [steps(model, MODES[mode](model), x, labels) for model in (theirs, ours)]
    for kind in pairs[0]:
        runs = [pair[kind] for pair in pairs]
        torch.testing.assert_close(*(run() for run in runs), rtol=5e-2, atol=1e-2)
        yield kind, least(runs, rounds)


def least(runs: list[Callable], rounds: int) -> list[float]:
    """The least seconds of each, which take turns."""
    seconds = [float("inf")] * len(runs)
    for _ in range(rounds):
        for each, run in enumerate(runs):
            begin = time.perf_counter()
            run()
            seconds[each] = min(seconds[each], time.perf_counter() - begin)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.torch_models", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    options = parser.parse_args()
    recycle_memory()
    torch.set_num_threads(THREADS)
    print(f"{THREADS} threads, PyTorch {torch.__version__}, the least of {options.rounds} rounds\n")
    print(f"{'model':14}{'channels':10}{'mode':10}{'':16}{'PyTorch':>10}{'converted':>11}{'times as fast':>15}")
    for name, order, mode in product(options.models, ORDERS, options.modes):
        for kind, (theirs, ours) in measure(name, order, mode, options.rounds):
            times = f"{1e3 * theirs:7.1f} ms{1e3 * ours:8.1f} ms{theirs / ours:15.2f}"
            print(f"{name:14}{order:10}{mode:10}{kind:16}{times}", flush=True)


if __name__ == "__main__":
    main()
