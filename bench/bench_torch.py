"""BatchNorm2d of `bnnumba.torch` beside PyTorch's own: forward and backward through autograd; checked, and then timed.

As in `bench_batch_norm`, nothing is timed without --benchmark-only. Both layers return new tensors in recycled memory.
What follows PyTorch's layer works in place. The layers take turns, and the shortest time of all turns counts.
"""

from collections.abc import Callable
from functools import lru_cache

import pytest

from bench.libraries import OURS
from bench.machine import THREADS
from bench.summary import Measured

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)
BatchNorm2d = pytest.importorskip("bnnumba.torch").BatchNorm2d

torch.set_num_threads(THREADS)

SMALL = ((8, 16, 8, 8), (32, 64, 8, 8))
SHAPES = ((32, 64, 16, 16), (32, 256, 14, 14), (4, 96, 57, 57), (32, 2048, 7, 7), (32, 64, 56, 56), (32, 64, 112, 112))
ORDERS = {"first": torch.contiguous_format, "last": torch.channels_last}
STEPS = {  # what follows PyTorch's layer; whether it takes a residual; the activation of our layer, which fuses both
    "alone": (lambda y, _: y, False, None),
    "relu": (lambda y, _: y.relu_(), False, "relu"),
    "residual relu": (lambda y, residual: y.add_(residual).relu_(), True, "relu"),
}
TURNS = 8
NEAR_ZERO = 1e-4  # closer to 0, rounding decides whether a ReLU passes an element: its dy is set to 0


@lru_cache(maxsize=1)
def make_problem(shape: tuple[int, ...], order: str, step: str) -> tuple:
    """x, the residual and dy; PyTorch's layer in float64, and its results."""
    torch.manual_seed(0)
    x, residual, dy = (torch.randn(shape).to(memory_format=ORDERS[order]) for _ in range(3))
    exact = torch.nn.BatchNorm2d(shape[1], dtype=torch.float64)
    torch.nn.init.uniform_(exact.weight, 0.5, 1.5)
    torch.nn.init.normal_(exact.bias)
    y = exact(x.double()).detach() + (residual if STEPS[step][1] else 0)
    dy[y.abs() < NEAR_ZERO] = 0
    del y
    return x, residual, dy, exact, make_run(exact, step, False, x.double(), residual.double(), dy.double())()


def make_run(layer: Callable, step: str, ours: bool, x: object, residual: object, dy: object) -> Callable:
    """A function that returns y and all gradients."""
    behind, adds, _ = STEPS[step]
    inputs = [t.clone().requires_grad_() for t in ((x, residual) if adds else (x,))]
    leaves = [*inputs, *layer.parameters()]

    def run() -> tuple:
        y = layer(*inputs) if ours else behind(layer(inputs[0]), inputs[-1])
        return y.detach(), *torch.autograd.grad(y, leaves, dy)

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.option
    shapes = SMALL[:1] if option.benchmark_disable else (*SMALL, *(SHAPES if option.all_cases else SHAPES[:3]))
    metafunc.parametrize("name", [OURS, "torch"])
    metafunc.parametrize("turn", range(1 if option.benchmark_disable else TURNS))
    metafunc.parametrize("step", STEPS)
    metafunc.parametrize("order", ORDERS)
    metafunc.parametrize("shape", shapes, ids=lambda shape: "x".join(map(str, shape)))


def test_torch(
    benchmark: Callable, shape: tuple[int, ...], order: str, step: str, turn: int, name: str, measurements: list
) -> None:
    x, residual, dy, exact, right = make_problem(shape, order, step)
    ours = name == OURS
    layer = BatchNorm2d(shape[1], activation=STEPS[step][2]) if ours else torch.nn.BatchNorm2d(shape[1])
    layer.load_state_dict(exact.state_dict())
    run = make_run(layer, step, ours, x, residual, dy)
    for result, expected in zip(run(), right, strict=True):
        error = (result - expected).abs().max() / expected.abs().max()
        assert error < 1e-4, f"off by {error:.2g} of the largest value"

    benchmark.name, benchmark.group = f"{name}, turn {turn}", f"{order} {shape}, {step}"
    benchmark(run)
    if benchmark.enabled:
        least = benchmark.stats.stats.min
        for row in (step, f"{step}, channels {order}"):
            case = f"{order}-{shape}"
            measurements.append(Measured(case, f"small, {row}" if shape in SMALL else row, name, least))
