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


LAYERS = pytest.mark.parametrize("options", [
    {}, {"affine": False}, {"activation": "relu"}, {"training": False},
    {"training": False, "activation": LeakyRelu(0.3)},
], ids=str)  # fmt: skip


def smooth(options):
    """PyTorch's layer and ours, in float64, as functions of x that have derivatives of any order; and an x."""
    activation, training = options.get("activation"), options.get("training", True)
    behind = {None: torch.nn.Identity(), "relu": torch.nn.ReLU()}.get(activation, torch.nn.LeakyReLU(0.3))
    theirs, layer = both("BatchNorm2d", 3, torch.float64, affine=options.get("affine", True))
    layer.activation = activation
    layers = torch.nn.Sequential(theirs, behind).train(training), layer.train(training)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return [lambda x, each=each: each(x).sin().pow(3).sum() for each in layers], x


def composed(layer, x):
    """What a layer computes, of PyTorch's elementary operations."""
    mean, var = layer.running_mean, layer.running_var
    if layer.training:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    mean, var, *weights = (each.reshape(1, 3, 1, 1) for each in (mean, var, *layer.parameters()))
    x_hat = (x - mean) / (var + layer.eps).sqrt()
    y = weights[0] * x_hat + weights[1] if weights else x_hat
    behind = {None: lambda y: y, "relu": torch.relu}
    return behind.get(layer.activation, lambda y: torch.nn.functional.leaky_relu(y, 0.3))(y)


@LAYERS
def test_third_and_fourth_derivatives(options):
    """Those of PyTorch's layer are wrong: they hold the batch's mean and variance constant."""
    (_, own), x = smooth(options)
    layer, found = own.__defaults__[0], []
    for call in (lambda x: composed(layer, x).sin().pow(3).sum(), own):
        leaf, results = x.clone().requires_grad_(), []
        value = call(leaf)
        for _ in range(4):
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            value = gradient.tanh().sum()  # whose derivatives stay small
            results.append(gradient.detach())
        found.append(results)
    for one, other in zip(*found, strict=True):
        near(other, one)


@LAYERS
def test_products_with_second_derivatives(options):
    calls, x = smooth(options)
    v = torch.ones_like(x).cumsum(0)
    for function in (torch.autograd.functional.hvp, torch.autograd.functional.vhp):
        (_, theirs), (_, found) = (function(call, x, v) for call in calls)
        near(found, theirs)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@LAYERS
def test_batches_of_gradients(options):
    calls, x = smooth(options)
    for vectorize in (False, True):
        near(*(torch.autograd.functional.hessian(call, x, vectorize=vectorize) for call in reversed(calls)))
        near(*(torch.autograd.functional.jacobian(call, x, vectorize=vectorize) for call in reversed(calls)))
    leaf, weights = x.clone().requires_grad_(), torch.arange(3.0, dtype=torch.float64)
    found = [torch.autograd.grad(call(leaf), leaf, weights, is_grads_batched=True)[0] for call in calls]
    near(*reversed(found))


def test_tensors_without_data():
    """As PyTorch's, they have shapes, strides and dtypes all the same, forward and backward."""
    with torch.device("meta"):
        theirs, layer = torch.nn.BatchNorm2d(3), ours.BatchNorm2d(3, activation="relu")
        x = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    for each, training in ((theirs, True), (layer, True), (theirs, False), (layer, False)):
        y = each.train(training)(x)
        assert (y.device.type, y.shape, y.stride(), y.dtype) == ("meta", x.shape, x.stride(), x.dtype)
        y.sum().backward()
        assert x.grad.is_meta
        assert each.weight.grad.shape == (3,)
        x.grad = None
    with pytest.raises(ValueError, match="weight must be on the CPU, got a tensor on meta"):
        layer(torch.randn(4, 3, 2, 2))
    with pytest.raises(ValueError, match=r"weight must have shape \(4,\), got \(3,\)"):
        layer(x[:, [0, 0, 0, 0]])
    with pytest.raises(TypeError, match=r"input must be torch.float32, .*, got torch.int32"):
        layer(x.int())
    with pytest.raises(ValueError, match="residual must have the shape of x"):
        layer(x, x[:2])
