"""What the layers of `bnnumba.torch` leave to PyTorch's kernels: results to the bit those of PyTorch's layers."""

import copy

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from bnnumba.activations import LeakyRelu  # noqa: E402
from bnnumba.torch import handing  # noqa: E402

pytestmark = pytest.mark.usefixtures("handed_over")

OPTIONS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"momentum": 0.0, "eps": 1e-3}]
BEHIND = {None: lambda y: y, "relu": functional.relu, "relu6": functional.relu6}


def pair(kind="BatchNorm2d", channels=3, **options):
    theirs, mine = (getattr(module, kind)(channels, **options) for module in (nn, ours))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(0.5, 1.5)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def results(layer, x, *residual, behind=lambda y: y):
    """y, all gradients, and what the layer has afterwards."""
    inputs = [each.clone().requires_grad_() for each in (x, *residual)]
    y = behind(layer(*inputs))
    gradients = torch.autograd.grad(
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum(), [*inputs, *layer.parameters()]
    )
    return [y, *gradients, *(buffer.clone() for buffer in layer.buffers())]


def equal(found, expected):
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (8, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_small_calls_have_the_bits_of_pytorch(options, shape, order):
    torch.manual_seed(0)
    theirs, mine = pair(**options)
    for training in (True, True, False):
        x = torch.randn(shape).to(memory_format=order)
        expected = results(theirs.train(training), x)
        assert equal(results(mine.train(training), x), expected)
        assert mine(x).stride() == theirs(x).stride()


@pytest.mark.parametrize("activation", [None, "relu", "relu6", LeakyRelu(0.2)], ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_activations_and_residuals(activation, residual):
    torch.manual_seed(0)
    theirs, mine = pair(kind="BatchNorm1d", channels=5)
    mine.activation = activation
    x, shortcut = torch.randn(7, 5), torch.randn(7, 5)
    behind = BEHIND.get(activation, lambda y: functional.leaky_relu(y, 0.2))
    inputs = (x, shortcut) if residual else (x,)

    def composed(x, *residual):
        y = theirs(x)
        return behind(y + residual[0] if residual else y)

    composed.parameters, composed.buffers = theirs.parameters, theirs.buffers
    assert equal(results(mine, *inputs), results(composed, *inputs))


def test_which_calls_are_handed_over(monkeypatch):
    given = []
    monkeypatch.setattr("bnnumba.torch.modules.by_pytorch", lambda *arguments: given.append(arguments) or arguments[1])

    def handed(layer, x):
        given.clear()
        layer(x)
        return bool(given)

    x = torch.randn(4, 3, 5, 5)
    exact, skipping = ours.BatchNorm2d(3), ours.BatchNorm2d(3, skip_nonfinite=True)
    exact.exact = True
    assert handed(ours.BatchNorm2d(3), x)
    for layer, data in (
        (exact, x),
        (skipping, x),
        (ours.BatchNorm2d(3, eps=0.0), x),
        (ours.BatchNorm2d(3), x[:0]),
        (ours.BatchNorm2d(3).double(), x.double()),
        (ours.BatchNorm2d(3).double(), x),
    ):
        assert not handed(layer, data)
    one = ours.BatchNorm1d(1)
    for training, alone, most in ((True, True, handing.SMALL_STEP), (False, False, handing.SMALL_INFERENCE // 3)):
        one.train(training).activation = None if alone else "relu"
        assert handed(one, torch.zeros(most, 1))
        assert not handed(one, torch.zeros(most + 1, 1))


def test_errors_are_the_same_at_any_size():
    layer = ours.BatchNorm2d(3)
    exact = copy.deepcopy(layer)
    exact.exact = True
    for x in (torch.randn(4, 3), torch.randn(4, 2, 5, 5), torch.randn(1, 3, 1, 1), torch.ones(4, 3, 5, 5, dtype=int)):
        errors = []
        for each in (layer, exact):
            with pytest.raises((TypeError, ValueError)) as caught:
                each(x)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]
    x = torch.randn(4, 3, 5, 5)
    with pytest.raises(ValueError, match="residual must have the shape of x"):
        layer(x, x[:1])
    assert layer.num_batches_tracked == 0


def test_second_derivatives():
    theirs, mine = pair()
    for layer in (theirs, mine):
        layer.double().float()
    x = torch.randn(4, 3, 5, 5)

    def twice(layer):
        given = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(layer(given).pow(3).sum(), given, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), given)

    assert equal(twice(mine), twice(theirs))
