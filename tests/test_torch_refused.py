"""What the layers of `bnnumba.torch`, and the functions that take addresses, refuse."""

import math

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from bnnumba import torch as ours  # noqa: E402
from bnnumba.torch import compute  # noqa: E402
from tests.tools.torch_layers import X  # noqa: E402

REFUSED = [
    (lambda: ours.BatchNorm2d(3)(X[0]), ValueError, r"expected 4D input \(got 3D input\)"),
    (lambda: ours.BatchNorm1d(3)(X), ValueError, r"expected 2D or 3D input \(got 4D input\)"),
    (lambda: ours.BatchNorm2d(3)(X[:1, :, :1, :1]), ValueError, "Expected more than 1 value per channel when training"),
    (lambda: ours.BatchNorm2d(3)(X.to("meta")), ValueError, "weight must be on meta, as input is, got a tensor on cpu"),
    (lambda: ours.BatchNorm2d(3)(X.int()), TypeError, "input must be torch.float32, .*, got torch.int32"),
    (
        lambda: ours.BatchNorm2d(3)(X.to(torch.complex64)),
        TypeError,
        "input must be torch.float32, .*, got torch.complex64",
    ),
    (lambda: ours.BatchNorm2d(4)(X), ValueError, r"weight must have shape \(3,\), got \(4,\)"),
    (lambda: ours.BatchNorm2d(4, affine=False)(X), ValueError, r"running_mean must have shape \(3,\), got \(4,\)"),
    (
        lambda: ours.BatchNorm2d(4, affine=False).eval()(X),
        ValueError,
        r"running_mean must have shape \(3,\), got \(4,\)",
    ),
    (lambda: ours.BatchNorm2d(3)(X, X[0]), ValueError, "residual must have the shape of x"),
    (lambda: ours.BatchNorm2d(3)(X, X.double()), TypeError, "residual must have the dtype of x"),
    (lambda: ours.BatchNorm2d(3, activation="gelu"), ValueError, "activation must be None, "),
    (lambda: ours.BatchNorm2d(3, eps=-1.0)(X), ValueError, "epsilon must be >= 0"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_running_statistics_must_be_floats(training):
    layer = ours.BatchNorm2d(3).train(training)
    layer.running_mean = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"running_mean must be a tensor of real floats, got torch.int64"):
        layer(X)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("missing", ["running_mean", "running_var"])
def test_running_statistics_come_in_pairs(missing, training):
    layer = ours.BatchNorm2d(3).train(training)
    setattr(layer, missing, None)
    with pytest.raises(ValueError, match="must either both be None or neither be None"):
        layer(X)


def test_what_is_refused_moves_nothing():
    layer = ours.BatchNorm2d(4, affine=False)
    with pytest.raises(ValueError, match="running_mean"):
        layer(X)
    assert layer.num_batches_tracked == 0
    assert not layer.running_mean.any()


STATISTICS = torch.ones(3, 3, dtype=torch.float64)
AMISS = [  # where kernels are given addresses, so that nothing may be
    (lambda: backward(X, X.int()), TypeError, "x must be torch.float32, .*, got torch.int32"),
    (lambda: backward(X[0], X), ValueError, "dy must have the shape of x"),
    (lambda: backward(X.double(), X), TypeError, "dy must have the dtype of x"),
    (lambda: backward(X.to("meta"), X), ValueError, "dy must be on the CPU, got a tensor on meta"),
    (lambda: backward(X, X, X[0]), ValueError, "y must have the shape of x"),
    (
        lambda: backward(X, X, statistics=STATISTICS[:, :2]),
        ValueError,
        r"statistics must be .*, \(3, 3\), got .*\(3, 2\)",
    ),
    (lambda: backward(X, X, statistics=STATISTICS.float()), ValueError, "statistics must be .*, got torch.float32"),
    (lambda: backward(X, X, statistics=STATISTICS.to("meta")), ValueError, "statistics must be on the CPU"),
    (lambda: backward(X, X, gamma=torch.ones(4)), ValueError, r"weight must have shape \(3,\), got \(4,\)"),
    (lambda: forward(X, torch.ones(3, device="meta")), ValueError, "weight must be on the CPU, got a tensor on meta"),
    (lambda: forward(X, torch.ones(3, 1)), ValueError, r"weight must have shape \(3,\), got \(3, 1\)"),
    (lambda: forward(X, torch.ones(3, dtype=torch.int32)), TypeError, "weight must be a tensor of real floats"),
    (
        lambda: forward(without_memory(2, 3), None),
        ValueError,
        r"input must have memory, got a tensor of shape \(2, 3\)",
    ),
    (lambda: forward(X, without_memory(3)), ValueError, "weight must have memory"),
    (lambda: forward(X, without_memory(3, offset=8)), ValueError, "weight must have memory"),
    (lambda: forward(without_memory(2, 3, offset=8), None), ValueError, "input must have memory"),
    (lambda: compute.move(None, None, None, STATISTICS, 32, 0.1), ValueError, "must either both be None or neither"),
    (lambda: forward(X, None, (None, None, None, 0.1)), ValueError, "must either both be None or neither"),
    (lambda: count(torch.tensor([0, 0])), TypeError, "num_batches_tracked must be a tensor of one torch.int64"),
    (lambda: count(torch.tensor(0.0)), TypeError, "num_batches_tracked must be .*, got torch.float32"),
    (lambda: count(torch.tensor(0, device="meta")), ValueError, "num_batches_tracked must be on the CPU"),
]


def without_memory(*shape, offset=0):
    storage = torch.ones(offset + math.prod(shape))
    tensor = storage[offset:].view(shape)
    storage.untyped_storage().resize_(0)
    return tensor


def forward(x, gamma, moving=None):
    return compute.forward(x, None, gamma, None, None, None, 1e-5, "", moving)


def backward(dy, x, y=None, statistics=STATISTICS, gamma=None):
    return compute.backward(dy, x, y, statistics, gamma, 1e-5, "", False, True, False)


def count(batches):
    return compute.move(torch.zeros(3), torch.ones(3), batches, STATISTICS, 32, 0.1)


@pytest.mark.parametrize(("call", "error", "words"), AMISS)
def test_refused_where_addresses_are_taken(call, error, words):
    with pytest.raises(error, match=words):
        call()
