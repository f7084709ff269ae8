"""float16 and bfloat16: what float32 gives for the same values, rounded to nearest even once."""

import ml_dtypes
import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization
from tests.tools import oracle
from tests.tools.problems import LAYOUTS, problem, same_bits

HALVES = [np.float16, ml_dtypes.bfloat16]
SHAPES = [((40, 7), -1), ((5000, 64), -1), ((8, 16, 14, 14), 1), ((300, 17, 3, 3), 1), ((3000, 5, 7), (1, 2))]

every_half = pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: np.dtype(dtype).name)


def halves(shape, axis, dtype):
    """A problem, and the same values as float32."""
    p = problem(shape, axis, offset=2.0, scale=3.0)
    p = p._replace(x=p.x.astype(dtype), dy=p.dy.astype(dtype))
    return p, p._replace(x=p.x.astype(np.float32), dy=p.dy.astype(np.float32))


def check_rounded(result, single):
    assert same_bits(result, single.astype(result.dtype))


# Each pair of a dtype, a form, and what stands behind the normalization: all threes would only take longer to compile.
BEHIND = [
    (np.float16, SHAPES, None, False), (np.float16, SHAPES[1:3], "relu", True),
    (ml_dtypes.bfloat16, SHAPES, "relu", True), (ml_dtypes.bfloat16, SHAPES[1:3], None, False),
    (np.float16, SHAPES[2:3], "relu", False), (ml_dtypes.bfloat16, SHAPES[1:2], "relu", False),
    (np.float16, SHAPES[1:2], None, True), (ml_dtypes.bfloat16, SHAPES[2:3], None, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "axis", "activation", "with_residual", "dtype"),
    [(*place, *behind, dtype) for dtype, places, *behind in BEHIND for place in places],
    ids=str,
)
def test_forward_and_backward(shape, axis, activation, with_residual, dtype):
    p, single = halves(shape, axis, dtype)
    residuals = (p.dy, single.dy) if with_residual else (None, None)
    behind = {"activation": activation}
    y, m = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis, residual=residuals[0], **behind)
    expected, m_single = bnnumba.batch_norm(single.x, p.gamma, p.beta, axis, residual=residuals[1], **behind)
    assert y.dtype == dtype
    check_rounded(y, expected)
    for one, other, again in zip(m, m_single, bnnumba.moments(p.x, axis), strict=True):
        assert same_bits(np.asarray(one), np.asarray(other))
        assert same_bits(np.asarray(one), np.asarray(again))
    for options in ({}, {"frozen": True}, {"needs_dx": False}):
        given = {**behind, **options, "residual": with_residual}
        found = bnnumba.batch_norm_backward(p.dy, p.x, m.mean, m.var, p.gamma, axis, y=y, **given)
        y_single = y.astype(np.float32)
        same = bnnumba.batch_norm_backward(single.dy, single.x, m.mean, m.var, p.gamma, axis, y=y_single, **given)
        assert same_bits(found.dgamma, same.dgamma)
        assert same_bits(found.dbeta, same.dbeta)
        if found.dx is not None:
            check_rounded(found.dx, same.dx)
        if with_residual:
            check_rounded(found.dresidual, same.dresidual)


@pytest.mark.parametrize("with_residual", [False, True])
def test_an_activation_with_a_parameter(with_residual):
    """What it makes of dy must not be rounded before dx is made of it."""
    test_forward_and_backward((6, 4, 5), 1, oracle.LEAKY, with_residual, ml_dtypes.bfloat16)


@pytest.mark.parametrize("with_residual", [False, True])
def test_an_activation_with_a_parameter_and_weights(with_residual):
    p, single = halves((6, 4, 5), 1, np.float16)
    w = np.random.default_rng(1).random((6, 1, 5))
    given = {"sample_weight": w, "activation": oracle.LEAKY}
    y, m = bnnumba.batch_norm(p.x, p.gamma, p.beta, 1, residual=p.dy if with_residual else None, **given)
    found, same = (
        bnnumba.batch_norm_backward(
            each.dy, each.x, *m[:2], p.gamma, 1, y=y.astype(each.x.dtype), residual=with_residual, **given
        )
        for each in (p, single)
    )
    check_rounded(found.dx, same.dx)
    assert same_bits(found.dgamma, same.dgamma)
    if with_residual:
        check_rounded(found.dresidual, same.dresidual)


@every_half
@pytest.mark.parametrize(("shape", "axis"), SHAPES[2:], ids=str)
def test_with_weights(shape, axis, dtype):
    """dx is made by three sweeps: between them it is float32."""
    p, single = halves(shape, axis, dtype)
    sizes = [1 if a in np.atleast_1d(axis) % len(shape) else size for a, size in enumerate(shape)]
    w = np.random.default_rng(1).random(sizes)
    y, m = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis, sample_weight=w)
    expected, m_single = bnnumba.batch_norm(single.x, p.gamma, p.beta, axis, sample_weight=w)
    check_rounded(y, expected)
    assert same_bits(m.mean, m_single.mean)
    found = bnnumba.batch_norm_backward(p.dy, p.x, m.mean, m.var, p.gamma, axis, sample_weight=w)
    same = bnnumba.batch_norm_backward(single.dy, single.x, m.mean, m.var, p.gamma, axis, sample_weight=w)
    check_rounded(found.dx, same.dx)


@every_half
def test_second_derivatives(dtype):
    p, single = halves((40, 7), -1, dtype)
    m = bnnumba.moments(p.x)
    found, same = (
        bnnumba.batch_norm_double_backward(each.dy, p.gamma, p.beta, each.x, each.x, m.mean, m.var, p.gamma)
        for each in (p, single)
    )
    check_rounded(found.ddy, same.ddy)
    check_rounded(found.dx, same.dx)
    assert same_bits(found.dgamma, same.dgamma)


@every_half
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout, dtype):
    if layout == "byte-swapped" and dtype is not np.float16:
        dtype = np.float16  # bfloat16 has no other byte order
    p, single = halves((6, 4, 5), 1, dtype)
    y, _ = bnnumba.batch_norm(LAYOUTS[layout](p.x), p.gamma, p.beta, 1)
    check_rounded(np.ascontiguousarray(y), bnnumba.batch_norm(single.x, p.gamma, p.beta, 1)[0])


@every_half
def test_results_where_they_are_asked_for(dtype):
    p, _ = halves((60, 8), -1, dtype)
    expected, _ = bnnumba.batch_norm(p.x)
    out = np.empty((60, 16), dtype)[:, ::2]
    assert bnnumba.batch_norm(p.x, out=out)[0] is out
    assert same_bits(np.ascontiguousarray(out), expected)
    assert same_bits(bnnumba.batch_norm(p.x, out=p.x)[0], expected)


@pytest.mark.subset
@every_half
def test_every_number_is_read_and_rounded_as_it_should_be(dtype):
    """All 65536 of them through an identity; and float32 that lie between two, at their middle, and beyond."""
    x = np.arange(2**16, dtype=np.uint16).view(dtype)
    x = x[np.isfinite(x.astype(np.float32))]
    identity = {"mean": np.zeros(1), "var": np.ones(1), "epsilon": 0.0}
    rows = x.reshape(-1, 1)
    assert same_bits(bnnumba.normalize(rows + dtype(0), **identity), rows + dtype(0))
    for factor in (1.0 + 2.0**-9, 1.0 + 2.0**-11, 1.0 + 2.0**-12, 1.5, 1.0 / 3.0, 2.0**-20, 70000.0):
        gamma = np.full(1, factor)
        single = bnnumba.normalize(rows.astype(np.float32), gamma=gamma, **identity)
        with np.errstate(over="ignore"):
            check_rounded(bnnumba.normalize(rows, gamma=gamma, **identity), single)


@every_half
def test_nan_and_infinity_stay_in_their_feature(dtype):
    p, _ = halves((50, 3), -1, dtype)
    clean, _ = bnnumba.batch_norm(p.x)
    p.x[4, 1] = np.nan
    p.x[7, 1] = np.inf
    y, moments = bnnumba.batch_norm(p.x)
    assert np.isnan(y[:, 1].astype(np.float32)).all()
    assert np.isnan(moments.mean[1])
    for f in (0, 2):
        assert same_bits(y[:, f].copy(), clean[:, f].copy())


@every_half
def test_a_layer_trains_on_half_precision(dtype):
    p, single = halves((40, 7), -1, dtype)
    layers = BatchNormalization(), BatchNormalization()
    for _ in range(3):
        results = [layer(each.x, training=True) for layer, each in zip(layers, (p, single), strict=True)]
        gradients = [layer.backward(each.dy) for layer, each in zip(layers, (p, single), strict=True)]
        check_rounded(*results)
        check_rounded(*gradients)
    for one, other in zip(*(layer.get_weights() for layer in layers), strict=True):
        assert same_bits(one, other)
    assert same_bits(layers[0].dgamma, layers[1].dgamma)


def test_other_numbers_of_two_bytes_are_not_taken_for_half_precision():
    for dtype in (np.int16, np.uint16, ">i2"):
        x = np.arange(12).astype(dtype).reshape(4, 3)
        assert np.array_equal(bnnumba.moments(x).mean, [4.5, 5.5, 6.5])
        with pytest.raises(TypeError, match=r"float16 or bfloat16, got .*: integers train only as floats"):
            bnnumba.batch_norm(x)
    with pytest.raises(TypeError, match="float16 or bfloat16"):
        bnnumba.moments(np.zeros((4, 3), "V2"))


def test_dy_of_another_half_precision_is_refused():
    p, _ = halves((4, 3), -1, np.float16)
    with pytest.raises(TypeError, match=r"dy must have the dtype of x, float16, got bfloat16"):
        bnnumba.batch_norm_backward(p.dy.astype(ml_dtypes.bfloat16), p.x, np.zeros(3), np.ones(3))
