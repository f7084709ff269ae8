"""The functions against the oracle: their properties, exact data, degenerate data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnnumba
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, LAYOUTS, problem, same_bits

OFFSETS = (0.0, 1e2, 1e4, 1e6)  # mean/std


def forward(p, feature_axis=-1, epsilon=1e-3):
    return bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis, epsilon=epsilon)


def check_everything(p, feature_axis=-1, epsilon=1e-3):
    """Every function on one problem, within its bounds."""
    dtype, axis = p.x.dtype, feature_axis
    exact = oracle.batch_norm(p.x, p.gamma, p.beta, axis, epsilon)
    y, moments = forward(p, axis, epsilon)
    bounds.check_moments(dtype, bnnumba.moments(p.x, axis), exact)
    bounds.check_moments(dtype, moments, exact)
    bounds.check_y(dtype, y, exact)
    statistics = moments.mean, moments.var
    y = bnnumba.normalize(p.x, *statistics, p.gamma, p.beta, axis, epsilon=epsilon)
    bounds.check_y(dtype, y, oracle.normalize(p.x, *statistics, p.gamma, p.beta, axis, epsilon))
    for frozen in (False, True):
        gradients = bnnumba.batch_norm_backward(p.dy, p.x, *statistics, p.gamma, axis, epsilon=epsilon, frozen=frozen)
        exact = oracle.backward(p.dy, p.x, *statistics, p.gamma, axis, epsilon, frozen)
        bounds.check_gradients(dtype, gradients, exact, frozen)


@pytest.mark.subset
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(("shape", "feature_axis"), [((90, 3), -1), ((6, 4, 5, 5), 1), ((5, 70), -1)], ids=str)
def test_small_problems(shape, feature_axis, offset):
    check_everything(problem(shape, feature_axis, offset=offset), feature_axis)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("offset", [*OFFSETS, -1e6])
def test_offsets_in_every_layout(offset, dtype, layout):
    for feature_axis in (1, -1):
        p = problem((16, 6, 9, 40), feature_axis, dtype, offset)
        check_everything(p._replace(x=LAYOUTS[layout](p.x)), feature_axis)


def test_without_gamma_and_beta():
    p = problem((6, 4, 5), 1)
    ones, zeros = np.ones(4), np.zeros(4)
    y, moments = bnnumba.batch_norm(p.x, feature_axis=1)
    assert same_bits(y, bnnumba.batch_norm(p.x, ones, zeros, 1)[0])
    assert same_bits(bnnumba.normalize(p.x, *moments[:2], feature_axis=1), y)
    one, other = (bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], gamma, 1).dx for gamma in (None, ones))
    assert same_bits(one, other)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, ">f8"])
def test_features_of_any_float_dtype(dtype):
    p = problem((6, 4), dtype=np.float64)
    features = [np.round(values, 2).astype(dtype) for values in (p.gamma, p.beta, p.beta, p.gamma**2)]
    doubles = [values.astype(np.float64) for values in features]
    for arguments in (features, [values[::-1].copy()[::-1] for values in features]):
        gamma, beta, mean, var = arguments
        y = bnnumba.normalize(p.x, mean, var, gamma, beta)
        assert same_bits(y, bnnumba.normalize(p.x, *doubles[2:], *doubles[:2]))


# ---- data whose sums are exact


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "feature_axis"), [((64, 5), 1), ((4096, 3), 1), ((256, 130), 1), ((4, 5, 16, 16), 1), ((2, 8192), ())]
)
def test_moments_of_small_integers_are_exact(shape, feature_axis, dtype):
    """Sums of integers below 2**24, divided by a power of two: there is nothing to round."""
    integers = np.random.default_rng(1).integers(-8, 9, shape)
    reduced = oracle.reduced_axes(len(shape), feature_axis)
    n, total, squares = oracle.count(shape, feature_axis), integers.sum(axis=reduced), (integers**2).sum(axis=reduced)
    moments = bnnumba.moments((integers + 1000).astype(dtype), feature_axis)
    assert (moments.mean == 1000 + total / n).all()
    assert (moments.var == (n * squares - total**2) / n**2).all()
    assert moments.count == n


def test_ones_that_float32_cannot_count():
    mean, var, count = bnnumba.moments(np.ones((2**26, 1), np.float32))
    assert (mean, var, count) == (1.0, 0.0, 2**26)


# ---- properties


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 2.0**10, 2.0**16, -(2.0**18)]))
def test_an_exact_shift_leaves_y(seed, shift):
    """Multiples of 1/8 below 4 stay exact in float32 up to 2**18: both results are near one exact y."""
    p = problem((31, 4), seed=seed)
    x = np.clip(np.round(p.x * 8) / 8, -4, 4)
    shifted = x + np.float32(shift)
    assert (shifted - np.float32(shift) == x).all()
    exact = oracle.batch_norm(x, p.gamma, p.beta)
    allowed = bounds.y(np.float32, exact)
    for data in (x, shifted):
        bounds.check("y", bnnumba.batch_norm(data, p.gamma, p.beta)[0], exact.y, allowed)


@given(st.integers(0, 2**32 - 1), st.sampled_from(FLOATS), st.sampled_from(OFFSETS))
def test_sums_of_dx(seed, dtype, offset):
    """sum(dx) = 0 and sum(dx*x_hat) = gamma * rstd**3 * epsilon * dgamma, as sum(x_hat**2) = count*var*rstd**2."""
    epsilon = 0.5
    p = problem((3, 4, 11), 1, dtype, offset, seed=seed)
    mean, var = oracle.moments(p.x, 1)
    moments = bnnumba.moments(p.x, 1)
    dx = bnnumba.batch_norm_backward(p.dy, p.x, moments.mean, moments.var, p.gamma, 1, epsilon=epsilon).dx
    exact = oracle.backward(p.dy, p.x, mean, var, p.gamma, 1, epsilon)
    f, allowed = exact.forward, bounds.dx(dtype, exact)
    closed_form = f.gamma * f.rstd**3 * oracle.WIDE(epsilon) * exact.dgamma
    dx = dx.astype(oracle.WIDE)
    own = oracle.count(p.x.shape, 1) * 8 * np.finfo(oracle.WIDE).eps  # the oracle's rounding
    over = {"axis": (0, 2), "keepdims": True}
    bounds.check("sum(dx)", dx.sum(**over), np.zeros(exact.dgamma.shape), allowed.sum(**over))
    spread = (allowed * abs(f.x_hat)).sum(**over) + own * abs(f.x_hat * exact.dx).sum(**over)
    bounds.check("sum(dx*x_hat)", (dx * f.x_hat).sum(**over), closed_form, spread)


@given(st.integers(0, 2**32 - 1), st.sampled_from(FLOATS), st.booleans())
def test_permuting_the_batch_permutes_the_results(seed, dtype, frozen):
    p = problem((37, 5), dtype=dtype, offset=50.0, seed=seed)
    order = np.random.default_rng(seed).permutation(37)
    moments = bnnumba.moments(p.x)
    permuted = p._replace(x=p.x[order], dy=p.dy[order])
    bounds.check_moments(dtype, bnnumba.moments(permuted.x), oracle.batch_norm(p.x))
    exact = oracle.batch_norm(p.x, p.gamma, p.beta)
    bounds.check("y", forward(permuted)[0], exact.y[order], bounds.y(dtype, exact)[order])
    gradients = bnnumba.batch_norm_backward(permuted.dy, permuted.x, *moments[:2], p.gamma, frozen=frozen)
    exact = oracle.backward(p.dy, p.x, *moments[:2], p.gamma, frozen=frozen)
    bounds.check("dx", gradients.dx, exact.dx[order], bounds.dx(dtype, exact, frozen)[order])
    bounds.check("dgamma", gradients.dgamma, exact.dgamma, bounds.dgamma(dtype, exact))


def test_inputs_are_left_alone():
    p = problem((30, 4, 7), 1)
    before = [array.copy() for array in p]
    check_everything(p, 1)
    assert all(same_bits(a, b) for a, b in zip(before, p, strict=True))
