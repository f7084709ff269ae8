"""An exception at any line of the package: what changes state has then changed all of it, or nothing."""

import copy
import io
import sys
from operator import setitem
from pathlib import Path

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization, Moments, kernels
from bnnumba.outputs import write
from tests.tools.problems import problem

PACKAGE = str(Path(bnnumba.__file__).parent)
KERNELS = (str(Path(kernels.__file__).parent), str(Path(PACKAGE, "torch", "addresses.py")))  # compiled, or in its place
P = problem((12, 5), offset=3.0)


class Interrupted(BaseException):
    """What an interrupt raises."""


def lines_of(call, cut_at=None):
    """Call, and count the lines of the package that run; at one of them, raise Interrupted."""
    number = 0

    def in_frame(frame, event, _):
        nonlocal number
        if event == "line":
            number += 1
            if number == cut_at:
                raise Interrupted
        return in_frame

    def in_call(frame, *_):
        file = frame.f_code.co_filename
        return in_frame if file.startswith(PACKAGE) and not file.startswith(KERNELS) else None

    before = sys.gettrace()
    sys.settrace(in_call)
    try:
        call()
    finally:
        sys.settrace(before)
    return number


def check_all_or_nothing(make, call, state_of):
    """State is what compares; each call has a new object, and the first may compile."""
    call(make())
    whole = make()
    before, number = state_of(whole), lines_of(lambda: call(whole))
    after = state_of(whole)
    assert before != after
    assert number > 5
    for line in range(1, number + 1):
        cut = make()
        with pytest.raises(Interrupted):
            lines_of(lambda cut=cut: call(cut), line)
        assert state_of(cut) in (before, after), f"line {line} of {number}"


def layer_of(**options):
    layer = BatchNormalization(momentum=0.5, **options)
    layer.build(P.x.shape)
    return layer


def strided(layer):
    """Its moving statistics are every other element of longer arrays."""
    for name in ("moving_mean", "moving_variance"):
        setattr(layer, name, np.repeat(getattr(layer, name), 2)[::2])
    return layer


def trained(layer):
    layer(P.x, training=True)
    return layer


def state_of_layer(layer):
    weights = [None if weight is None else weight.tobytes() for weight in layer._weights().values()]
    gradients = [None if each is None else each.tobytes() for each in (layer.dgamma, layer.dbeta)]
    return weights, gradients, layer.batches_seen, layer._saved is None


LAYERS = {
    "plain": layer_of,
    "renorm": lambda: layer_of(renorm=True),
    "strided": lambda: strided(layer_of()),
    "activation": lambda: layer_of(activation="relu", skip_nonfinite=True),
}
CALLS = {
    "training": lambda layer: layer(P.x, training=True),
    "recompute_moving": lambda layer: layer.recompute_moving([P.x, P.dy]),
    "set_weights": lambda layer: layer.set_weights([weight + 1 for weight in layer.get_weights()]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer(kind, call):
    check_all_or_nothing(LAYERS[kind], CALLS[call], state_of_layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_backward(kind):
    check_all_or_nothing(lambda: trained(LAYERS[kind]()), lambda layer: layer.backward(P.dy), state_of_layer)


def test_building_a_layer():
    def state_of(layer):
        return sorted(layer._weights()), layer._feature_shape

    check_all_or_nothing(lambda: BatchNormalization(renorm=True), lambda layer: layer.build((3, 4)), state_of)


@pytest.mark.parametrize("step", [1, 2])
def test_update_moving(step):
    def make():
        return np.zeros(5 * step)[::step], np.ones((5, step), np.float32)[:, 0]

    def call(moving):
        bnnumba.update_moving(*moving, Moments(np.arange(5.0), np.arange(5.0), 3), 0.5)

    check_all_or_nothing(make, call, lambda moving: [each.tobytes() for each in moving])


def test_standardizer():
    sklearn = pytest.importorskip("bnnumba.sklearn")
    pandas = pytest.importorskip("pandas")
    frame, wider = pandas.DataFrame(P.x, columns=list("abcde")), np.concatenate([P.x, P.x], 1)

    def state_of(scaler):
        return {name: str(value) for name, value in vars(scaler).items()}

    seen = sklearn.Standardizer().fit(frame)
    for call in (lambda scaler: scaler.fit(wider), lambda scaler: scaler.partial_fit(frame)):
        check_all_or_nothing(lambda: copy.copy(seen), call, state_of)


def test_what_is_loaded_or_copied_is_whole(tmp_path):
    """These make new layers; the old one keeps its state, whatever happens."""
    layer, path = trained(layer_of()), tmp_path / "layer.npz"
    layer.save(path)
    before = state_of_layer(layer), path.read_bytes()
    for call in (lambda: layer.save(path), lambda: BatchNormalization.load(path), lambda: copy.deepcopy(layer)):
        for line in range(1, lines_of(call) + 1):
            with pytest.raises(Interrupted):
                lines_of(call, line)
            assert state_of_layer(layer) == before[0]
            assert len(list(tmp_path.iterdir())) == 1
            assert np.load(io.BytesIO(path.read_bytes())).files == np.load(io.BytesIO(before[1])).files


def test_changes_are_written_in_their_order():
    array, own = np.zeros(3), {}
    write([(setitem, array, ..., np.arange(3.0)), (setitem, own, "key", 1), (setitem, own, "key", 2)])
    assert array.tolist() == [0, 1, 2]
    assert own == {"key": 2}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    from bnnumba.torch import BatchNorm1d  # noqa: PLC0415  # imports torch

    kind = getattr(torch, dtype)
    x = torch.from_numpy(P.x).to(kind)

    def make():
        return BatchNorm1d(5).to(kind)

    def state_of(layer):
        return [layer.training, *(value.tolist() for value in layer.state_dict().values())]

    check_all_or_nothing(make, lambda layer: layer(x), state_of)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_of_pytorch_that_cannot_be_written(name):
    """Or only after a copy: one of them is contiguous, the other not."""
    torch = pytest.importorskip("torch")
    from bnnumba.torch import BatchNorm1d  # noqa: PLC0415  # imports torch

    x = torch.from_numpy(P.x)

    def state_of(layer):
        return [value.tolist() for value in layer.state_dict().values()]

    def strided():
        layer = BatchNorm1d(5)
        layer._buffers[name] = torch.ones(10)[::2]
        return layer

    check_all_or_nothing(strided, lambda layer: layer(x), state_of)
    layer = BatchNorm1d(5)
    layer._buffers[name] = torch.ones(1).expand(5)
    before = state_of(layer)
    with pytest.raises(RuntimeError, match="single memory location"):
        layer(x)
    assert state_of(layer) == before


@pytest.mark.parametrize("back", [False, True])
def test_a_converted_model(back):
    torch = pytest.importorskip("torch")
    from bnnumba.torch import convert  # noqa: PLC0415  # imports torch

    nn = torch.nn

    def make():
        model = nn.Sequential(nn.BatchNorm1d(5), nn.ReLU(), nn.Sequential(nn.BatchNorm1d(5), nn.ReLU6()))
        return convert(model) if back else model

    def state_of(model):
        return [type(module) for module in model.modules()]

    check_all_or_nothing(make, lambda model: convert(model, back=back), state_of)


def test_weights_that_cannot_be_written():
    layer = layer_of()
    layer.beta = np.broadcast_to(np.float32(1), 5)
    before = state_of_layer(layer)
    with pytest.raises(ValueError, match="beta must be writeable"):
        layer.set_weights([weight + 1 for weight in layer.get_weights()])
    assert state_of_layer(layer) == before


class Elsewhere(BatchNormalization):
    """A user's layer that keeps some of its state in another object."""

    @property
    def batches_seen(self):
        return vars(self).get("kept", {}).get("seen", 0)

    @batches_seen.setter
    def batches_seen(self, value):
        vars(self).setdefault("kept", {})["seen"] = value

    @property
    def moving_mean(self):
        return vars(self).get("kept", {}).get("mean")

    @moving_mean.setter
    def moving_mean(self, value):
        vars(self).setdefault("kept", {})["mean"] = value


def test_properties_of_a_subclass_are_set():
    layer, usual = Elsewhere(momentum=None), BatchNormalization(momentum=None)
    for each in (layer, usual):
        for x in (P.x, P.dy):
            each(x, training=True)
        each.recompute_moving([P.x])
    assert layer.batches_seen == usual.batches_seen == 1
    assert layer.moving_mean.tobytes() == usual.moving_mean.tobytes()
