"""What autograd makes of the layers of `bnnumba.torch`: first and second derivatives, and parts of them."""

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from bnnumba.activations import LeakyRelu  # noqa: E402
from tests.tools.torch_layers import DTYPES, both, data, near, step  # noqa: E402


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", ""])
def test_first_and_second_derivatives(affine, activation, residual, training):
    torch.manual_seed(1)
    layer = ours.BatchNorm2d(3, affine=affine, activation=activation, dtype=torch.float64).train(training)
    inputs = [torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(1 + residual)]
    weights = {name: torch.randn(3, dtype=torch.float64, requires_grad=True) for name, _ in layer.named_parameters()}

    def call(*tensors):
        values = dict(zip(weights, tensors, strict=False))
        return torch.func.functional_call(layer, values, tensors[len(values) :])

    everything = [*weights.values(), *inputs]
    assert gradcheck(call, everything)
    assert gradgradcheck(call, everything)


def test_derivatives_behind_a_slope():
    test_first_and_second_derivatives(True, LeakyRelu(0.3), False, True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_result_of_a_relu_is_not_kept(dtype):
    """But made again, so that it may be overwritten; half precision's cannot be."""
    layer, (x, dy) = both("BatchNorm2d", 3, dtype)[1], data((4, 3, 6, 5), dtype)
    layer.activation = "relu"
    expected, leaf = step(layer, x, dy), x.clone().requires_grad_()
    y = layer(leaf)
    gradients = [leaf, *layer.parameters()]
    if dtype.itemsize == 2:
        with torch.no_grad():
            y.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y, gradients, dy)
        return
    with torch.no_grad():
        y.zero_()
    assert all(map(torch.equal, torch.autograd.grad(y, gradients, dy), expected[1:]))


def test_second_derivative_of_a_part():
    """A gradient penalty: only that of x is used, and weights are constants."""
    layers = both("BatchNorm2d", 3, torch.float64)
    results = []
    for layer in layers:
        layer.requires_grad_(False)
        x = data((4, 3, 2, 2), torch.float64)[0].requires_grad_()
        (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(dx.square().sum(), x)[0])
    near(results[1], results[0])


def test_only_what_is_asked_for_is_differentiated():
    x, dy = data((4, 3, 2, 2))
    theirs, layer = both("BatchNorm2d", 3)
    for each in (theirs, layer):
        each.weight.requires_grad_(False)
        each(x).backward(dy)
        assert each.weight.grad is None
    near(layer.bias.grad, theirs.bias.grad)
    assert not layer.requires_grad_(False)(x).requires_grad


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch calls the operation for each
def test_gradients_of_many_at_once():
    theirs, layer = both("BatchNorm2d", 3)
    x, dys = data((4, 3, 6, 5))[0], torch.randn(5, 4, 3, 6, 5)
    results = []
    for each in (theirs, layer):
        y = each(x.requires_grad_())
        results.append(torch.vmap(lambda dy, y=y: torch.autograd.grad(y, x, dy, retain_graph=True)[0])(dys))
    near(*reversed(results))


def test_a_third_derivative_is_refused():
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y = ours.BatchNorm2d(3, affine=False, dtype=torch.float64)(x)
    (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no third derivatives"):
        torch.autograd.grad(second.square().sum(), x)
