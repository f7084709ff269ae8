"""Masks and sample weights: which positions make the moments, and how much each counts."""

import functools

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization
from bnnumba.functional import input_gradient
from tests.tools import bounds, differences, oracle
from tests.tools.problems import FLOATS, LAYOUTS, problem, same_bits

SHAPES = [((40, 3), -1), ((3000, 70), -1), ((6, 4, 5, 5), 1), ((20, 30, 196), 1), ((6, 20, 64), -1), ((9,), -1),
          ((5, 2, 6, 3), (1, 3)), ((4, 3), ()), ((2, 40_000), 0)]  # fmt: skip
EVERY_SHAPE = pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
KINDS = pytest.mark.parametrize("kind", ["mask", "sample_weight"])


def weights_of(kind, shape, axis):
    w = np.random.default_rng(5).random(oracle.position_shape(shape, axis))
    w.flat[0] = 0.9
    return {kind: w > 0.4 if kind == "mask" else np.where(w < 0.3, 0, 7 * w)}


class Step:
    """A problem with weights, and its forward pass."""

    def __init__(self, kind, shape, axis, dtype=np.float32, **behind):
        self.p, self.axis, self.given = problem(shape, axis, dtype, offset=3.0), axis, weights_of(kind, shape, axis)
        self.w = np.asarray(self.given[kind], float)
        p, self.behind = self.p, behind
        self.y, self.moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis, **self.given, **behind)

    def backward(self, **options):
        p = self.p
        return bnnumba.batch_norm_backward(
            p.dy, p.x, *self.moments[:2], p.gamma, self.axis, **self.given, y=self.y, **options
        )


@KINDS
@pytest.mark.parametrize("dtype", FLOATS)
@EVERY_SHAPE
def test_against_the_oracle(shape, axis, dtype, kind):
    step = Step(kind, shape, axis, dtype)
    p, w = step.p, step.w
    exact = oracle.batch_norm(p.x, p.gamma, p.beta, axis, weights=w)
    bounds.check_moments(dtype, step.moments, exact)
    bounds.check_y(dtype, step.y, exact)
    assert step.moments.count == pytest.approx(w.sum(), rel=1e-15)
    assert type(step.moments.count) is (int if kind == "mask" else float)

    poisoned = np.where(w == 0, np.nan, p.x).astype(dtype)
    alone = bnnumba.moments(poisoned, axis, **step.given)
    for one, other in zip(alone, step.moments, strict=True):
        assert np.array_equal(one, other)

    for frozen in (False, True):
        exact = oracle.backward(p.dy, p.x, *step.moments[:2], p.gamma, axis, frozen=frozen, weights=w)
        bounds.check_gradients(dtype, step.backward(frozen=frozen), exact, frozen, w.astype(oracle.WIDE) / w.sum())
    sums = step.backward(needs_dx=False)
    assert sums.dx is None
    bounds.check_gradients(dtype, sums, exact)


@KINDS
def test_numerical_differentiation(kind):
    """Of <dy, y> with respect to x, gamma and beta, in float64."""
    step = Step(kind, (7, 3), -1, np.float64)
    p = step.p

    def value(x, gamma, beta):
        return (p.dy * oracle.batch_norm(x, gamma, beta, weights=step.w).y).sum()

    for which, gradient in enumerate(step.backward()[:3]):
        numeric = differences.gradient(value, (p.x, p.gamma, p.beta), which).astype(float)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-7, atol=1e-7)


@KINDS
def test_nan_where_nothing_counts(kind):
    """It is in y, dx and dgamma where its x is, and nowhere in the statistics."""
    step = Step(kind, (40, 3), -1)
    p = step.p
    row = int(np.flatnonzero(step.w == 0)[2])
    clean = step.moments
    p.x[row, 1] = np.nan
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, **step.given)
    assert all(np.array_equal(a, b) for a, b in zip(moments, clean, strict=True))
    assert np.argwhere(np.isnan(y)).tolist() == [[row, 1]]
    dx, dgamma, dbeta, _ = step.backward()
    assert np.isnan(dgamma).tolist() == [False, True, False]
    assert np.isfinite(dbeta).all()
    assert (np.isnan(dx) == ((step.w != 0) & [False, True, False])).all()


@pytest.mark.parametrize("dtype", FLOATS)
@KINDS
def test_a_mask_is_the_data_without_it(kind, dtype):
    """So are whole weights and repeated data."""
    p = problem((300, 5), -1, dtype, offset=100.0)
    times = np.random.default_rng(3).integers(0, 2 if kind == "mask" else 4, 300)
    given = {kind: (times.astype(bool) if kind == "mask" else times)[:, None]}
    repeated = np.repeat(p.x, times, axis=0)
    bounds.check_moments(
        dtype, bnnumba.moments(p.x, **given), oracle.normalize(repeated, *map(_flat, oracle.moments(repeated)))
    )
    assert bnnumba.moments(p.x, **given).count == times.sum()


def _flat(features):
    return features.reshape(-1)


@pytest.mark.parametrize("factor", [2.0**-1070, 2.0**-500, 1.0, 2.0**1000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_size_of_weights_does_not_matter(dtype, factor):
    step = Step("sample_weight", (40, 3), -1, dtype)
    whole = np.round(step.given["sample_weight"] * 8)  # has room below
    expected = bnnumba.moments(step.p.x, sample_weight=whole)
    found = bnnumba.moments(step.p.x, sample_weight=whole * factor)
    assert same_bits(found.mean, expected.mean)
    assert same_bits(found.var, expected.var)
    assert found.count == expected.count * factor
    gradients = [
        bnnumba.batch_norm_backward(step.p.dy, step.p.x, *expected[:2], sample_weight=w).dx
        for w in (whole, whole * factor)
    ]
    assert same_bits(*gradients)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_position(dtype, epsilon):
    p = problem((30, 4), -1, dtype, offset=1e4)
    for given in ({"mask": np.zeros((30, 1), bool)}, {"sample_weight": np.zeros((30, 1))}):
        next(iter(given.values()))[17] = 0.3
        y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, epsilon=epsilon, **given)
        assert (moments.mean == p.x[17]).all()
        assert not moments.var.any()
        assert (y[17] == p.beta.astype(dtype)).all()
        assert moments.count == (1 if "mask" in given else 0.3)


@KINDS
@pytest.mark.parametrize("behind", [{}, {"activation": "relu"}, {"activation": "relu", "residual": True}], ids=str)
def test_nothing_counts(kind, behind):
    p = problem((5, 3))
    p.x[:] = np.nan
    w = np.zeros((5, 1), bool if kind == "mask" else float)
    behind = {**behind, "residual": -p.dy} if "residual" in behind else behind
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, **{kind: w}, **behind)
    expected = p.beta.astype(np.float32) + (-p.dy if "residual" in behind else np.zeros_like(p.x))
    np.testing.assert_array_equal(y, np.maximum(expected, 0) if behind else expected)
    assert not moments.mean.any()
    assert not moments.var.any()
    assert moments.count == 0
    options = {"activation": behind.get("activation"), "residual": "residual" in behind}
    dx, dgamma, dbeta, dresidual = bnnumba.batch_norm_backward(
        p.dy, p.x, *moments[:2], p.gamma, **{kind: w}, y=y, **options
    )
    behind_relu = oracle.behind(p.dy, y, options["activation"])
    assert not dx.any()
    assert not dgamma.any()
    np.testing.assert_allclose(dbeta, behind_relu.sum(axis=0, dtype=float), rtol=1e-12)
    if options["residual"]:
        np.testing.assert_array_equal(dresidual, behind_relu)


@KINDS
@pytest.mark.parametrize(
    ("activation", "with_residual"),
    [("relu", False), ("relu", True), (oracle.LEAKY, True)],
    ids=str,
)
def test_behind_an_activation(kind, activation, with_residual):
    """All gradients are those of dresidual."""
    residual = {"residual": -problem((6, 4, 5), 1).dy} if with_residual else {}
    step = Step(kind, (6, 4, 5), 1, activation=activation, **residual)
    dresidual = oracle.behind(step.p.dy, step.y, activation)
    for options in ({}, {"frozen": True}, {"needs_dx": False}):
        found = step.backward(activation=activation, residual=with_residual, **options)
        plain = bnnumba.batch_norm_backward(
            dresidual, step.p.x, *step.moments[:2], step.p.gamma, 1, **step.given, **options
        )
        for name in ("dx", "dgamma", "dbeta"):
            one, other = getattr(found, name), getattr(plain, name)
            assert one is other or same_bits(one, other), name
        if with_residual:
            np.testing.assert_array_equal(found.dresidual, dresidual)


@KINDS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout, kind):
    plain = Step(kind, (6, 4, 5), 1)
    step = Step(kind, (6, 4, 5), 1)
    place = LAYOUTS[layout]
    step.p = step.p._replace(x=place(step.p.x), dy=place(step.p.dy))
    step.given = {kind: place(step.given[kind])}
    y, moments = bnnumba.batch_norm(step.p.x, step.p.gamma, step.p.beta, 1, **step.given)
    bounds.check_moments(np.float32, moments, oracle.batch_norm(step.p.x, None, None, 1, weights=plain.w))
    np.testing.assert_allclose(y, plain.y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(step.backward().dx, plain.backward().dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "given"),
    [
        ((6, 4, 5), -1, (6, 4, 1)), ((6, 4, 5), -1, (6, 1, 1)), ((6, 4, 5), -1, (4, 1)), ((6, 4, 5), -1, (1,)),
        ((6, 4, 5), -1, ()), ((6, 4, 5), 1, (5,)), ((6, 4, 5), 1, (1, 5)), ((6, 4, 5), (0, 2), (4, 1)),
    ],
)  # fmt: skip
@KINDS
def test_shapes_that_broadcast(shape, axis, given, kind):
    p = problem(shape, axis)
    w = np.asarray(np.random.default_rng(2).random(given) + 0.1)
    w = np.asarray(w > 0.4) if kind == "mask" else w
    whole = np.broadcast_to(w, oracle.position_shape(shape, axis))
    for one, other in zip(
        bnnumba.moments(p.x, axis, **{kind: w}), bnnumba.moments(p.x, axis, **{kind: whole}), strict=True
    ):
        assert np.array_equal(one, other)


LAYER_SHAPES = [  # x, axis, a mask, and what it is for x
    ((4, 4, 2), -1, (4, 1), (4, 1, 1)),
    ((4, 4, 2), -1, (1, 4), (1, 4, 1)),
    ((4, 4, 4), -1, (4, 4), (4, 4, 1)),
    ((4, 4, 2), -1, (1, 4, 1), (1, 4, 1)),
    ((3, 1, 4, 5), 1, (3, 1, 4), (3, 1, 4, 1)),
    ((3, 4, 4), 1, (3, 1, 4), (3, 1, 4)),
    ((3, 4, 4), 1, (3, 1), (3, 1, 1)),
    ((3, 4, 4), 1, (3, 4), (3, 4, 1)),
    ((3, 4, 4), 1, (1, 4), (1, 4, 1)),
    ((3, 4, 4), (1, 2), (3, 1), (3, 1, 1)),
    ((4, 4, 4), (1, 2), (4, 4), (4, 4, 1)),
    ((6, 4), -1, (6,), (6, 1)),
]


@pytest.mark.parametrize(("shape", "axis", "given", "meant"), LAYER_SHAPES)
@KINDS
def test_the_layer_reads_a_mask_as_keras_does(shape, axis, given, meant, kind):
    """Without the last axis, whichever axis has the features: sizes that coincide mean nothing."""
    x = problem(shape, axis).x
    w = np.random.default_rng(2).random(given) + 0.1
    w = w > 0.4 if kind == "mask" else w
    y = BatchNormalization(axis)(x, training=True, **{kind: w})
    assert same_bits(y, bnnumba.batch_norm(x, None, None, axis, **{kind: w.reshape(meant)})[0])


@pytest.mark.parametrize(
    ("shape", "axis", "given"),
    [((6, 4), -1, ()), ((6, 4, 5), -1, (4,)), ((6, 4, 5), -1, (5, 4)), ((6, 4, 5), -1, (6, 4, 4))],
)
@KINDS
def test_the_layer_refuses_other_masks(shape, axis, given, kind):
    w = np.ones(given, bool if kind == "mask" else float)
    with pytest.raises(ValueError, match=f"{kind} must (broadcast to x's shape|have . axes)"):
        BatchNormalization(axis)(problem(shape, axis).x, training=True, **{kind: w})


@KINDS
def test_out_may_be_an_input(kind):
    plain = Step(kind, (6, 4, 5), 1)
    expected = plain.backward()
    step = Step(kind, (6, 4, 5), 1)
    y, _ = bnnumba.batch_norm(step.p.x, step.p.gamma, step.p.beta, 1, **step.given, out=step.p.x)
    assert same_bits(y, plain.y)
    for taken in ("x", "dy"):
        step = Step(kind, (6, 4, 5), 1)
        found = step.backward(out=getattr(step.p, taken))
        for one, other in zip(found[:3], expected[:3], strict=True):
            assert same_bits(one, other)


FAR_AWAY = [  # dtype, a first sample, its weight
    (np.float64, 1.3e101, 8e-231), (np.float64, -1e140, 1e-300), (np.float64, 1e30, 1e-25), (np.float64, 1e6, 1e-13),
    (np.float32, 1e22, 1e-45), (np.float32, 3e35, 1e-70), (np.float32, 1e9, 1e-17),
]  # fmt: skip


EXTREMES = [(np.float32, 1e-42, 1.0), (np.float32, 1e37, 1e-3), (np.float32, 3e37, 1e-40), (np.float32, 1e-40, 1e38),
            (np.float64, 1e-290, 1e100), (np.float64, 1e300, 1e-20), (np.float64, 1e200, 1e-310)]  # fmt: skip


@KINDS
@pytest.mark.parametrize("out", [None, "dy", "x"])
@pytest.mark.parametrize(("dtype", "dy_size", "gamma_size"), EXTREMES)
@pytest.mark.parametrize(("shape", "axis"), [((60, 3), -1), ((4, 5, 7), 1)], ids=str)
def test_gradients_near_the_ends_of_the_dtype(shape, axis, dtype, dy_size, gamma_size, out, kind):
    """Of every other feature; the others keep their bits."""
    step = Step(kind, shape, axis, dtype)
    p, usual = step.p, step.backward()
    dy, gamma = np.moveaxis(p.dy.copy(), axis, -1), p.gamma.copy()
    dy[..., 1::2] = (dy[..., 1::2] * oracle.WIDE(dy_size)).astype(dtype)
    dy = np.ascontiguousarray(np.moveaxis(dy, -1, axis))
    gamma[1::2] *= gamma_size
    exact = oracle.backward(dy, p.x, *step.moments[:2], gamma, axis, 1e-3, weights=step.w)
    step.p = p._replace(x=p.x.copy(), dy=dy.copy(), gamma=gamma)
    found = step.backward(out=None if out is None else getattr(step.p, out))
    bounds.check_gradients(dtype, found, exact, share=step.w.astype(oracle.WIDE) / step.w.sum())
    for name in ("dx", "dgamma", "dbeta"):
        one, other = (np.moveaxis(getattr(each, name), axis if name == "dx" else -1, -1) for each in (found, usual))
        assert same_bits(np.ascontiguousarray(one[..., ::2]), np.ascontiguousarray(other[..., ::2]))


@pytest.mark.parametrize("axis", [(), -1])
def test_a_far_position_that_does_not_count(axis):
    x, dy = np.array([[3e139], [8e139]]), np.array([[-4e198], [1e200]])
    if axis == ():
        x, dy = x[:, 0], dy[:, 0]
    mask = np.array([[True], [False]]).reshape(x.shape)
    _, moments = bnnumba.batch_norm(x, feature_axis=axis, mask=mask)
    dx, dgamma, dbeta, _ = bnnumba.batch_norm_backward(dy, x, *moments[:2], feature_axis=axis, mask=mask)
    exact = oracle.backward(dy, x, *moments[:2], np.ones(moments.mean.shape), axis, weights=mask.astype(float))
    assert np.isinf(dgamma).all()
    np.testing.assert_allclose(dx, exact.dx.astype(float), rtol=1e-12)
    np.testing.assert_allclose(dbeta.flat, exact.dbeta.astype(float).flat, rtol=1e-15)


@pytest.mark.parametrize("behind", [{}, {"activation": "relu"}], ids=str)
@pytest.mark.parametrize("size", [2.0**-110, 2.0**120])
def test_half_precision_near_its_ends(size, behind):
    """bfloat16 reaches as far as float32: a power of two changes nothing but dx's exponents."""
    p, w = problem((60, 3), offset=3.0), weights_of("sample_weight", (60, 3), -1)
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x, dy = p.x.astype(bfloat16), p.dy.astype(bfloat16)
    y, moments = bnnumba.batch_norm(x, p.gamma, p.beta, **w, **behind)
    given = {**w, **behind, "y": y}
    usual = bnnumba.batch_norm_backward(dy, x, *moments[:2], p.gamma, **given)
    large = (dy.astype(np.float32) * np.float32(size)).astype(bfloat16)
    found = bnnumba.batch_norm_backward(large, x, *moments[:2], p.gamma / size, **given)
    one, other = found.dx.astype(np.float64), usual.dx.astype(np.float64)
    np.testing.assert_allclose(one, other, rtol=2.0**-7, atol=2.0**-11 * abs(other).max())  # its rounding; float32's


@pytest.mark.parametrize("weighted_first", [True, False])
def test_half_precision_with_a_residual_in_any_order_of_calls(weighted_first):
    """With weights, the kernel of the sums fills a dresidual of float32, otherwise one of x's dtype."""
    p, w = problem((60, 3), offset=3.0), weights_of("sample_weight", (60, 3), -1)
    x, dy = p.x.astype(np.float16), p.dy.astype(np.float16)
    y, (mean, var, _) = bnnumba.batch_norm(x, p.gamma, p.beta, activation="relu")
    given = {"y": y, "activation": "relu", "residual": True}
    calls = [lambda: bnnumba.batch_norm_backward(dy, x, mean, var, **w, **given)]
    calls.insert(weighted_first, lambda: bnnumba.batch_norm_backward(dy, x, mean, var, needs_dx=False, **given))
    first, second = (call() for call in calls)
    assert same_bits(first.dresidual, second.dresidual)


def test_a_far_position_that_hardly_counts_has_its_gradient():
    """There |x_hat| is beyond float32."""
    x = np.float32([[1e37], [1.0], [2.0], [3.0]])
    w = np.array([[1e-88], [1.0], [1.0], [1.0]])
    dy = np.float32([[0.0], [1.0], [-3.0], [0.5]])
    mean, var, _ = bnnumba.moments(x, sample_weight=w)
    found = bnnumba.batch_norm_backward(dy, x, mean, var, sample_weight=w)
    exact = oracle.backward(dy, x, mean, var, np.ones(1), -1, 1e-3, weights=w)
    bounds.check_gradients(np.float32, found, exact, share=w.astype(oracle.WIDE) / w.sum())


@pytest.mark.parametrize("place", ["first", "last", "spread"])
@pytest.mark.parametrize(("shape", "axis"), [((300, 3), -1), ((4, 3, 70), 1)], ids=str)
@pytest.mark.parametrize(("dtype", "far", "tiny"), FAR_AWAY)
def test_a_far_sample_that_hardly_counts(dtype, far, tiny, shape, axis, place):
    """The pivot is where the weight is: from the far sample, all the others would look the same."""
    p = problem(shape, axis, dtype, offset=3.0)
    rng = np.random.default_rng(1)
    w = rng.uniform(0.5, 1.5, oracle.position_shape(shape, axis))
    places = {"first": [0], "last": [w.size - 1], "spread": range(0, w.size, 7)}[place]
    for position in places:
        index = np.unravel_index(position, w.shape)
        w[index] = tiny
        whole = tuple(slice(None) if a == axis % len(shape) else i for a, i in enumerate(index))
        p.x[whole] = far
    exact = oracle.batch_norm(p.x, None, None, axis, weights=w)
    for moments in (
        bnnumba.moments(p.x, axis, sample_weight=w),
        bnnumba.batch_norm(p.x, None, None, axis, sample_weight=w)[1],
    ):
        bounds.check_moments(dtype, moments, exact)


# ---- moments with weights, elsewhere


def test_merging():
    p = problem((90, 3), -1, np.float64, offset=10.0)
    w = np.random.default_rng(1).random((90, 1))
    parts = [bnnumba.moments(p.x[part], sample_weight=w[part]) for part in (slice(0, 30), slice(30, 90))]
    merged, whole = bnnumba.merge_moments(*parts), bnnumba.moments(p.x, sample_weight=w)
    for one, other in zip(merged, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    nothing = bnnumba.moments(p.x, sample_weight=0 * w)
    assert bnnumba.merge_moments(whole, nothing).count == whole.count
    assert type(bnnumba.merge_moments(whole, bnnumba.moments(p.x)).count) is float


@KINDS
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_merging_keeps_all_digits(kind, offset):
    """However they are split: mean and var of float64 data whose mean is a million deviations away."""
    p = problem((400, 3), -1, np.float64, offset=offset)
    given = weights_of(kind, (400, 3), -1)
    parts = [slice(start, start + 40) for start in range(0, 400, 40)]
    found = functools.reduce(
        bnnumba.merge_moments,
        (bnnumba.moments(p.x[part], **{kind: given[kind][part]}) for part in parts),
    )
    exact = oracle.batch_norm(p.x, None, None, -1, weights=given[kind].astype(float))
    bounds.check_moments(np.float64, found, exact)


def test_moving_statistics():
    mean, var = np.zeros(3), np.ones(3)
    batch = bnnumba.Moments(np.full(3, 2.0), np.full(3, 5.0), 0.25)
    bnnumba.update_moving(mean, var, batch, 0.5)
    assert (mean == 1.0).all()
    assert (var == 3.0).all()
    with pytest.raises(ValueError, match="ddof must be 0 with sample_weight"):
        bnnumba.update_moving(mean, var, batch, 0.5, ddof=1)
    bnnumba.update_moving(mean, var, batch._replace(count=0.0), 0.5)
    assert (mean == 1.0).all()
    bnnumba.update_moving(mean, var, batch._replace(count=4), 0.5, ddof=1)
    np.testing.assert_allclose(var, 1.5 + 2.5 * 4 / 3)


# ---- the layer

MODES = {"training": {}, "renorm": {"renorm": True}, "ddof": {"ddof": 1}}


@KINDS
@pytest.mark.parametrize("mode", MODES)
def test_the_layer(mode, kind):
    """It gives the bits of the functions; Keras's shape of a mask is taken too."""
    step = Step(kind, (6, 20, 4), -1)
    p = step.p
    layer, twin = (BatchNormalization(momentum=0.5, **MODES[mode]) for _ in range(2))
    if mode == "ddof" and kind == "sample_weight":
        with pytest.raises(ValueError, match="ddof must be 0 with sample_weight"):
            layer(p.x, training=True, **step.given)
        assert layer.get_weights() == []
        return
    keras_shape = {kind: step.given[kind][..., 0]}
    y = layer(p.x, training=True, **step.given)
    assert same_bits(twin(p.x, training=True, **keras_shape), y)
    assert same_bits(twin.backward(p.dy), dx := layer.backward(p.dy))
    if mode != "renorm":
        y_, batch = bnnumba.batch_norm(p.x, layer.gamma, layer.beta, **step.given)
        assert same_bits(y, y_)
        assert same_bits(dx, bnnumba.batch_norm_backward(p.dy, p.x, *batch[:2], layer.gamma, **step.given).dx)
        factor = batch.count / (batch.count - layer.ddof)
        np.testing.assert_allclose(layer.moving_mean, batch.mean / 2, rtol=1e-15)
        np.testing.assert_allclose(layer.moving_variance, 0.5 + batch.var * factor / 2, rtol=1e-15)
    assert same_bits(layer(p.x), layer(p.x, **step.given))

    before = layer.get_weights()
    p.x[:] = np.nan
    y = layer(p.x, training=True, **{kind: np.zeros_like(step.given[kind])})
    assert (y == layer.beta).all()
    assert not layer.backward(p.dy).any()
    assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), before, strict=True))


def test_a_frozen_layer_takes_no_heed_of_a_mask():
    step = Step("mask", (6, 20, 4), -1)
    layer = BatchNormalization()
    layer.trainable = False
    y = layer(step.p.x, training=True)
    dx = layer.backward(step.p.dy)
    assert same_bits(layer(step.p.x, training=True, **step.given), y)
    assert same_bits(layer.backward(step.p.dy), dx)


def test_keras_has_the_same():
    """But for the 1e-7 that Keras adds to the count."""
    keras = pytest.importorskip("keras")
    step = Step("mask", (6, 20, 4), -1)
    p, mask = step.p, step.given["mask"][..., 0]
    ours, theirs = BatchNormalization(momentum=0.75), keras.layers.BatchNormalization(momentum=0.75)
    theirs.build(p.x.shape)
    for _ in range(3):
        y = ours(p.x, training=True, mask=mask)
        other = np.asarray(theirs(p.x, training=True, mask=mask))
        np.testing.assert_allclose(y, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("kind", [None, "mask", "sample_weight"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), [((40, 3), -1), ((6, 4, 5, 5), 1), ((9000, 64), -1)], ids=str)
def test_input_gradient_of_parts(shape, axis, dtype, kind):
    """By the whole batch's moments, sums and count; one part is empty, and one has no weight."""
    p, cuts = problem(shape, axis, dtype, offset=3.0), [shape[0] // 3, shape[0] // 3, shape[0] - 2]
    w = np.ones(oracle.position_shape(shape, axis)) if kind is None else weights_of(kind, shape, axis)[kind]
    w[-2:] = w[-2:] if kind is None else 0
    mean, var = (each.astype(float).ravel() for each in oracle.moments(p.x, axis, w.astype(float)))
    exact = oracle.backward(p.dy, p.x, mean, var, p.gamma, axis, weights=w.astype(float))
    sums = [each.astype(float).ravel() for each in (exact.dgamma, exact.dbeta)]
    given = bnnumba.Moments(mean, var, float(w.sum())), p.gamma, sums, axis
    parts = [
        input_gradient(dy, x, *given, **({} if kind is None else {kind: part}))
        for dy, x, part in zip(*(np.split(each, cuts) for each in (p.dy, p.x, w)), strict=True)
    ]
    dx = np.concatenate(parts)
    assert dx.dtype == dtype
    bounds.check("dx", dx, exact.dx, bounds.dx(dtype, exact, share=w.astype(oracle.WIDE) / w.sum()))


def test_input_gradient_of_nothing():
    p = problem((5, 3))

    def gradient(count, **weights):
        moments = bnnumba.Moments(np.zeros(3), np.zeros(3), count)
        return input_gradient(p.dy, p.x, moments, None, (np.ones(3), np.ones(3)), **weights)

    assert not gradient(0, mask=np.zeros((5, 1), bool)).any()
    with pytest.raises(ValueError, match="count must be >= 0, got -1"):
        gradient(-1)


def test_a_small_gradient_where_hardly_anything_counts():
    """The share that is taken from dy is too small for float32, but not behind gamma."""
    x = np.random.default_rng(0).normal(size=(16, 1)).astype("f")
    w, dy, gamma = np.ones((16, 1)), np.full((16, 1), 1e-10, np.float32), np.array([1e38])
    w[0], dy[0] = 1e-32, 3e-42
    mean, var, _ = bnnumba.moments(x, sample_weight=w)
    found = bnnumba.batch_norm_backward(dy, x, mean, var, gamma, sample_weight=w)
    exact = oracle.backward(dy, x, mean, var, gamma, -1, 1e-3, weights=w)
    bounds.check_gradients(np.float32, found, exact, share=w.astype(oracle.WIDE) / w.sum())
