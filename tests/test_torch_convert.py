"""`bnnumba.torch.convert`: what it changes in a model, what it leaves alone, and that it can be undone."""

import copy
import io
import logging
import pickle

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402

import bnnumba  # noqa: E402
from bnnumba import torch as ours  # noqa: E402
from bnnumba.torch import modules  # noqa: E402


class Block(nn.Module):
    """A residual block, whose own ReLU is also in its sequence."""

    def __init__(self, channels):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            self.relu,
            nn.Conv2d(channels, channels, 1),
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.relu(self.norm(self.body(x)) + x)


def make_model():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Block(4), head)


def train(model, steps=3):
    """The losses of some steps."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        x, labels = torch.randn(8, 3, 6, 6, generator=generator), torch.randint(3, (8,), generator=generator)
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor([*losses, *model.eval()(x).flatten().tolist()])


def kinds(model):
    return [type(module) for module in model.modules()]


def fused(model, shape=(4, 3, 6, 6)):
    """The names of the layers that do the work of an activation, in a call."""
    model = copy.deepcopy(model)  # the call moves its statistics
    found, names = [], {id(module): name for name, module in model.named_modules()}

    def activated(layer, x, residual, activation):
        if activation:
            found.append(names[id(layer)])
        return compute(layer, x, residual, activation)

    compute, modules.Layer.activated = modules.Layer.activated, activated
    try:
        model(torch.randn(shape))
    finally:
        modules.Layer.activated = compute
    return found


def test_a_model_trains_alike_and_is_restored():
    model = make_model()
    twin, before = copy.deepcopy(model), dict(model.named_modules())
    expected = train(twin)
    assert ours.convert(model) is model
    assert sum(issubclass(kind, (ours.BatchNorm1d, ours.BatchNorm2d)) for kind in kinds(model)) == 4
    assert fused(model) == ["1", "3.body.1", "4.2"]
    assert all(layer.activation is None for layer in model.modules() if hasattr(layer, "activation"))
    assert list(model.state_dict()) == list(twin.state_dict())
    torch.testing.assert_close(train(model), expected, rtol=1e-4, atol=1e-5)
    assert model[2].training is False
    assert ours.convert(model, back=True) is model
    assert dict(model.named_modules()) == before
    assert kinds(model) == kinds(twin)
    assert not any(hasattr(module, "activation") for module in model.modules())
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model(torch.ones(2, 3, 6, 6)), twin(torch.ones(2, 3, 6, 6)), rtol=1e-3, atol=1e-4)


def test_layers_stay_the_objects_that_they_are():
    model = make_model()
    layer, weight, calls = model[1], model[1].weight, []
    layer.register_forward_hook(lambda *_: calls.append(1))
    ours.convert(model)
    assert model[1] is layer
    assert model[1].weight is weight
    model(torch.randn(2, 3, 6, 6))
    assert calls == [1]


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.3),
}


class Named(nn.Sequential):
    """A sequence as torchvision has them: with a constructor of its own."""

    def __init__(self, channels, activation):
        super().__init__(nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels), activation)


def pair(model):
    """A model, and its converted copy."""
    return model, ours.convert(copy.deepcopy(model))


def check_same(model, converted, training=True):
    """The same results, gradients and running statistics, to float32's rounding."""
    x = torch.randn(8, 3, 6, 6)
    outcomes = []
    for each in (model, converted):
        each.train(training)
        given = x.clone().requires_grad_()
        y = each(given)
        y.square().sum().backward()
        outcomes.append([y, given.grad, *each.state_dict().values()])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_behind_a_layer_are_fused(name, training):
    model, converted = pair(nn.Sequential(nn.BatchNorm2d(3), ACTIVATIONS[name], nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)))
    assert fused(converted) == ["0"]
    check_same(model, converted, training)


def test_sequences_of_a_callers_own_class():
    model, converted = pair(Named(4, nn.ReLU6()))
    assert fused(converted) == ["1"]
    assert isinstance(converted, Named)
    assert repr(converted) == repr(model)
    check_same(model, converted)
    assert type(ours.convert(converted, back=True)) is Named


UNFUSED = {
    "its hook": lambda m: m[1].register_forward_hook(lambda *_: None),
    "its hook before": lambda m: m[1].register_forward_pre_hook(lambda *_: None),
    "its hook backward": lambda m: m[1].register_full_backward_hook(lambda *_: None),
    "the ReLU's hook": lambda m: m[2].register_forward_hook(lambda *_: None),
    "the ReLU's hook backward": lambda m: m[2].register_full_backward_hook(lambda *_: None),
    "its own activation": lambda m: setattr(m[1], "activation", "relu6"),
    "another in the ReLU's place": lambda m: m.__setitem__(2, nn.GELU()),
    "another bound": lambda m: m.__setitem__(2, nn.Hardtanh(0, 6)),
    "a changed bound": lambda m: m.__setitem__(2, changed(nn.ReLU6(), max_val=4.0)),
    "a slope that is negative": lambda m: m.__setitem__(2, nn.LeakyReLU(-0.1)),
    "a slope of 0": lambda m: m.__setitem__(2, nn.LeakyReLU(0)),
    "a subclass": lambda m: m.__setitem__(2, Doubled()),
    "a forward of its own": lambda m: setattr(m[2], "forward", lambda x: 2 * x),
    "the layer's forward of its own": lambda m: setattr(m[1], "forward", lambda x: 2 * x),
    "something between": lambda m: m.insert(2, nn.Identity()),
    "no ReLU": lambda m: m.pop(2),
    "another layer": lambda m: m.__setitem__(1, nn.BatchNorm2d(4)),
    "another kind of layer": lambda m: m.__setitem__(1, nn.InstanceNorm2d(4)),
}


class Doubled(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


def changed(module, **attributes):
    vars(module).update(attributes)
    return module


@pytest.mark.parametrize("why", UNFUSED)
def test_what_changes_after_the_conversion_counts(why):
    """What follows a layer, and what watches it, is seen in each call."""
    model, converted = pair(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    assert fused(converted) == ["1"]
    for each in (model, converted):
        UNFUSED[why](each)
    check_same(model, converted)
    if why != "its own activation":
        assert fused(converted) == []
    ours.convert(converted, back=True)
    assert type(converted) is nn.Sequential


def test_parts_of_a_sequence():
    model, converted = pair(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    for part in (
        lambda m: m[:2],
        lambda m: m[:3],
        lambda m: nn.Sequential(*list(m.children())[:-1]),
        lambda m: nn.Sequential(*list(m.children())[:-2]),
        lambda m: nn.Sequential(m[0], m[1], nn.GELU()),
        lambda m: m[:2] + nn.Sequential(nn.LeakyReLU(0.1)),
    ):
        check_same(part(model), part(converted))


def test_a_relu_elsewhere_still_is_one():
    """A tensor carries no mark: it may have changed since."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), self.relu)

        def forward(self, x):
            y = self.body(x)
            y = y - 0.5 if self.training else y.sub_(0.5)
            return self.relu(y)

    model, converted = pair(Shared())
    for training in (True, False):
        model.train(training), converted.train(training)
        x = torch.randn(8, 3, 6, 6)
        with torch.no_grad():
            torch.testing.assert_close(converted(x), model(x))
    assert not vars(converted.body(x))


def test_hooks_on_every_module_see_all():
    converted = ours.convert(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, y: seen.append((type(module), y.min() < 0))
    )
    try:
        converted(torch.randn(4, 3, 2, 2))
    finally:
        handle.remove()
    assert seen[:2] == [(ours.BatchNorm2d, True), (nn.ReLU, False)]


@pytest.mark.parametrize("model", [make_model(), Named(4, nn.ReLU())], ids=["plain", "named"])
def test_copies_and_pickles(model):
    ours.convert(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    twins = [copy.deepcopy(model), copy.copy(model), torch.load(file, weights_only=False)]
    twins += [pickle.loads(pickle.dumps(model, protocol)) for protocol in (1, 2, 5)]
    x = torch.randn(4, 3, 6, 6)
    expected = model.eval()(x)
    for twin in twins:
        assert kinds(twin) == kinds(model)
        assert torch.equal(twin.eval()(x), expected)
        assert kinds(ours.convert(twin, back=True)) == kinds(make_model() if len(model) > 3 else Named(4, nn.ReLU()))
        ours.convert(model)  # a shallow copy shares its modules
    y = io.BytesIO()
    torch.save(expected, y)
    assert b"bnnumba" not in y.getvalue()


def test_a_compiled_model_has_one_graph(handed_over):
    model, converted = pair(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    graphs = []
    compiled = torch.compile(converted, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
    check_same(model, compiled)
    assert len(graphs) == 1
    assert [node.target for node in graphs[0].graph.nodes].count(nn.functional.relu) == 1


def test_layers_with_activations_are_not_replaced_in_silence():
    """SyncBatchNorm, and quantized layers, would lose the activation."""
    model = nn.Sequential(ours.BatchNorm2d(3, activation="relu"))
    with pytest.raises(RuntimeError, match=r"activation='relu', which SyncBatchNorm and quantized layers have not"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    plain = nn.SyncBatchNorm.convert_sync_batchnorm(ours.convert(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())))
    assert type(plain[0]) is nn.SyncBatchNorm
    with pytest.raises(AttributeError, match="no attribute 'qconfigs'"):
        _ = model[0].qconfigs


def test_from_torch_takes_the_activation_and_no_other_forward():
    for activation in (None, "relu6", bnnumba.activations.LeakyRelu(0.2)):
        module = ours.BatchNorm2d(3, activation=activation)
        assert bnnumba.BatchNormalization.from_torch(module).activation == activation
    module = changed(nn.BatchNorm2d(3), activation="relu")  # which PyTorch's does not use
    assert bnnumba.BatchNormalization.from_torch(module).activation is None
    for other in (Activated(3), changed(nn.BatchNorm2d(3), forward=torch.relu)):
        with pytest.raises(TypeError, match="source must have PyTorch's own forward, got that of"):
            bnnumba.BatchNormalization.from_torch(other)
        bnnumba.BatchNormalization.from_torch(other.state_dict())


class Activated(nn.BatchNorm2d):
    """As timm's."""

    def forward(self, x):
        return torch.relu(super().forward(x))


def test_layers_of_the_last_version():
    layer = ours.BatchNorm2d(3)
    state = {**vars(layer), "activation": "relu"}
    del state["_activation"]
    restored = ours.BatchNorm2d.__new__(ours.BatchNorm2d)
    restored.__setstate__(state)
    assert restored.activation == "relu"


def test_twice_is_once():
    model = ours.convert(make_model())
    text = repr(model)
    assert repr(ours.convert(model)) == text
    ours.convert(model, back=True)
    assert repr(ours.convert(model, back=True)) == repr(make_model())


def test_a_layer_alone_and_other_dimensions():
    layer = nn.BatchNorm3d(2)
    assert type(ours.convert(layer)) is ours.BatchNorm3d
    assert type(ours.convert(layer, back=True)) is nn.BatchNorm3d


class Own(nn.BatchNorm2d):
    """A caller's own layer."""


class Reversed(nn.Sequential):
    """A sequence that does not call its modules one after the other."""

    def forward(self, x):
        for module in reversed(self):
            x = module(x)
        return x


def test_what_is_left_alone():
    half = nn.BatchNorm2d(3, dtype=torch.complex64)
    model = nn.ModuleDict(
        {
            "subclass": Own(3),
            "meta": nn.BatchNorm2d(3, device="meta"),
            "dtype": half,
            "other": nn.InstanceNorm2d(3),
        }
    )
    before = kinds(model)
    assert kinds(ours.convert(model)) == before
    for each in (Reversed(nn.BatchNorm2d(3), nn.ReLU()), nn.ModuleList([nn.BatchNorm2d(3), nn.ReLU()])):
        kind = type(each)
        assert type(ours.convert(each)) is kind  # it calls its modules in a way of its own
        assert kinds(each)[1:] == [ours.BatchNorm2d, nn.ReLU]


def test_an_activation_of_its_own_is_not_lost():
    model = nn.Sequential(ours.BatchNorm2d(3, activation="relu"), nn.ReLU(), ours.BatchNorm2d(3))
    ours.convert(model, back=True)
    assert [type(model[0]), model[0].activation, type(model[2])] == [ours.BatchNorm2d, "relu", nn.BatchNorm2d]


def test_what_was_done_is_logged(caplog):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3, device="meta"))
    with caplog.at_level(logging.INFO, logger="bnnumba.torch"):
        ours.convert(model)
        ours.convert(model, back=True)
    assert caplog.messages == [
        "0: BatchNorm2d of bnnumba",
        "2: left as it is: its weight is on meta",
        ": calls a layer and the activation behind it at once",
        ": Sequential of PyTorch",
        "0: BatchNorm2d of PyTorch",
    ]


@pytest.mark.parametrize(("arguments", "options"), [((3,), {}), ((nn.ReLU,), {}), ((nn.ReLU(),), {"back": 1})])
def test_refused(arguments, options):
    with pytest.raises(TypeError, match="must be"):
        ours.convert(*arguments, **options)
