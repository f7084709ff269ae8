"""Where results go and inputs come from: out=, in place, needs_dx=False, memory-mapped data."""

import numpy as np
import pytest

import bnnumba
from bnnumba.kernels.plan import BLOCK
from tests.tools.problems import LAYOUTS, problem, same_bits

SHAPES = pytest.mark.parametrize("shape", [(6, 4, 5), (40, 4, 300)], ids=str)


def forward(p):
    return bnnumba.batch_norm(p.x, p.gamma, p.beta, 1)


def backward(p, moments, **options):
    return bnnumba.batch_norm_backward(p.dy, p.x, moments.mean, moments.var, p.gamma, 1, **options)


def _empty_sliced(x):
    return np.zeros([2 * size for size in x.shape], x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]


OUTPUTS = {
    "fresh": np.empty_like,
    "another memory order": lambda x: np.empty(x.shape[::-1], x.dtype).T,
    "sliced": _empty_sliced,
    "reversed": lambda x: np.empty_like(x)[::-1],
    "byte-swapped": lambda x: np.empty(x.shape, x.dtype.newbyteorder()),
    "unaligned": lambda x: LAYOUTS["unaligned"](np.zeros_like(x)),
}


@SHAPES
@pytest.mark.parametrize("output", OUTPUTS)
def test_out_takes_the_result(shape, output):
    p = problem(shape, 1)
    y, moments = forward(p)

    out = OUTPUTS[output](p.x)
    result, moments_out = bnnumba.batch_norm(p.x, p.gamma, p.beta, 1, out=out)
    assert result is out
    assert (out == y).all()
    assert same_bits(moments_out.mean, moments.mean)

    out = OUTPUTS[output](p.x)
    assert bnnumba.normalize(p.x, *moments[:2], p.gamma, p.beta, 1, out=out) is out
    assert (out == y).all()

    for frozen in (False, True):
        out = OUTPUTS[output](p.x)
        assert backward(p, moments, frozen=frozen, out=out).dx is out
        assert (out == backward(p, moments, frozen=frozen).dx).all()


@SHAPES
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "read-only"])
def test_out_is_an_input(shape, layout):
    p = problem(shape, 1)

    def fresh():
        return p._replace(x=LAYOUTS[layout](p.x.copy()), dy=LAYOUTS[layout](p.dy.copy()))

    y, moments = forward(fresh())
    x = fresh().x
    assert bnnumba.batch_norm(x, p.gamma, p.beta, 1, out=x)[0] is x
    assert (x == y).all()

    x = fresh().x
    bnnumba.normalize(x, *moments[:2], p.gamma, p.beta, 1, out=x[...])  # a view of exactly x
    assert (x == y).all()

    for frozen in (False, True):
        expected = backward(fresh(), moments, frozen=frozen)
        for taken in ("x", "dy"):
            own = fresh()
            out = getattr(own, taken)
            gradients = backward(own, moments, frozen=frozen, out=out)
            assert (out == expected.dx).all()
            assert same_bits(gradients.dgamma, expected.dgamma)
            assert same_bits(gradients.dbeta, expected.dbeta)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("beyond", [1, 6, 20])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_frozen_dx_in_place_of_dy_in_rows_that_end_just_behind_a_block(activation, beyond, dtype):
    """Then what is left of a row is less than a cache line, wherever that begins."""
    p = problem((9, BLOCK + beyond), dtype=dtype)
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, activation=activation)
    given = p.x, *moments[:2], p.gamma
    options = {"frozen": True, "activation": activation, "y": y}
    expected = bnnumba.batch_norm_backward(p.dy, *given, **options)
    memory = np.empty(p.dy.size + 32, dtype)
    for start in range(0, 32, 5):
        dy = memory[start : start + p.dy.size].reshape(p.dy.shape)
        dy[...] = p.dy
        found = bnnumba.batch_norm_backward(dy, *given, **options, out=dy)
        assert same_bits(dy, expected.dx)
        assert same_bits(found.dgamma, expected.dgamma)


def test_out_is_dy_of_another_memory_order_than_x():
    p = problem((6, 4, 5), 1)
    moments = bnnumba.moments(p.x, 1)
    expected = backward(p, moments).dx
    dy = np.asfortranarray(p.dy)
    assert backward(p._replace(dy=dy), moments, out=dy).dx is dy
    assert (dy == expected).all()


def test_without_dx():
    p = problem((6, 4, 5), 1)
    moments = bnnumba.moments(p.x, 1)
    for frozen in (False, True):
        full, sums = (backward(p, moments, frozen=frozen, needs_dx=needs_dx) for needs_dx in (True, False))
        assert sums.dx is None
        assert sums.dresidual is full.dresidual is None
        assert same_bits(sums.dgamma, full.dgamma)
        assert same_bits(sums.dbeta, full.dbeta)


def test_memory_mapped_data(tmp_path):
    p = problem((30, 4, 7), 1)
    mapped = []
    for name, array in (("x", p.x), ("dy", p.dy)):
        array.tofile(tmp_path / name)
        mapped.append(np.memmap(tmp_path / name, np.float32, "r", shape=array.shape))
    y, moments = bnnumba.batch_norm(mapped[0], p.gamma, p.beta, 1)
    assert type(y) is np.ndarray
    assert same_bits(y, forward(p)[0])
    dx = backward(p._replace(x=mapped[0], dy=mapped[1]), moments).dx
    assert type(dx) is np.ndarray
    assert same_bits(dx, backward(p, moments).dx)
