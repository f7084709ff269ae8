"""Where the layers of `bnnumba.torch` run: compiled, traced, in workers, under other contexts."""

import copy

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from bnnumba.activations import LeakyRelu  # noqa: E402
from bnnumba.torch import compute  # noqa: E402
from tests.tools.subprocesses import run_python  # noqa: E402
from tests.tools.torch_layers import LAST, both, data, near  # noqa: E402


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("activation", ["relu", "relu6", LeakyRelu(0.2)], ids=str)
def test_compiled_without_a_graph_break(activation, exact):
    torch.compiler.reset()
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3)
    model = nn.Sequential(convolution, ours.BatchNorm2d(8, activation=activation), ours.BatchNorm2d(8, momentum=None))
    for layer in model[1:]:
        layer.exact = exact
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


def operations_of(layer, *inputs):
    """The operations that a compiler sees in a call."""
    torch.compiler.reset()
    names = []

    def backend(graph, _):
        names.extend(str(node.target) for node in graph.graph.nodes if node.op.startswith("call"))
        return graph

    torch.compile(layer, backend=backend, fullgraph=True)(*inputs)
    return " ".join(names)


def test_what_a_compiler_gets(handed_over):
    """PyTorch's operations, which mean the same; ours where they would not."""
    x = torch.randn(4, 3, 5, 5)
    plain, exact, skipping = ours.BatchNorm2d(3), ours.BatchNorm2d(3), ours.BatchNorm2d(3, skip_nonfinite=True)
    exact.exact = True
    assert "bnnumba" not in operations_of(plain, x)
    assert "bnnumba" not in operations_of(plain.bfloat16(), x.bfloat16())
    assert "bnnumba" not in operations_of(ours.BatchNorm2d(3), x.half())
    for layer in (exact, skipping, ours.BatchNorm2d(3, eps=0.0), ours.BatchNorm2d(3, momentum=None)):
        assert "bnnumba" in operations_of(layer, x)
    assert "bnnumba" in operations_of(ours.BatchNorm2d(3), x.double())
    layer = ours.BatchNorm2d(3, activation="relu6")
    near(torch.compile(copy.deepcopy(layer), backend="eager")(x, x), layer(x, x))
    compiled = torch.compile(layer, backend="eager")
    with pytest.raises(ValueError, match="residual must have the shape of x"):
        compiled(x, x[:1])


@pytest.mark.parametrize("given", [False, True], ids=["", "statistics"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_registered_operations(residual, given):
    """PyTorch's own check of an operation: its schema, stand-in, derivative, and tracing with dynamic shapes."""
    x, shortcut = (torch.randn(2, 3, 4, 4).to(memory_format=LAST).requires_grad_() for _ in range(2))
    weights = [torch.randn(3, requires_grad=True) for _ in range(2)]
    statistics = (torch.zeros(3), torch.ones(3)) if given else (None, None)
    arguments = x, shortcut if residual else None, *weights, *statistics, 1e-5, "relu" if residual else ""
    torch.library.opcheck(torch.ops.bnnumba.batch_norm.default, arguments)
    running = torch.zeros(3), torch.ones(3), torch.tensor(0)
    batch = torch.ones(3, 3, dtype=torch.float64)
    torch.library.opcheck(torch.ops.bnnumba.move.default, (*running, batch, 32, 0.1))


def test_the_registered_operations_compute_the_same():
    x, dy = data((4, 3, 6, 5))
    forward = x, None, None, None, None, None, 1e-5, "relu"
    y, statistics = compute.forward(*forward)
    assert all(map(torch.equal, torch.ops.bnnumba.batch_norm(*forward), (y, statistics)))
    backward = dy, x, y, statistics, None, 1e-5, "relu", False, True, True
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
