"""NaN left out, and masks and weights of single values: each feature has its own count."""

import warnings

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization
from tests.tools.problems import FLOATS, problem, same_bits

SHAPES = [((40, 3), -1), ((3000, 70), -1), ((6, 4, 5, 5), 1), ((20, 30, 196), 1), ((6, 20, 64), -1), ((9,), -1),
          ((5, 2, 6, 3), (1, 3)), ((4, 3), ()), ((2, 40_000), 0), ((33, 5000), -1), ((70_000, 1), 1)]  # fmt: skip
EVERY_SHAPE = pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)


def reduced_axes(shape, axis):
    kept = {each % len(shape) for each in (axis if isinstance(axis, tuple) else (axis,))}
    return tuple(each for each in range(len(shape)) if each not in kept)


def expected(x, axis, w):
    """Count, mean and variance in long double, of the values with their weights; 0 where there is none."""
    reduced = reduced_axes(x.shape, axis)
    w = np.broadcast_to(w, x.shape).astype(np.longdouble)
    wide = np.where(w > 0, x, 0).astype(np.longdouble)
    count = w.sum(reduced, keepdims=True)
    divisor = np.where(count > 0, count, 1)
    mean = (w * wide).sum(reduced, keepdims=True) / divisor
    var = (w * (wide - mean) ** 2).sum(reduced, keepdims=True) / divisor
    return [each.squeeze(reduced) for each in (count, mean, var)]


def check(moments, dtype, exact):
    count, mean, var = exact
    eps, wide = np.finfo(dtype).eps, np.finfo(np.float64).eps
    np.testing.assert_allclose(moments.count, count.astype(float), rtol=4 * wide)
    std = np.sqrt(var)
    share = wide if dtype == np.float64 else eps / 8
    assert (abs(moments.mean - mean) <= share * std + 4 * wide * abs(mean)).all()
    assert (abs(moments.var - var) <= 2 * eps * var + (8 * wide * abs(mean)) ** 2).all()


def with_gaps(shape, dtype, share, offset=3.0):
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(shape) + offset).astype(dtype)
    x[rng.random(shape) < share] = np.nan
    return x


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.95])
@pytest.mark.parametrize("dtype", FLOATS)
@EVERY_SHAPE
def test_omit(shape, axis, dtype, share, offset):
    x = with_gaps(shape, dtype, share, offset)
    found = bnnumba.moments(x, axis, nan_policy="omit")
    check(found, dtype, expected(x, axis, ~np.isnan(x)))
    assert found.count.dtype == np.int64
    for threads in (1, 2):
        with_threads(threads, lambda: same(found, bnnumba.moments(x, axis, nan_policy="omit")))


def same(a, b):
    assert all(same_bits(np.asarray(one), np.asarray(other)) for one, other in zip(a, b, strict=True))


def with_threads(threads, call):
    import numba  # noqa: PLC0415

    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        call()
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("kind", ["mask", "sample_weight"])
@pytest.mark.parametrize("policy", ["propagate", "omit"])
@pytest.mark.parametrize("dtype", FLOATS)
@EVERY_SHAPE
def test_weights_of_single_values(shape, axis, dtype, policy, kind):
    rng = np.random.default_rng(6)
    w = rng.random(shape)
    w = w > 0.4 if kind == "mask" else np.where(w < 0.3, 0, 7 * w)
    x = with_gaps(shape, dtype, 0.2)
    if policy == "propagate":
        x = np.where(np.isnan(x) & (w > 0), dtype(2), x)  # NaN where nothing counts
    found = bnnumba.moments(x, axis, **{kind: w}, nan_policy=policy)
    check(found, dtype, expected(x, axis, w * ~np.isnan(x)))
    assert np.asarray(found.count).dtype == (np.int64 if kind == "mask" else np.float64)


def test_omit_with_positions():
    x, w = with_gaps((50, 7), np.float64, 0.3), np.random.default_rng(1).random((50, 1))
    check(bnnumba.moments(x, sample_weight=w, nan_policy="omit"), np.float64, expected(x, -1, w * ~np.isnan(x)))


def test_nan_with_weight_makes_its_feature_nan():
    x = np.ones((4, 3))
    x[1, 1] = np.nan
    assert np.isnan(bnnumba.moments(x, mask=np.ones((4, 3), bool)).mean).tolist() == [False, True, False]
    assert np.isnan(bnnumba.moments(x).mean).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_raise(dtype):
    x = np.ones((4, 3), dtype)
    bnnumba.moments(x, nan_policy="raise")
    bnnumba.normalize(x, np.ones(3), np.ones(3), nan_policy="raise")
    x[2, 1] = np.nan
    for call in (lambda: bnnumba.moments(x, nan_policy="raise"),
                 lambda: bnnumba.normalize(x, np.ones(3), np.ones(3), nan_policy="raise")):  # fmt: skip
        with pytest.raises(ValueError, match="x must have no NaN with nan_policy='raise'"):
            call()


def test_infinity_is_no_missing_value():
    x = np.array([[1.0, np.inf], [np.nan, 2.0]])
    found = bnnumba.moments(x, nan_policy="omit")
    assert found.count.tolist() == [1, 2]
    assert (found.mean[0], found.var[0]) == (1, 0)
    assert np.isnan(found.mean[1])


def test_beside_numpy():
    x = with_gaps((200, 30), np.float64, 0.4)
    found = bnnumba.moments(x, nan_policy="omit")
    np.testing.assert_allclose(found.mean, np.nanmean(x, 0), rtol=1e-14)
    np.testing.assert_allclose(found.var, np.nanvar(x, 0), rtol=1e-13)


def test_far_and_heavy():
    """The first value is far away and hardly counts: the sums begin where the weight is."""
    x, w = np.full((400, 2), 3.0), np.ones((400, 2))
    x[1::2] = 4.0
    x[0], w[0] = 1.3e101, 8e-231
    found = bnnumba.moments(x, sample_weight=w)
    check(found, np.float64, expected(x, -1, w))


@pytest.mark.parametrize("dtype", FLOATS)
def test_merging(dtype):
    x = with_gaps((300, 5), dtype, 0.5, 1e4)
    x[:, 4] = np.nan
    parts = [bnnumba.moments(part, nan_policy="omit") for part in np.array_split(x, 7)]
    union = parts[0]
    for part in parts[1:]:
        union = bnnumba.merge_moments(union, part)
    check(union, dtype, expected(x, -1, ~np.isnan(x)))
    assert union.count.tolist()[4] == 0
    check(bnnumba.population_moments(np.array_split(x, 7), nan_policy="omit"), dtype, expected(x, -1, ~np.isnan(x)))
    stored = bnnumba.Moments.from_dict(union.to_dict())
    same(stored, union)


def test_population_of_masked_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, 4)) for n in (5, 9, 3)]
    masks = [rng.random(batch.shape) < 0.6 for batch in batches]
    found = bnnumba.population_moments(iter(batches), masks=iter(masks))
    check(found, np.float64, expected(np.concatenate(batches), -1, np.concatenate(masks)))
    for wrong in (masks[:2], [*masks, masks[0]]):
        with pytest.raises(ValueError, match="masks must be as many as batches"):
            bnnumba.population_moments(batches, masks=wrong)
    with pytest.raises(TypeError, match=r"masks must be an iterable of arrays, got one ndarray of shape \(5, 4\)"):
        bnnumba.population_moments(batches, masks=masks[0])


def test_moving_statistics_of_features_with_counts_of_their_own():
    x = np.array([[1.0, 5.0, np.nan], [3.0, np.nan, np.nan], [5.0, np.nan, np.nan]])
    mean, var = np.zeros(3), np.full(3, 9.0)
    bnnumba.update_moving(mean, var, bnnumba.moments(x, nan_policy="omit"), 0.5, ddof=1)
    np.testing.assert_allclose(mean, [1.5, 2.5, 0])
    np.testing.assert_allclose(var, [4.5 + 2, 4.5, 9])  # 8/3 * 3/2; of one value 0; untouched


@pytest.mark.parametrize("behind", [{}, {"activation": "relu"}])
@pytest.mark.parametrize("kind", ["mask", "sample_weight"])
@pytest.mark.parametrize(("shape", "axis"), [((7, 5, 4), 1), ((12, 6), -1), ((3, 4, 17), (0, 1))], ids=str)
def test_training(shape, axis, kind, behind):
    p = problem(shape, axis, np.float64)
    w = np.random.default_rng(3).random(shape)
    w = w > 0.4 if kind == "mask" else np.where(w < 0.3, 0, w)
    kept = axis if isinstance(axis, tuple) else (axis,)
    np.moveaxis(w, kept, range(len(kept)))[(0,) * len(kept)] = 0  # a feature of which nothing counts
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis, **{kind: w}, **behind)
    check(moments, np.float64, expected(p.x, axis, w))
    expand = np.expand_dims
    reduced = reduced_axes(shape, axis)
    mean, var, gamma, beta = (expand(each, reduced) for each in (*moments[:2], p.gamma, p.beta))
    there = expand(moments.count > 0, reduced)
    plain = np.where(there, gamma * (p.x - mean) / np.sqrt(var + 1e-3), 0) + beta
    np.testing.assert_allclose(y, np.maximum(plain, 0) if behind else plain, rtol=1e-11, atol=1e-12)

    def loss(x):
        return (bnnumba.batch_norm(x, p.gamma, p.beta, axis, **{kind: w}, **behind)[0] * p.dy).sum()

    options = {"y": y, **behind} if behind else {}
    dx = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], p.gamma, axis, **{kind: w}, **options).dx
    numeric = np.empty(shape)
    for place in np.ndindex(shape):
        step = np.zeros(shape)
        step[place] = 1e-6
        numeric[place] = (loss(p.x + step) - loss(p.x - step)) / 2e-6
    numeric = np.where(there, numeric, 0)
    near_the_kink = abs(plain) < 1e-4 if behind else np.zeros(shape, bool)
    np.testing.assert_allclose(np.where(near_the_kink, 0, dx), np.where(near_the_kink, 0, numeric), atol=1e-6)


@pytest.mark.parametrize("renorm", [False, True])
def test_the_layer(renorm):
    rng = np.random.default_rng(2)
    x, mask = rng.normal(2, 1, (30, 4, 3)).astype(np.float32), rng.random((30, 4)) < 0.5
    mask[:, 2] = False
    layer = BatchNormalization(1, momentum=0.0, renorm=renorm, renorm_momentum=0.0)
    layer(x, training=True, mask=mask)
    found = bnnumba.moments(x, 1, mask=mask[:, :, np.newaxis])
    np.testing.assert_array_equal(layer.moving_mean, np.where(found.count > 0, found.mean, 0))
    np.testing.assert_allclose(layer.moving_variance, np.where(found.count > 0, found.var, 1), rtol=1e-6)
    assert layer.backward(x)[:, 2].any() == 0
    again = BatchNormalization(1, renorm=renorm)
    again.recompute_moving([x[:9], x[9:]], masks=[mask[:9], mask[9:]])
    np.testing.assert_allclose(again.moving_mean, layer.moving_mean, rtol=1e-13)
    np.testing.assert_allclose(again.moving_variance, layer.moving_variance, rtol=1e-6)


def test_batches_from_other_libraries():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(8, 3))
    same(bnnumba.population_moments([torch.from_numpy(x[:5]), x[5:]]), bnnumba.population_moments([x[:5], x[5:]]))
    with pytest.raises(TypeError, match=r"batches\[0\], Tensor, gives no NumPy array .*: give its data as a"):
        bnnumba.population_moments([torch.from_numpy(x).requires_grad_()])
    with pytest.raises(TypeError, match=r"batches\[0\] must be an array, got a tuple of 2: give the data alone"):
        bnnumba.population_moments([(x, np.zeros(8))])


def test_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bnnumba.moments(np.full((3, 2), np.nan), nan_policy="omit")
    assert found.count.tolist() == found.mean.tolist() == found.var.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("values", [[np.inf, 1], [1, np.inf], [np.inf, np.nan], [np.inf], [1, -np.inf, np.nan, 2]])
def test_infinity_makes_nan_wherever_it_is(values, dtype):
    found = bnnumba.moments(np.array(values, dtype)[:, np.newaxis], nan_policy="omit")
    assert np.isnan([found.mean, found.var]).all()


def test_features_whose_weights_differ_beyond_what_one_unit_holds():
    x, w = np.random.default_rng(0).normal(size=(6, 3)), np.ones((6, 3))
    plain = bnnumba.moments(x)
    for sizes in ([1e-320, 1e300, 1], [5e-324, 1, 1], [1e-200, 1e200, 1]):
        given = w * sizes
        found = bnnumba.moments(x, sample_weight=given)
        np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-13)
        np.testing.assert_allclose(found.var, plain.var, rtol=1e-13)
        np.testing.assert_allclose(found.count, 6 * given[0])
        y, batch = bnnumba.batch_norm(x, sample_weight=given)
        np.testing.assert_allclose(y, bnnumba.batch_norm(x)[0], rtol=1e-12, atol=1e-13)
        dx = bnnumba.batch_norm_backward(x, x, *batch[:2], sample_weight=given).dx
        np.testing.assert_allclose(dx, bnnumba.batch_norm_backward(x, x, *plain[:2]).dx, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="finite sum"):
        bnnumba.moments(x, sample_weight=w * [1, 1e308, 1])


def test_raise_asks_for_what_counts():
    x, mask = np.array([[1.0], [np.nan]]), np.array([[True], [False]])
    assert bnnumba.moments(x, mask=mask, nan_policy="raise").mean == 1
    with pytest.raises(ValueError, match="no NaN"):
        bnnumba.moments(x, mask=~mask, nan_policy="raise")
