"""What the layers of `bnnumba.torch` compute, beside PyTorch's."""

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402
from torch.nn.utils import parametrize, prune  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from bnnumba.activations import LeakyRelu  # noqa: E402
from tests.tools import oracle  # noqa: E402
from tests.tools.torch_layers import DTYPES, FIRST, LAST, LAST_3D, X, both, data, near, step  # noqa: E402

CASES = {  # the layer, the input's shape, options: PyTorch's own tests have these
    "1d": ("BatchNorm1d", (4, 10), {}),
    "1d with lengths": ("BatchNorm1d", (4, 5, 3), {}),
    "1d average": ("BatchNorm1d", (4, 10), {"eps": 1e-3, "momentum": None}),
    "1d empty": ("BatchNorm1d", (0, 5, 9), {"affine": False}),
    "2d": ("BatchNorm2d", (2, 3, 6, 6), {}),
    "2d average": ("BatchNorm2d", (2, 3, 6, 6), {"momentum": None}),
    "2d momentum 0": ("BatchNorm2d", (2, 3, 6, 6), {"momentum": 0.0}),
    "2d momentum 1": ("BatchNorm2d", (2, 3, 6, 6), {"momentum": 1.0}),
    "2d without weights": ("BatchNorm2d", (2, 3, 6, 6), {"affine": False, "momentum": 0.8}),
    "2d without statistics": ("BatchNorm2d", (2, 3, 6, 6), {"track_running_stats": False}),
    "2d empty": ("BatchNorm2d", (0, 5, 2, 2), {}),
    "2d empty images": ("BatchNorm2d", (3, 5, 0, 2), {}),
    "2d one of each": ("BatchNorm2d", (1, 1, 1, 2), {}),
    "3d": ("BatchNorm3d", (2, 3, 4, 4, 4), {"momentum": 0.7}),
    "synchronized, alone, columns": ("SyncBatchNorm", (4, 10), {}),
    "synchronized, alone, images": ("SyncBatchNorm", (2, 3, 6, 6), {"momentum": None}),
    "synchronized, alone, without statistics": ("SyncBatchNorm", (2, 3, 6, 6), {"track_running_stats": False}),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_training_and_inference(case, dtype):
    kind, shape, options = CASES[case]
    theirs, layer = both(kind, shape[1], dtype, **options)
    formats = {4: (FIRST, LAST), 5: (FIRST, LAST_3D)}.get(len(shape), (FIRST,))
    for seed in range(4):
        memory_format = formats[seed % len(formats)]
        x, dy = data(shape, dtype, memory_format, seed)
        for training in (True, False):
            results = [step(each.train(training), x, dy) for each in (theirs, layer)]
            for a, b in zip(*results, strict=True):
                near(b, a)
            assert all(each.is_contiguous(memory_format=memory_format) for each in results[1][:2]) or not x.numel()
        assert list(layer.state_dict()) == list(theirs.state_dict())
        for name, buffer in theirs.named_buffers():
            near(getattr(layer, name), buffer)


def test_statistics_keep_what_their_dtype_keeps():
    """Half precision's running statistics, as of a model that is half altogether, are moved in more digits."""
    theirs, layer = both("BatchNorm2d", 3, torch.bfloat16)
    for seed in range(5):
        x, _ = data((2, 3, 6, 6), torch.bfloat16, seed=seed)
        theirs(x)
        layer(x)
    near(layer.running_var, theirs.running_var)
    assert layer.running_mean.dtype is torch.bfloat16


def test_half_precision_with_weights_in_float32():
    """As under autocast."""
    theirs, layer = both("BatchNorm2d", 3)
    x, dy = data((4, 3, 5, 5), torch.bfloat16)
    for a, b in zip(step(theirs, x, dy), step(layer, x, dy), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(b, a, rtol=2e-2, atol=2e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.Sequential(nn.Conv2d(3, 3, 1), layer)(torch.randn(2, 3, 4, 4)).dtype is torch.bfloat16


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("memory_format", [FIRST, LAST], ids=["first", "last"])
def test_relu_and_residual(memory_format, residual, training):
    theirs, layer = both("BatchNorm2d", 3)
    layer.activation = "relu"
    x, dy = data((4, 3, 6, 5), memory_format=memory_format)
    shortcut = data((4, 3, 6, 5), memory_format=memory_format, seed=1)[1]
    results = []
    for each in (theirs, layer):
        each.train(training)
        inputs = [t.clone().requires_grad_() for t in (x, shortcut)[: 1 + residual]]
        y = each(*inputs) if each is layer else torch.relu(sum(inputs[1:], each(inputs[0])))
        results.append([y.detach(), *torch.autograd.grad(y, [*inputs, *each.parameters()], dy)])
    for a, b in zip(*results, strict=True):
        near(b, a)
        assert a.stride() == b.stride()


@pytest.mark.parametrize(
    ("activation", "residual"), [("relu6", False), (oracle.LEAKY, True)], ids=["relu6", "leaky with a residual"]
)
def test_other_activations(activation, residual):
    name, *arguments = oracle.ACTIVATIONS[activation].torch
    theirs, layer = both("BatchNorm2d", 3, torch.float64)
    layer.activation = activation
    with torch.no_grad():
        for each in (theirs, layer):
            each.weight.mul_(4)  # so that y passes 6
    for training in (True, False):
        x, dy = data((4, 3, 6, 5), torch.float64)
        shortcut = data((4, 3, 6, 5), torch.float64, seed=1)[1]
        results = []
        for each in (theirs.train(training), layer.train(training)):
            inputs = [t.clone().requires_grad_() for t in (x, shortcut)[: 1 + residual]]
            y = (
                each(*inputs)
                if each is layer
                else getattr(nn.functional, name)(sum(inputs[1:], each(inputs[0])), *arguments)
            )
            results.append([y.detach(), *torch.autograd.grad(y, [*inputs, *each.parameters()], dy)])
        for a, b in zip(*results, strict=True):
            near(b, a)


def test_a_leaky_relu_of_half_precision():
    theirs, layer = both("BatchNorm2d", 3, torch.bfloat16)
    layer.activation = LeakyRelu(0.25)
    x, dy = data((4, 3, 6, 5), torch.bfloat16)
    expected = step(nn.Sequential(theirs, nn.LeakyReLU(0.25)), x, dy)
    for a, b in zip(expected, step(layer, x, dy), strict=True):
        near(b, a)


def test_an_epsilon_may_be_an_integer():
    theirs, layer = both("BatchNorm2d", 3, eps=1)
    x, dy = data((4, 3, 6, 5))
    for a, b in zip(step(theirs, x, dy), step(layer, x, dy), strict=True):
        near(b, a)


def test_statistics_that_are_not_counted():
    """As PyTorch has it: no average without a count."""
    for momentum in (0.5, None):
        layers, x = both("BatchNorm2d", 3, momentum=momentum), data((4, 3, 6, 5))[0]
        for layer in layers:
            layer.num_batches_tracked = None
            layer(x)
        near(layers[1].running_mean, layers[0].running_mean)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.bfloat16)], ids=str)
def test_weights_of_other_dtypes(dtypes):
    """Each is read, and moved, as what it is; of what is not contiguous, a copy."""
    theirs, layer = both("BatchNorm2d", 3)
    for module in (theirs, layer):
        module.to(torch.float64 if module is theirs else dtypes[0])
    layer.bias = nn.Parameter(layer.bias.detach().to(dtypes[1]))
    layer.running_var = torch.ones(3, 2, dtype=dtypes[1])[:, 0]
    x, dy = data((4, 3, 6, 5))
    for a, b in zip(step(theirs, x.double(), dy.double()), step(layer, x, dy), strict=True):
        coarse = torch.bfloat16 if b.dtype is torch.bfloat16 else torch.float32  # the data's
        near(b.to(coarse), a.to(coarse))
    torch.testing.assert_close(layer.running_var.double(), theirs.running_var, rtol=1e-2, atol=1e-2)
    assert layer.running_var.is_contiguous() is False


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_weights_that_are_made_elsewhere():
    """Then a layer's weight is a property, or a plain attribute, and no parameter."""
    layers, (x, dy) = both("BatchNorm2d", 3), data((4, 3, 6, 5))
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Twice())
        prune.l1_unstructured(layer, "bias", 1)
    for a, b in zip(step(layers[0], x, dy), step(layers[1], x, dy), strict=True):
        near(b, a)
    assert (layers[1].bias == 0).any()


def test_same_bits_every_time():
    layer, (x, dy) = both("BatchNorm2d", 64)[1], data((32, 64, 28, 28))
    first = step(layer, x, dy)
    for _ in range(3):
        assert all(map(torch.equal, first, step(layer, x, dy)))


def test_a_large_offset_costs_nothing():
    """PyTorch's own is off by some thousandths here."""
    x = torch.randn(32, 3, 28, 28, generator=torch.Generator().manual_seed(0)) + 10_000
    exact = nn.BatchNorm2d(3, dtype=torch.float64)(x.double())
    assert (ours.BatchNorm2d(3)(x) - exact).abs().max() < 1e-6


def test_bfloat16_needs_no_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    assert ours.BatchNorm2d(3)(X.bfloat16()).dtype is torch.bfloat16
