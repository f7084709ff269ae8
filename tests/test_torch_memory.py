"""Tensors of any memory format, and what the layers of `bnnumba.torch` copy."""

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from bnnumba import torch as ours  # noqa: E402
from bnnumba.torch import memory  # noqa: E402
from tests.tools.torch_layers import DTYPES, FIRST, LAST, X, both, data, near, step  # noqa: E402


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


def test_an_empty_batch_keeps_its_memory_format():
    x, dy = (each.to(memory_format=LAST) for each in data((0, 3, 6, 5)))
    y, dx, *_ = step(ours.BatchNorm2d(3), x, dy)
    assert y.is_contiguous(memory_format=LAST)
    assert dx.is_contiguous(memory_format=LAST)


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


def test_the_default_device_may_be_another():
    layer = ours.BatchNorm2d(3)
    with torch.device("meta"):
        y = layer(X)
    assert torch.equal(y, ours.BatchNorm2d(3)(X))
