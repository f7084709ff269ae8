"""Degenerate data: nothing to reduce, nothing that varies, nothing finite."""

import warnings

import numpy as np
import pytest

import bnnumba
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, problem, same_bits

AXES = pytest.mark.parametrize("feature_axis", [0, 1, 2, (0, 2), (1, 2)], ids=str)
DTYPES = pytest.mark.parametrize("dtype", FLOATS)
LAYOUT = pytest.mark.parametrize(("shape", "feature_axis"), [((50, 3), 1), ((700, 70), 1), ((9, 3, 40), 1)], ids=str)
# Values at the ends of float32, and one with no exact sums.
CONSTANTS = [1e-30, 1.0, 0.1, 1e7, 3e38, -3e38, 0.0]


@DTYPES
@pytest.mark.parametrize(("shape", "feature_axis"), [((0, 3), 1), ((2, 3, 0), 1), ((0,), ()), ((0, 2, 3), (1, 2))])
def test_nothing_to_reduce(shape, feature_axis, dtype):
    p = problem(shape, feature_axis, dtype)
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis)
    for mean, var, count in (moments, bnnumba.moments(p.x, feature_axis)):
        assert (mean == 0).all()
        assert (var == 0).all()
        assert mean.shape == var.shape == p.gamma.shape
        assert count == 0
    for frozen in (False, True):
        gradients = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], p.gamma, feature_axis, frozen=frozen)
        assert gradients.dx.shape == y.shape == shape
        assert gradients.dgamma.shape == gradients.dbeta.shape == p.gamma.shape
        assert not gradients.dgamma.any()
        assert not gradients.dbeta.any()


@AXES
def test_no_features(feature_axis):
    p = problem((0, 0, 0), feature_axis)
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis)
    assert y.shape == (0, 0, 0)
    assert moments.mean.shape == p.gamma.shape


def check_is_beta(x, gamma, beta, feature_axis, epsilon):
    """Every y is beta, rounded to x's dtype; no variance is left, and no gradient is NaN."""
    y, moments = bnnumba.batch_norm(x, gamma, beta, feature_axis, epsilon=epsilon)
    assert (y == np.asarray(oracle.along(beta, x.shape, feature_axis), x.dtype)).all()
    assert (moments.var == 0).all()
    assert (moments.mean == oracle.moments(x, feature_axis)[0].ravel()).all()
    gradients = bnnumba.batch_norm_backward(np.ones_like(x), x, *moments[:2], gamma, feature_axis, epsilon=epsilon)
    assert (gradients.dgamma == 0).all()
    assert (gradients.dx == 0).all()
    frozen = bnnumba.normalize(x, *moments[:2], gamma, beta, feature_axis, epsilon=epsilon)
    assert same_bits(frozen, y)


@DTYPES
@LAYOUT
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@pytest.mark.parametrize("value", CONSTANTS)
def test_all_values_equal(value, epsilon, shape, feature_axis, dtype):
    p = problem(shape, feature_axis)
    check_is_beta(np.full(shape, value, dtype), p.gamma, p.beta, feature_axis, epsilon)


@DTYPES
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(("shape", "feature_axis"), [((1, 70), 1), ((1, 3), 1), ((5,), 0), ((1, 4, 1), 1)], ids=str)
def test_one_value(shape, feature_axis, scale, epsilon, dtype):
    p = problem(shape, feature_axis, dtype, scale=scale)
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis, epsilon=epsilon)
    assert (y.ravel() == p.beta.astype(dtype)).all()
    assert (moments.mean == p.x.ravel()).all()
    assert (moments.var == 0).all()
    assert moments.count == 1


@DTYPES
@LAYOUT
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_stay_in_their_feature(poison, shape, feature_axis, dtype):
    p = problem(shape, feature_axis, dtype, offset=3.0)
    poisoned = p.x.copy()
    poisoned[(shape[0] // 2, 1, *[0 for _ in shape[2:]])] = poison
    others = np.arange(shape[1]) != 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, moments = bnnumba.batch_norm(poisoned, p.gamma, p.beta, feature_axis)
    y_clean, moments_clean = bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis)
    for name in ("mean", "var"):
        assert np.isnan(getattr(moments, name)[1])
        assert same_bits(getattr(moments, name)[others], getattr(moments_clean, name)[others])
        assert same_bits(getattr(bnnumba.moments(poisoned, feature_axis), name), getattr(moments, name))
    assert np.isnan(y[:, 1]).all()
    assert same_bits(y[:, others], y_clean[:, others])

    gradients = bnnumba.batch_norm_backward(p.dy, poisoned, *moments[:2], p.gamma, feature_axis)
    clean = bnnumba.batch_norm_backward(p.dy, p.x, *moments_clean[:2], p.gamma, feature_axis)
    assert np.isnan(gradients.dgamma[1])
    assert np.isnan(gradients.dx[:, 1]).all()
    assert same_bits(gradients.dgamma[others], clean.dgamma[others])
    assert same_bits(gradients.dbeta, clean.dbeta)
    assert same_bits(gradients.dx[:, others], clean.dx[:, others])


@LAYOUT
@pytest.mark.parametrize("scale", [1e30, 1e37])
def test_large_float32_does_not_overflow(scale, shape, feature_axis):
    p = problem(shape, feature_axis, scale=scale)
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis)
    exact = oracle.batch_norm(p.x, p.gamma, p.beta, feature_axis)
    bounds.check_moments(np.float32, moments, exact)
    bounds.check_y(np.float32, y, exact)
    gradients = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], p.gamma, feature_axis)
    exact = oracle.backward(p.dy, p.x, *moments[:2], p.gamma, feature_axis)
    bounds.check_gradients(np.float32, gradients, exact)


@LAYOUT
@pytest.mark.parametrize(("scale", "size"), [(1e37, 1e-3), (1e30, 1e-9), (1e-37, 1e3)])
def test_gamma_times_rstd_may_leave_float32(scale, size, shape, feature_axis):
    """The product is subnormal, or infinite, in float32; y is neither."""
    p = problem(shape, feature_axis, scale=scale)
    gamma = size * p.gamma
    y, _ = bnnumba.batch_norm(p.x, gamma, None, feature_axis, epsilon=0.0)
    bounds.check_y(np.float32, y, oracle.batch_norm(p.x, gamma, None, feature_axis, 0.0))


@DTYPES
@LAYOUT
def test_variance_is_never_negative(shape, feature_axis, dtype):
    """One element in each feature is a rounding away from the others, at several offsets."""
    for value in (1.0, 1e4, 1e7, 0.1):
        x = np.full(shape, value, dtype)
        x[-1] = np.nextafter(x[-1], dtype(np.inf))
        moments = bnnumba.moments(x, feature_axis)
        assert (moments.var >= 0).all()
        bounds.check_moments(dtype, moments, oracle.batch_norm(x, None, None, feature_axis))


# ---- dy, gamma and epsilon as large and as small as their dtypes allow

SIZES = {np.float32: (1e-44, 1e-42, 1e-39, 1e-30, 1e30, 1e37, 6e37), np.float64: (1e-295, 1e-200, 1e200, 1e305)}
EXTREMES = [(dtype, size) for dtype, sizes in SIZES.items() for size in sizes]


def check_step(p, axis, epsilon, activation=None):
    """Every result of training and inference is within its bounds."""
    dtype = p.x.dtype
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis, epsilon=epsilon, activation=activation)
    exact = oracle.batch_norm(p.x, p.gamma, p.beta, axis, epsilon)
    bounds.check_moments(dtype, moments, exact)
    bounds.check_fused_y(dtype, y, exact, activation, None)
    options = {"epsilon": epsilon, "activation": activation, "y": y}
    dy = oracle.behind(p.dy, y, activation)
    for frozen in (False, True):
        found = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], p.gamma, axis, frozen=frozen, **options)
        exact = oracle.backward(dy, p.x, *moments[:2], p.gamma, axis, epsilon, frozen)
        bounds.check_gradients(dtype, found, exact, frozen)
        sums = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], None, axis, needs_dx=False, **options)
        assert same_bits(sums.dgamma, found.dgamma)


@LAYOUT
@pytest.mark.parametrize("rstd", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(("dtype", "size"), EXTREMES)
def test_dy_of_any_size(dtype, size, activation, rstd, shape, feature_axis):
    """Its sums are exact, and dx too wherever it is a number of its dtype."""
    p = problem(shape, feature_axis, dtype, scale=1 / rstd)
    dy = (np.clip(p.dy, -2.5, 2.5).astype(np.longdouble) * size).astype(dtype)
    check_step(p._replace(dy=dy), feature_axis, 0.0, activation)


@LAYOUT
@pytest.mark.parametrize("dtype", FLOATS)
def test_dy_of_many_sizes_at_once(dtype, shape, feature_axis):
    """One value as large as can be, most of them tiny; and one feature where all are 0."""
    p = problem(shape, feature_axis, dtype)
    dy = (p.dy * 1e-40).astype(dtype)
    dy[0, 0] = np.finfo(dtype).max / 1e3
    dy[:, 1] = 0
    check_step(p._replace(dy=dy), feature_axis, 1e-3)


@LAYOUT
@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 1e38), (np.float32, 1e-44), (np.float64, 1e307), (np.float64, 1e-322)]
)
def test_gamma_of_any_size(dtype, size, shape, feature_axis):
    p = problem(shape, feature_axis, dtype)
    gamma = (p.gamma.astype(np.longdouble) * size).astype(float)
    check_step(p._replace(gamma=gamma, dy=p.dy / dtype(1e3)), feature_axis, 1e-3)
    check_step(p._replace(gamma=gamma, dy=p.dy / dtype(1e3)), feature_axis, 1e-3, "relu")


@DTYPES
@LAYOUT
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("value", CONSTANTS)
def test_the_largest_gamma_leaves_beta(value, sign, shape, feature_axis, dtype):
    """Equal values, and one value alone: y is exactly beta, dx 0."""
    p = problem(shape, feature_axis, dtype)
    gamma = np.full(p.gamma.shape, sign * float(np.finfo(dtype).max) * 0.6)
    for epsilon in (0.0, 1e-3):
        check_is_beta(np.full(shape, value, dtype), gamma, p.beta, feature_axis, epsilon)
        one = np.full([1 if a != feature_axis else size for a, size in enumerate(shape)], value, dtype)
        check_is_beta(one, gamma, p.beta, feature_axis, epsilon)


@LAYOUT
def test_gamma_of_zero_leaves_beta(shape, feature_axis):
    """Where x_hat is beyond float32, too."""
    p = problem(shape, feature_axis, scale=1e30)
    mean, var = np.zeros(p.gamma.shape), np.full(p.gamma.shape, 1e-30)
    y = bnnumba.normalize(p.x, mean, var, 0 * p.gamma, p.beta, feature_axis, epsilon=0)
    assert (y == oracle.along(p.beta, shape, feature_axis).astype(np.float32)).all()
    gamma = 1e-40 * p.gamma
    y = bnnumba.normalize(p.x, mean, var, gamma, p.beta, feature_axis, epsilon=0)
    bounds.check_y(np.float32, y, oracle.normalize(p.x, mean, var, gamma, p.beta, feature_axis, 0))


@LAYOUT
@pytest.mark.parametrize(("scale", "epsilon"), [(1e-35, 1e30), (1e-30, 1e3), (1e-38, 1e-3), (1.0, 1e300)])
def test_an_epsilon_far_beyond_the_variance(scale, epsilon, shape, feature_axis):
    check_step(problem(shape, feature_axis, scale=scale), feature_axis, epsilon)


TINY = {np.float32: 1e-45, np.float64: 5e-324}


@pytest.mark.parametrize("inner", [1, 3, 20])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_that_are_0_though_dy_is_not(dtype, inner):
    """dbeta by cancellation, and dgamma because no product is a number of the dtype."""
    x = np.full((64, 40, inner), 0.4, dtype)
    x[::2] *= -1
    x[:2] = [[[-5]], [[5]]]
    dy = np.full(x.shape, TINY[dtype], dtype)
    dy[::2] *= -1
    dy[:2] = 0
    dy[:, ::3] = 0
    mean, var, _ = bnnumba.moments(x, 1)
    gamma = np.full(40, 1e38 if dtype == np.float32 else 1e300)
    found = bnnumba.batch_norm_backward(dy, x, mean, var, gamma, 1, epsilon=0.0)
    exact = oracle.backward(dy, x, mean, var, gamma, 1, 0.0)
    assert not found.dgamma[::3].any()
    if dtype == np.float32:  # a float64 as small has no digits
        bounds.check_gradients(dtype, found, exact)
        assert found.dgamma[1] != 0


def test_frozen_sums_of_small_products():
    x = np.float32([1e-25, -1e-25] * 32)[:, np.newaxis]
    found = bnnumba.batch_norm_backward(x, x, np.zeros(1), np.ones(1), epsilon=0.0, frozen=True)
    np.testing.assert_allclose(found.dgamma, (x.astype(float) ** 2).sum(), rtol=1e-6)


@pytest.mark.parametrize("kernel", ["forward", "frozen", "masked", "training"])
def test_a_factor_beyond_the_dtype_times_0_is_0(kernel):
    """gamma*rstd is 1e80; y at the mean is beta, and dx of dy = 0 is 0."""
    x, gamma, zero = np.float32([[-1], [0], [1]]), np.array([1e80]), np.zeros((3, 1), np.float32)
    moments = bnnumba.moments(x)
    if kernel == "forward":
        y = bnnumba.normalize(x, *moments[:2], gamma, np.array([2.0]))
        assert y.ravel().tolist() == [-np.inf, 2.0, np.inf]
        return
    options = {"frozen": {"frozen": True}, "masked": {"mask": np.ones((3, 1), bool)}, "training": {}}[kernel]
    assert not bnnumba.batch_norm_backward(zero, x, *moments[:2], gamma, **options).dx.any()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("behind", [{}, {"activation": "relu"}, {"activation": "relu", "residual": 1e36}], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((50, 3), 1), ((4, 3, 40), 1), ((3, 3, 3, 3), (1, 2))], ids=str)
@pytest.mark.parametrize(("scale", "gamma_size"), [(1e-44, 1e37), (1e-40, 1e38), (1e-40, 1e120), (1e-38, 3e38)])
def test_gamma_over_a_tiny_spread(scale, gamma_size, shape, axis, behind, in_place):
    """gamma*rstd is more than two factors of float32 hold; of 1e120, where x is not the mean, so is y."""
    p = problem(shape, axis, scale=scale)
    gamma, behind = p.gamma * 1.0, dict(behind)
    gamma.flat[::2] = gamma_size  # among ordinary ones
    if "residual" in behind:
        behind["residual"] = np.full_like(p.x, behind["residual"])
    exact = oracle.batch_norm(p.x, gamma, p.beta, axis, 0.0)
    x = p.x.copy()
    y, moments = bnnumba.batch_norm(x, gamma, p.beta, axis, epsilon=0.0, out=x if in_place else None, **behind)
    activation, residual = behind.get("activation"), behind.get("residual")
    bounds.check_fused_y(np.float32, y, exact, activation, residual)
    x = p.x.copy()
    given = {"epsilon": 0.0, "out": x if in_place else None, **behind}
    assert same_bits(bnnumba.normalize(x, *moments[:2], gamma, p.beta, axis, **given), y)
    dy = (p.dy * np.float32(1e-44 if gamma_size > 1e37 else 1e-40)).astype(np.float32)
    out = dy.copy() if in_place else None
    given = {"epsilon": 0.0, "frozen": True, "activation": activation, "y": y if activation else None}
    found = bnnumba.batch_norm_backward(dy if out is None else out, p.x, *moments[:2], gamma, axis, out=out, **given)
    exact_dx = oracle.backward(oracle.behind(dy, y, activation), p.x, *moments[:2], gamma, axis, 0.0, frozen=True)
    bounds.check_gradients(np.float32, found, exact_dx, frozen=True)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((50, 3), 1), ((4, 3, 40), 1)], ids=str)
@pytest.mark.parametrize(("scale", "size", "var"), [(1e-43, 1e25, 0.0), (1e-43, 1e25, 1e10), (1e-41, 1e30, 1e30)])
def test_tiny_differences_from_a_given_mean_and_large_gradients(scale, size, var, shape, axis, frozen):
    """x_hat is below float32's normal numbers, its product with dy is not."""
    p = problem(shape, axis, scale=scale)
    dy, mean, variance = (p.dy * np.float32(size)).astype(np.float32), np.zeros(3), np.full(3, var)
    found = bnnumba.batch_norm_backward(dy, p.x, mean, variance, p.gamma, axis, epsilon=2.0, frozen=frozen)
    exact = oracle.backward(dy, p.x, mean, variance, p.gamma, axis, 2.0, frozen=frozen)
    bounds.check_gradients(np.float32, found, exact, frozen=frozen)


@pytest.mark.parametrize(("shape", "axis"), [((50, 3), 1), ((4, 3, 40), 1)], ids=str)
@pytest.mark.parametrize(("scale", "size"), [(1e30, 1e-25), (1e36, 1e-30)])
def test_huge_differences_and_tiny_gradients(scale, size, shape, axis):
    """The share of the mean product in dx is a small number: it must not fall below the normal ones."""
    p = problem(shape, axis, scale=scale)
    dy = (p.dy * np.float32(size)).astype(np.float32)
    mean, var, _ = bnnumba.moments(p.x, axis)
    gamma = np.full(3, 1e38)
    found = bnnumba.batch_norm_backward(dy, p.x, mean, var, gamma, axis, epsilon=0.0)
    bounds.check_gradients(np.float32, found, oracle.backward(dy, p.x, mean, var, gamma, axis, 0.0))


@pytest.mark.parametrize("shape", [(2, 40), (2, 2, 20)], ids=str)
def test_gamma_near_the_largest_number(shape):
    """x - mean_hi is twice x - mean, where the mean lies between two neighbours in float32."""
    x = np.full(shape, 3e7, np.float32)
    x[0] = np.nextafter(np.float32(3e7), np.float32(4e7))
    axis = tuple(range(1, len(shape)))
    gamma = np.random.default_rng(0).uniform(1.7e38, 3.3e38, shape[1:]) * np.float64(-1)
    exact = oracle.batch_norm(x, gamma, None, axis, 0.0)
    y, moments = bnnumba.batch_norm(x, gamma, None, axis, epsilon=0.0)
    bounds.check_y(np.float32, y, exact)
    assert same_bits(bnnumba.normalize(x, *moments[:2], gamma, None, axis, epsilon=0.0), y)


@pytest.mark.parametrize("bad", ["x", "gamma", "nothing"])
@pytest.mark.parametrize("gamma_size", [1.0, 1e30])
def test_what_is_extreme_in_one_feature_changes_no_bit_of_another(gamma_size, bad):
    """Of constant features epsilon = 0 leaves no spread; a residual shows where y was rounded."""
    p = problem((6, 40))
    p.x[:, ::2] = 5e-39
    p.gamma[3] = gamma_size
    residual = problem((6, 40), seed=1).x
    given = {"epsilon": 0.0, "residual": residual}
    expected = bnnumba.batch_norm(p.x, p.gamma, p.beta, **given)[0]
    x, gamma = p.x.copy(), p.gamma.copy()
    if bad == "x":
        x[0, 0] = np.nan
    if bad == "gamma":
        gamma[0] = np.nan
    y, moments = bnnumba.batch_norm(x, gamma, p.beta, **given)
    assert same_bits(y[:, 1:], expected[:, 1:])
    assert same_bits(bnnumba.normalize(x, *moments[:2], gamma, p.beta, **given)[:, 1:], expected[:, 1:])
