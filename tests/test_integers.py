"""Integers and bool as data of moments and inference: read as they are, summed exactly."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import bnnumba
from tests.tools.problems import same_bits
from tests.tools.subprocesses import run_python

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u4"]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def whole(dtype, shape, seed=0):
    """Numbers of the dtype's whole range, but of 64 bits no more than float64 tells apart."""
    if dtype == "?":
        return np.random.default_rng(seed).random(shape) < 0.3
    info = np.iinfo(dtype)
    low, high = max(info.min, -(2**50)), min(info.max, 2**50)
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "axis"), [((50, 7), -1), ((300, 3), -1), ((4, 5, 40), 1), ((6, 3, 5), (0, 2))], ids=str
)
@EVERY_DTYPE
def test_moments_are_those_of_python_ints(dtype, shape, axis):
    x = whole(dtype, shape)
    found = bnnumba.moments(x, axis)
    kept = [each % x.ndim for each in (axis if isinstance(axis, tuple) else (axis,))]
    by_feature = np.moveaxis(x, kept, range(len(kept))).reshape(*found.mean.shape, -1)
    bound = np.finfo(np.float64 if x.itemsize > 2 else np.float32).eps
    for place in np.ndindex(found.mean.shape):
        values = [int(each) for each in by_feature[place]]
        mean = Fraction(sum(values), len(values))
        var = sum((each - mean) ** 2 for each in values) / len(values)
        assert abs(Fraction(found.mean[place]) - mean) <= 2.0**-52 * (float(var) ** 0.5 + 4 * abs(mean))
        assert abs(Fraction(found.var[place]) - var) <= 2 * bound * var
    assert found.count == x.size // found.mean.size


@EVERY_DTYPE
def test_strides_and_orders(dtype):
    x = whole(dtype, (20, 6, 5))
    found = bnnumba.moments(x, 1)
    for other in (
        np.asfortranarray(x),
        np.repeat(x, 2, 0)[::2],
        x[::-1][::-1],
        x.astype(np.dtype(dtype).newbyteorder()),
    ):
        for one, two in zip(found, bnnumba.moments(other, 1), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-13)


@EVERY_DTYPE
@pytest.mark.parametrize("shape", [(0,), (6, 3)])
def test_read_only(dtype, shape):
    x = whole(dtype, shape)
    x.flags.writeable = False
    found = bnnumba.moments(x)
    masked = bnnumba.moments(x, mask=np.ones((1,) * x.ndim, bool))
    np.testing.assert_array_equal(found.mean, masked.mean)
    assert bnnumba.normalize(x, *found[:2]).shape == shape


@EVERY_DTYPE
@pytest.mark.parametrize("axis", [-1, 1, (0, 2)])
def test_normalize(dtype, axis):
    x = whole(dtype, (40, 5, 30))
    found = bnnumba.moments(x, axis)
    gamma, beta = np.linspace(1, 2, found.mean.size).reshape(found.mean.shape), np.ones(found.mean.shape)
    wide = x.astype(np.float64)
    exact = bnnumba.normalize(wide, *found[:2], gamma, beta, axis, epsilon=0)
    small = x.itemsize <= 2
    y = bnnumba.normalize(x, *found[:2], gamma, beta, axis, epsilon=0)
    assert y.dtype == (np.float32 if small else np.float64)
    for result, kind in [(y, y.dtype)] + [
        (bnnumba.normalize(x, *found[:2], gamma, beta, axis, epsilon=0, dtype=kind), kind)
        for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
    ]:
        assert result.dtype == kind
        eps = float(ml_dtypes.finfo(kind).eps)
        np.testing.assert_allclose(result.astype(np.float64), exact, rtol=0, atol=16 * eps)
    out = np.empty_like(y)
    assert bnnumba.normalize(x, *found[:2], gamma, beta, axis, epsilon=0, out=out) is out
    assert same_bits(out, y)
    rectified = bnnumba.normalize(x, *found[:2], gamma, beta, axis, epsilon=0, activation="relu")
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8"])
def test_masks_weights_and_batches(dtype):
    x = whole(dtype, (60, 4))
    w = np.random.default_rng(1).random((60, 4))
    for given in ({"mask": w > 0.5}, {"sample_weight": w}, {"mask": w[:, :1] > 0.5}, {"nan_policy": "omit"}):
        found, wide = bnnumba.moments(x, **given), bnnumba.moments(x.astype(np.float64), **given)
        np.testing.assert_allclose(found.mean, wide.mean, rtol=1e-12)
        np.testing.assert_allclose(found.var, wide.var, rtol=1e-6)
        np.testing.assert_array_equal(found.count, wide.count)
    found = bnnumba.population_moments([x[:20], x[20:]])
    np.testing.assert_allclose(found.var, x.astype(np.float64).var(0), rtol=1e-6)


def test_both_forms_agree_on_large_data():
    x = whole("u1", (3000, 1000))
    found = bnnumba.moments(x)
    np.testing.assert_allclose(found.mean, x.sum(0, dtype=np.int64) / 3000, rtol=5e-16)
    y = bnnumba.normalize(x, *found[:2])
    for rows in (slice(0, 20), slice(1500, 1510)):
        assert same_bits(y[rows], bnnumba.normalize(x[rows].copy(), *found[:2]))


def test_bad_input():
    x, f = np.ones((4, 3), np.uint8), np.ones(3)
    for options, error, words in [
        (
            {"out": np.empty((4, 3), np.uint8)},
            TypeError,
            "out must be float32, float64, float16 or bfloat16, got uint8",
        ),
        ({"out": np.empty((4, 3))}, TypeError, "out must be float32 for x of uint8, or as dtype says, got float64"),
        ({"out": np.empty((4, 2), np.float32)}, ValueError, r"out must have the shape of x, \(4, 3\), got \(4, 2\)"),
        ({"residual": x}, ValueError, r"residual must be None where x is uint8: use x.astype\(np.float32\)"),
        ({"dtype": np.int32}, ValueError, "dtype must be float32, float64, float16 or bfloat16, got int32"),
        ({"dtype": "text"}, TypeError, "dtype must be a float dtype, got str 'text'"),
    ]:
        with pytest.raises(error, match=words):
            bnnumba.normalize(x, f, f, **options)
    memory = np.zeros(24, np.float32)
    with pytest.raises(ValueError, match="out must share no memory with x"):
        bnnumba.normalize(memory.view(np.uint8)[:12].reshape(4, 3), f, f, out=memory[:12].reshape(4, 3))
    for train in (bnnumba.batch_norm, bnnumba.BatchNormalization()):
        with pytest.raises(TypeError, match=r"got uint8: integers train only as floats: x.astype\(np.float32\)"):
            train(x)


MEMORY = """
import resource, numpy as np, bnnumba
x = np.ones((2000, 50, 1000), np.uint8)
x[::2] = 3
y = np.empty(x.shape, np.float32)
y[...] = 0
bnnumba.moments(x[:9], 1), bnnumba.normalize(x[:9], np.ones(50), np.ones(50), feature_axis=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = bnnumba.moments(x, 1)
bnnumba.normalize(x, *found[:2], feature_axis=1, out=y)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / x.nbytes)
"""


def test_no_copy_is_made():
    assert float(run_python("-c", MEMORY)) < 0.5
