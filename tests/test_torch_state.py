"""Copies, state dicts and the names of the layers of `bnnumba.torch`."""

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from torch import nn  # noqa: E402

from bnnumba import torch as ours  # noqa: E402
from tests.tools.torch_layers import X, both, data  # noqa: E402


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


def test_inference_needs_no_counter():
    layer = ours.BatchNorm2d(3)
    del layer.num_batches_tracked
    assert layer.eval()(X).shape == X.shape
    with pytest.raises(AttributeError, match="num_batches_tracked"):
        layer.train()(X)
