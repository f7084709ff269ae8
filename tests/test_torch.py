"""The layers of `bnnumba.torch` beside PyTorch's, in all that these do."""

import copy
import io
import math
import pickle

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402
from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils import parametrize, prune  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from bnnumba.torch import compute, memory  # noqa: E402
from tests.tools.subprocesses import run_python  # noqa: E402

FIRST, LAST, LAST_3D = torch.contiguous_format, torch.channels_last, torch.channels_last_3d
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
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NEAR = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # of sums of 72 values


def both(kind, features, dtype=torch.float32, **options):
    """PyTorch's layer and ours, with the same weights."""
    theirs = getattr(nn, kind)(features, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.linspace(-1, 2, features))
    layer = getattr(ours, kind)(features, dtype=dtype, **options)
    layer.load_state_dict(theirs.state_dict())
    return theirs, layer


def data(shape, dtype=torch.float32, memory_format=FIRST, seed=0):
    """Some data, and a gradient; with means that are not 0, and multiples of 1/8, so that half precision has them."""
    generator = torch.Generator().manual_seed(seed)
    x, dy = (torch.randint(-16, 24, shape, generator=generator) / 8 for _ in range(2))
    return [each.to(dtype).to(memory_format=memory_format) for each in (x, dy)]


def near(a, b):
    """Whether two tensors differ by roundings only, beside the largest of their values; integers may not."""
    largest = max(1.0, abs(b).max().item()) if b.numel() else 1.0
    torch.testing.assert_close(a, b, rtol=0, atol=NEAR.get(a.dtype, 0) * largest)


def step(layer, x, dy):
    """y, and the gradients of x and of the weights."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], dy)]


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


@pytest.mark.parametrize("dy", ["expanded", "channels last", "sliced"])
def test_gradients_in_any_memory(dy):
    theirs, layer = both("BatchNorm2d", 3)
    x = data((4, 3, 6, 5))[0]
    given = {
        "expanded": torch.ones(1, 3, 1, 1).expand(4, 3, 6, 5),
        "channels last": data((4, 3, 6, 5), memory_format=LAST)[1],
        "sliced": data((4, 3, 6, 10))[1][..., ::2],
    }[dy]
    for a, b in zip(step(theirs, x, given), step(layer, x, given), strict=True):
        near(b, a)


def test_inputs_in_any_memory():
    theirs, layer = both("BatchNorm2d", 3)
    whole, dy = data((8, 3, 6, 10))[0], data((4, 3, 5, 6))[1]
    negative = torch.complex(torch.zeros(4, 3, 5, 6), dy).conj().imag
    assert negative.is_neg()
    sliced, transposed = whole[::2, :, :5, 4:], whole.transpose(2, 3)[1::2, :, :5, :6]
    last = data((8, 3, 5, 6), memory_format=LAST)[0][::2]
    for x in (
        sliced,
        transposed,
        dy.transpose(0, 3).contiguous().transpose(0, 3),
        last,
        negative,
        dy[:1].expand(4, 3, 5, 6),
    ):
        for a, b in zip(step(theirs, x, dy), step(layer, x, dy), strict=True):
            near(b, a)
            assert a.stride() == b.stride()


def test_an_epsilon_may_be_an_integer():
    theirs, layer = both("BatchNorm2d", 3, eps=1)
    x, dy = data((4, 3, 6, 5))
    for a, b in zip(step(theirs, x, dy), step(layer, x, dy), strict=True):
        near(b, a)


def test_an_empty_batch_keeps_its_memory_format():
    x, dy = (each.to(memory_format=LAST) for each in data((0, 3, 6, 5)))
    y, dx, *_ = step(ours.BatchNorm2d(3), x, dy)
    assert y.is_contiguous(memory_format=LAST)
    assert dx.is_contiguous(memory_format=LAST)


def test_statistics_that_are_not_counted():
    """As PyTorch has it: no average without a count."""
    for momentum in (0.5, None):
        layers, x = both("BatchNorm2d", 3, momentum=momentum), data((4, 3, 6, 5))[0]
        for layer in layers:
            layer.num_batches_tracked = None
            layer(x)
        near(layers[1].running_mean, layers[0].running_mean)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", [FIRST, LAST], ids=["first", "last"])
def test_nothing_is_copied(memory_format, dtype):
    x = data((4, 3, 6, 5), dtype, memory_format)[0].requires_grad_()
    order, shape = memory.layout_of(x)
    assert order is memory_format
    assert shape == ((4, 3, 30) if order is FIRST else (120, 3, 1))
    assert memory.dense(x, order).data_ptr() == x.data_ptr()
    weight = torch.ones(3, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    assert memory.features("weight", weight, 3)[0] is weight


# ---- where it runs


def test_compiled_without_a_graph_break():
    torch.compiler.reset()
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3)
    model = nn.Sequential(convolution, ours.BatchNorm2d(8, activation="relu"), ours.BatchNorm2d(8, momentum=None))
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for shape in ((4, 3, 6, 6), (4, 3, 6, 6), (5, 3, 7, 7)):
        for training in (True, False):
            x, results = torch.randn(shape), []
            for each in (model, compiled):
                y = each.train(training)(x)
                results.append([y, *torch.autograd.grad(y.square().sum(), list(each.parameters())[1:])])
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("given", [False, True], ids=["", "statistics"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_registered_operations(residual, given):
    """PyTorch's own check of an operation: its schema, stand-in, derivative, and tracing with dynamic shapes."""
    x, shortcut = (torch.randn(2, 3, 4, 4).to(memory_format=LAST).requires_grad_() for _ in range(2))
    weights = [torch.randn(3, requires_grad=True) for _ in range(2)]
    statistics = (torch.zeros(3), torch.ones(3)) if given else (None, None)
    arguments = x, shortcut if residual else None, *weights, *statistics, 1e-5, residual
    torch.library.opcheck(torch.ops.bnnumba.batch_norm.default, arguments)
    running = torch.zeros(3), torch.ones(3), torch.tensor(0)
    batch = torch.ones(3, 3, dtype=torch.float64)
    torch.library.opcheck(torch.ops.bnnumba.move.default, (*running, batch, 32, 0.1))


def test_the_registered_operations_compute_the_same():
    x, dy = data((4, 3, 6, 5))
    forward = x, None, None, None, None, None, 1e-5, True
    y, statistics = compute.forward(*forward)
    assert all(map(torch.equal, torch.ops.bnnumba.batch_norm(*forward), (y, statistics)))
    backward = dy, x, y, statistics, None, 1e-5, False, False, True, True
    assert all(map(torch.equal, torch.ops.bnnumba.batch_norm_backward(*backward), compute.backward(*backward)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracers_see_the_operations():
    """TorchScript's, and those that watch what the dispatcher does."""
    layer = both("BatchNorm2d", 3)[1].eval()
    (x, _), (other, _) = data((4, 3, 6, 5)), data((4, 3, 6, 5), seed=1)
    assert torch.equal(make_fx(layer)(x)(other), layer(other))
    with torch.no_grad():
        assert torch.equal(torch.jit.trace(layer, x)(other), layer(other))


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad], ids=["no_grad", "enable_grad"])
def test_forward_mode_is_refused(context):
    x = data((4, 3, 6, 5))[0]
    with forward_ad.dual_level(), context(), pytest.raises(NotImplementedError, match="forward mode"):
        ours.BatchNorm2d(3).eval()(forward_ad.make_dual(x, x))


TRANSFORMS = {
    "grad": lambda layer, x: torch.func.grad(lambda x: layer(x).sum())(x),
    "vjp": torch.func.vjp,
    "jvp": lambda layer, x: torch.func.jvp(layer, (x,), (x,)),
    "vmap": lambda layer, x: torch.vmap(layer)(x[None]),
}


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad], ids=["no_grad", "enable_grad"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_are_refused(transform, context):
    with context(), pytest.raises(NotImplementedError, match=r"no transforms of torch\.func"):
        TRANSFORMS[transform](ours.BatchNorm2d(3).eval(), data((4, 3, 6, 5))[0])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_without_gradients(context):
    theirs, layer = both("BatchNorm2d", 3)
    x = data((4, 3, 6, 5))[0]
    with context():
        near(layer(x), theirs(x))
        near(layer.eval()(x), theirs.eval()(x))
    assert not layer(x.clone()).is_inference()
    near(layer.running_var, theirs.running_var)


def test_under_activation_checkpointing():
    layer, x = both("BatchNorm2d", 3)[1].eval(), data((4, 3, 6, 5))[0].requires_grad_()
    (plain,) = torch.autograd.grad(layer(x).square().sum(), x)
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], plain)


THREADS = """
import numba, torch
from bnnumba import torch as ours
from bnnumba.torch import compute
layer, x, run = ours.BatchNorm2d(3), torch.randn(8, 3, 256, 256), compute.run_either
def counting(*arguments):
    print(numba.get_num_threads())
    return run(*arguments)
torch.set_num_threads(1)
layer(x)
try:
    print(numba.threading_layer())
except ValueError:
    print("none")
torch.set_num_threads(2)
compute.run_either = counting
layer(x)
print(numba.get_num_threads())
"""


def test_no_more_threads_than_pytorch_has():
    """With one, Numba starts none; with fewer than Numba has, so many, and for the call only."""
    assert run_python("-c", THREADS, NUMBA_NUM_THREADS="4").split() == ["none", "2", "4"]


class Normalized(torch.utils.data.Dataset):
    """Data that the layer has normalized, in whatever process asks for it."""

    def __init__(self, layer):
        self.layer = layer

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(torch.full((2, 3, 64, 512), float(index)))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_workers_of_a_data_loader(start):
    layer = ours.BatchNorm2d(3).eval()
    layer(torch.randn(2, 3, 64, 512))  # so that a fork comes after threads
    loader = torch.utils.data.DataLoader(
        Normalized(layer), batch_size=None, num_workers=2, multiprocessing_context=start, timeout=300
    )
    for index, y in enumerate(loader):
        torch.testing.assert_close(y, torch.full((2, 3, 64, 512), index / (1 + 1e-5) ** 0.5))


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save"])
def test_copies(way):
    layer = both("BatchNorm2d", 3)[1]
    layer.activation = "relu"
    x = data((4, 3, 6, 5))[0]
    layer(x)
    if way == "save":
        file = io.BytesIO()
        torch.save(layer, file)
        twin = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    else:
        twin = copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))
    assert repr(twin) == repr(layer)
    assert torch.equal(twin.eval()(x), layer.eval()(x))
    twin.running_mean.zero_()
    assert layer.running_mean.any()


def test_state_dicts_of_each_other_and_of_old():
    theirs, layer = both("BatchNorm2d", 3)
    layer(data((4, 3, 6, 5))[0])
    theirs.load_state_dict(layer.state_dict())
    assert torch.equal(theirs.running_var, layer.running_var)
    assert theirs.num_batches_tracked == layer.num_batches_tracked == 1
    old = {name: value for name, value in layer.state_dict().items() if name != "num_batches_tracked"}
    ours.BatchNorm2d(3).load_state_dict(old)  # without metadata, as before PyTorch 0.4.1


def test_repr_and_class():
    layer = ours.BatchNorm2d(3, momentum=None, activation="relu")
    assert isinstance(layer, nn.BatchNorm2d)
    assert repr(layer) == repr(nn.BatchNorm2d(3, momentum=None))[:-1] + ", activation='relu')"
    assert repr(ours.BatchNorm1d(3)) == repr(nn.BatchNorm1d(3))


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


# ---- what is refused

X = torch.ones(2, 3, 4, 4)
REFUSED = [
    (lambda: ours.BatchNorm2d(3)(X[0]), ValueError, r"expected 4D input \(got 3D input\)"),
    (lambda: ours.BatchNorm1d(3)(X), ValueError, r"expected 2D or 3D input \(got 4D input\)"),
    (lambda: ours.BatchNorm2d(3)(X[:1, :, :1, :1]), ValueError, "Expected more than 1 value per channel when training"),
    (lambda: ours.BatchNorm2d(3)(X.to("meta")), ValueError, "input must be on the CPU, got a tensor on meta"),
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
    (lambda: ours.BatchNorm2d(3, activation="gelu"), ValueError, "activation must be None or 'relu'"),
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


def test_inference_needs_no_counter():
    layer = ours.BatchNorm2d(3)
    del layer.num_batches_tracked
    assert layer.eval()(X).shape == X.shape
    with pytest.raises(AttributeError, match="num_batches_tracked"):
        layer.train()(X)


def test_the_default_device_may_be_another():
    layer = ours.BatchNorm2d(3)
    with torch.device("meta"):
        y = layer(X)
    assert torch.equal(y, ours.BatchNorm2d(3)(X))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch calls the operation for each
def test_gradients_of_many_at_once():
    theirs, layer = both("BatchNorm2d", 3)
    x, dys = data((4, 3, 6, 5))[0], torch.randn(5, 4, 3, 6, 5)
    results = []
    for each in (theirs, layer):
        y = each(x.requires_grad_())
        results.append(torch.vmap(lambda dy, y=y: torch.autograd.grad(y, x, dy, retain_graph=True)[0])(dys))
    near(*reversed(results))


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
    return compute.forward(x, None, gamma, None, None, None, 1e-5, False, moving)


def backward(dy, x, y=None, statistics=STATISTICS, gamma=None):
    return compute.backward(dy, x, y, statistics, gamma, 1e-5, False, False, True, False)


def count(batches):
    return compute.move(torch.zeros(3), torch.ones(3), batches, STATISTICS, 32, 0.1)


@pytest.mark.parametrize(("call", "error", "words"), AMISS)
def test_refused_where_addresses_are_taken(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_bfloat16_needs_no_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    assert ours.BatchNorm2d(3)(X.bfloat16()).dtype is torch.bfloat16


def test_a_third_derivative_is_refused():
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y = ours.BatchNorm2d(3, affine=False, dtype=torch.float64)(x)
    (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no third derivatives"):
        torch.autograd.grad(second.square().sum(), x)


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
