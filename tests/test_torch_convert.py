"""`bnnumba.torch.convert`: what it changes in a model, what it leaves alone, and that it can be undone."""

import copy
import logging

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402

from bnnumba import torch as ours  # noqa: E402


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


def test_a_model_trains_alike_and_is_restored():
    model = make_model()
    twin, before = copy.deepcopy(model), dict(model.named_modules())
    expected = train(twin)
    assert ours.convert(model) is model
    assert sum(issubclass(kind, (ours.BatchNorm1d, ours.BatchNorm2d)) for kind in kinds(model)) == 4
    assert [model[1].activation, model[3].body[1].activation, model[3].norm.activation] == ["relu", "relu", None]
    assert model[4][2].activation == "relu"
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


def test_a_fused_relu_still_is_one_for_all_else():
    """In other places of the model, and where its layer was replaced or folded."""
    model = ours.convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()))
    assert model[1].activation == "relu"
    x = torch.randn(8, 3, 6, 6)
    y = model(x)
    assert model[2](y) is y
    assert model[2](x).min() == 0
    model[1] = nn.BatchNorm2d(4)
    assert model(x).min() == 0
    calls = []
    model[2].register_forward_hook(lambda *_: calls.append(1))
    ours.convert(model, back=True)
    assert kinds(model)[1:] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    model(x)
    assert calls == [1]


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


def hooked(module):
    module.register_forward_hook(lambda *_: None)
    return module


def test_what_is_left_alone():
    shared, half = nn.BatchNorm2d(3), nn.BatchNorm2d(3, dtype=torch.complex64)
    model = nn.ModuleDict(
        {
            "subclass": Own(3),
            "meta": nn.BatchNorm2d(3, device="meta"),
            "dtype": half,
            "lazy": nn.LazyBatchNorm2d(),
            "synchronized": nn.SyncBatchNorm(3),
        }
    )
    before = kinds(model)
    assert kinds(ours.convert(model)) == before
    unfused = {
        "its hook": nn.Sequential(hooked(nn.BatchNorm2d(3)), nn.ReLU()),
        "the ReLU's hook": nn.Sequential(nn.BatchNorm2d(3), hooked(nn.ReLU())),
        "in two places": nn.Sequential(shared, nn.ReLU(), shared),
        "another activation": nn.Sequential(nn.BatchNorm2d(3), nn.ReLU6()),
        "not behind it": nn.Sequential(nn.BatchNorm2d(3), nn.Identity(), nn.ReLU()),
        "another order": Reversed(nn.BatchNorm2d(3), nn.ReLU()),
        "a list": nn.ModuleList([nn.BatchNorm2d(3), nn.ReLU()]),
    }
    for why, each in unfused.items():
        expected = [type(m) for m in list(each)[1:]]
        ours.convert(each)
        assert type(each[0]) is ours.BatchNorm2d, why
        assert each[0].activation is None, why
        assert [type(m) for m in list(each)[1:] if m is not each[0]] == [
            k for k in expected if k is not nn.BatchNorm2d
        ], why


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
        "1: computed by the layer before it",
        "0: BatchNorm2d of PyTorch",
        "1: ReLU of PyTorch",
    ]


@pytest.mark.parametrize(("arguments", "options"), [((3,), {}), ((nn.ReLU,), {}), ((nn.ReLU(),), {"back": 1})])
def test_refused(arguments, options):
    with pytest.raises(TypeError, match="must be"):
        ours.convert(*arguments, **options)
