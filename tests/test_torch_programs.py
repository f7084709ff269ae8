"""What programs do with layers and models: synchronize, export, trace, average; lazy layers; NaN in a batch."""

import copy
import logging

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel, update_bn  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from tests.tools.torch_layers import data, near, step  # noqa: E402


def make_model():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5))
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 6, 6) + 1)
    return model


def kinds(model):
    return [type(module) for module in model.modules()]


# ---- conversion to and from SyncBatchNorm


@pytest.mark.parametrize("before", [False, True], ids=["", "converted before"])
def test_synchronized_and_back(before):
    model = make_model()
    twin, layers = copy.deepcopy(model), list(model)
    if before:
        ours.convert(model)
    assert ours.convert(model, sync=True) is model
    assert [type(model[k]) for k in (1, 4, 8)] == [ours.SyncBatchNorm] * 3
    assert list(model) == layers
    assert list(model.state_dict()) == list(twin.state_dict())
    assert repr(model[1]).startswith("SyncBatchNorm(4, eps=1e-05, momentum=0.1")
    x = torch.randn(8, 3, 6, 6)
    for training in (True, False):  # without a process group, as BatchNorm
        near(model.train(training)(x), twin.train(training)(x))
    ours.convert(model, back=True)
    assert kinds(model) == kinds(twin)
    assert [vars(a).keys() for a in model.modules()] == [vars(b).keys() for b in twin.modules()]


@pytest.mark.parametrize("sync", [False, True])
def test_models_that_were_trained_with_pytorchs_own(sync):
    """They run on a CPU, in all dimensions, and go back to what they were."""
    plain = make_model()
    model = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    model[1].process_group = group = object()
    ours.convert(model, sync=sync)
    assert [type(model[k]) for k in (1, 4, 8)] == [ours.SyncBatchNorm] * 3
    assert [model[k].process_group for k in (1, 4)] == [group, None]
    x = torch.randn(8, 3, 6, 6)
    near(model.eval()(x), plain.eval()(x))
    ours.convert(model, back=True)
    assert [type(model[k]) for k in (1, 4, 8)] == [nn.SyncBatchNorm] * 3
    assert model[1].process_group is group
    near(model(x), plain(x))


def test_layers_of_our_own_go_back_to_pytorchs():
    model = nn.Sequential(ours.SyncBatchNorm(3), ours.SyncBatchNorm(3, activation="relu"))
    ours.convert(model)
    assert kinds(model)[1:] == [ours.SyncBatchNorm] * 2
    ours.convert(model, back=True)
    assert kinds(model)[1:] == [nn.SyncBatchNorm, ours.SyncBatchNorm]
    assert model[0].process_group is None


class Own(nn.BatchNorm2d):
    """A caller's own layer."""


def test_a_report_by_request(caplog):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), Own(3), nn.BatchNorm2d(3, device="meta"))
    why = "its class is Own, and not one of PyTorch's BatchNorm layers itself"
    with caplog.at_level(logging.INFO, logger="bnnumba"):
        report = ours.convert(model, report=True)
    assert report.converted == {"0": "BatchNorm2d of bnnumba", "": "calls a layer and the activation behind it at once"}
    assert report.left == {"2": why, "3": "its weight is on meta"}
    assert f"2: left as it is: {why}" in str(report).split("\n")
    assert sorted(str(report).split("\n")) == sorted(caplog.messages)
    assert ours.convert(model, report=True) == ({}, report.left)  # nothing more
    assert ours.convert(model, report=True, sync=True).converted["0"] == "SyncBatchNorm of bnnumba"
    assert ours.convert(model, report=True, back=True).converted == {
        "": "Sequential of PyTorch",
        "0": "BatchNorm2d of PyTorch",
    }
    assert (
        ours.convert(nn.Sequential(nn.LazyBatchNorm1d()), sync=True, report=True).left["0"].startswith("it has no fe")
    )


REFUSED = [
    ({"back": True, "sync": True}, ValueError, "sync must be False where back is True"),
    ({"process_group": 3}, ValueError, "process_group must be None without sync=True, got int 3"),
    ({"sync": 1}, TypeError, "sync must be"),
    ({"report": None}, TypeError, "report must be"),
]


@pytest.mark.parametrize(("options", "error", "words"), REFUSED)
def test_refused(options, error, words):
    with pytest.raises(error, match=words):
        ours.convert(nn.ReLU(), **options)


# ---- lazy layers

LAZY = {"1d": (4, 3), "2d": (4, 3, 5, 5), "3d": (4, 3, 2, 2, 2)}


@pytest.mark.parametrize("converted", [False, True], ids=["", "converted"])
@pytest.mark.parametrize("kind", LAZY)
def test_lazy_layers(kind, converted):
    name = f"BatchNorm{kind}"
    theirs, twin = (getattr(nn, f"Lazy{name}")(momentum=0.3) for _ in range(2))
    layer = ours.convert(twin) if converted else getattr(ours, f"Lazy{name}")(momentum=0.3)
    assert type(layer) is getattr(ours, f"Lazy{name}")
    x, dy = data(LAZY[kind])
    with torch.no_grad():
        near(layer(x), theirs(x))
    assert type(layer) is getattr(ours, name)
    for a, b in zip(step(layer, x, dy), step(theirs, x, dy), strict=True):
        near(a, b)
    near(layer.running_var, theirs.running_var)
    assert type(ours.convert(layer, back=True)) is getattr(nn, name)


def test_a_lazy_layer_with_a_residual_and_an_activation():
    layer = ours.LazyBatchNorm2d(activation="relu", skip_nonfinite=True)
    x = data((4, 3, 5, 5))[0]
    expected = torch.relu(nn.BatchNorm2d(3)(x) + x)
    near(layer(x, x), expected)
    assert (layer.activation, layer.skip_nonfinite, layer.num_features) == ("relu", True, 3)
    assert type(ours.convert(nn.LazyBatchNorm2d())) is ours.LazyBatchNorm2d
    assert type(ours.convert(ours.LazyBatchNorm2d(), back=True)) is nn.LazyBatchNorm2d


# ---- batches that are not finite


@pytest.mark.parametrize("way", ["eager", "compiled", "copies", "gradients off"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_batches_that_are_not_finite_do_not_move_the_statistics(bad, way):
    layer, plain = ours.BatchNorm2d(3, skip_nonfinite=True), ours.BatchNorm2d(3)
    if way == "copies":  # in memory that kernels do not take
        layer.running_var = torch.ones(3, 2)[:, 0]
    call = torch.compile(layer, backend="aot_eager", fullgraph=True) if way == "compiled" else layer
    x = data((4, 3, 5, 5))[0]
    with torch.no_grad() if way == "gradients off" else torch.enable_grad():
        for each in (call, plain):
            each(x)
        assert torch.equal(layer.running_var, plain.running_var)
        x[2, 1, 3, 3] = bad
        before, y = layer.running_mean.clone(), call(x)
        assert torch.equal(y.isnan(), plain(x).isnan())
    assert layer.running_mean[1] == before[1]
    assert layer.running_var.isfinite().all()
    assert plain.running_mean[1].isnan()
    near(layer.running_mean[::2], plain.running_mean[::2])
    near(layer.running_var[::2], plain.running_var[::2])
    assert layer.num_batches_tracked == 2


def test_skip_nonfinite_is_an_option():
    assert repr(ours.BatchNorm2d(3, skip_nonfinite=True)).endswith("skip_nonfinite=True)")
    assert "skip" not in repr(ours.BatchNorm2d(3))
    with pytest.raises(TypeError, match="skip_nonfinite must be"):
        ours.BatchNorm2d(3, skip_nonfinite=1)
    x = torch.full((2, 3, 4, 4), torch.nan)
    layers = [ours.BatchNorm2d(3, skip_nonfinite=True, momentum=None) for _ in range(2)]
    layers[1].num_batches_tracked = None
    for layer in layers:
        layer(x)
        assert not layer.running_mean.any()


# ---- PyTorch's own tools


@pytest.mark.parametrize("sync", [False, True], ids=["", "synchronized"])
def test_exported(sync, handed_over):
    model = ours.convert(make_model(), sync=sync).eval()
    x = torch.randn(8, 3, 6, 6)
    program = torch.export.export(model, (x,))
    assert not any("bnnumba" in str(node.target) for node in program.graph.nodes)  # PyTorch alone can load it
    near(program.module()(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("sync", [False, True], ids=["", "synchronized"])
def test_traced(sync):
    model = ours.convert(make_model(), sync=sync).eval()
    x, other = torch.randn(2, 8, 3, 6, 6)
    with torch.no_grad():
        near(torch.jit.trace(model, x)(other), model(other))


@pytest.mark.parametrize("sync", [False, True], ids=["", "synchronized"])
def test_averaged_and_its_statistics_made_again(sync):
    model = make_model()
    twins = [AveragedModel(model), AveragedModel(ours.convert(copy.deepcopy(model), sync=sync))]
    batches = [torch.randn(8, 3, 6, 6) for _ in range(3)]
    for each in twins:
        update_bn(batches, each)
    for a, b in zip(twins[0].buffers(), twins[1].buffers(), strict=True):
        near(b, a)
