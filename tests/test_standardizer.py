"""Standardizer: scikit-learn's own checks, beside StandardScaler, and what goes beyond it."""

import pickle
import re
import warnings
from fractions import Fraction

import numpy as np
import pandas
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bnnumba.sklearn import Standardizer
from tests.tools.subprocesses import error_without, run_python

STATISTICS = ("mean_", "var_", "scale_")


@parametrize_with_checks([Standardizer()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def with_missing(x, share=0.3, seed=1):
    return np.where(np.random.default_rng(seed).random(x.shape) < share, x.dtype.type(np.nan), x)


def nearly_constant(x):
    x = x.copy()
    x[:, 0] = 0.1
    x[:, 1] = 1e5 + 1e-11 * x[:, 1]  # apart by one rounding or two
    x[:, 2] = 0
    return x


def without_third(x):
    x = with_missing(x)
    x[:, 2] = np.nan
    return x


NORMAL = np.random.default_rng(0).normal(3, 2, (200, 5))
DATA = {
    "float64": NORMAL,
    "float32": NORMAL.astype(np.float32),
    "integers": np.random.default_rng(0).integers(-9, 9, (50, 3)),
    "one row": NORMAL[:1],
    "a list": NORMAL.tolist(),
    "columns in memory": np.asfortranarray(NORMAL),
    "nearly constant": nearly_constant(NORMAL),
    "missing values": with_missing(NORMAL),
    "missing values, float32": with_missing(NORMAL.astype(np.float32)),
    "one feature missing": without_third(NORMAL),
}


@pytest.mark.parametrize("name", DATA)
def test_beside_standard_scaler(name):
    x = DATA[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # StandardScaler's, of a feature without a value
        ours, theirs = Standardizer().fit(x), StandardScaler().fit(x)
    np.testing.assert_array_equal(ours.n_samples_seen_, theirs.n_samples_seen_)
    for statistic in STATISTICS:  # theirs are sums of float64 in a row
        np.testing.assert_allclose(getattr(ours, statistic), getattr(theirs, statistic), rtol=1e-12, atol=1e-22)
    eps = np.finfo(np.result_type(np.asarray(x), np.float32)).eps
    for method in ("transform", "inverse_transform"):
        result, other = getattr(ours, method)(x), getattr(theirs, method)(x)
        assert result.dtype == other.dtype
        size = np.fmax.reduce(np.abs(x), 0) * np.maximum(ours.scale_, 1 / ours.scale_) + np.abs(ours.mean_)
        allowed = np.where(np.isnan(size), 0, 8 * eps * size)
        np.testing.assert_array_less(np.nan_to_num(np.abs(result - other)) - allowed, 1e-300)
        np.testing.assert_array_equal(np.isnan(result), np.isnan(other))


def exact(values):
    """Mean and variance of the numbers that are there, rounded once."""
    numbers = [Fraction(float(value)) for value in values[~np.isnan(values)]]
    mean = sum(numbers) / len(numbers)
    return float(mean), float(sum((number - mean) ** 2 for number in numbers) / len(numbers))


SPLITS = {"one": [], "two": [77], "rows": range(1, 200), "uneven": [1, 2, 150, 199]}


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("offset", [0.0, 1e9, -1e15])
def test_batches_give_what_one_pass_gives(offset, missing, splits):
    x = with_missing(np.random.default_rng(2).normal(offset, 2, (200, 3)), missing)
    found = Standardizer()
    for part in np.split(x, list(SPLITS[splits])):
        found.partial_fit(part)
    check_exact(found, x)


def check_exact(found, x):
    """By the promise of accuracy for float64 data."""
    for f in range(x.shape[1]):
        mean, var = exact(x[:, f])
        assert abs(found.mean_[f] - mean) <= 8 * 2**-52 * (var**0.5 + abs(mean))
        assert abs(found.var_[f] - var) <= 2 * 2**-52 * var + (8 * 2**-52 * mean) ** 2


@pytest.mark.parametrize("outlier", [-1e9, 1e9])
def test_one_value_far_from_the_others_and_missing_ones(outlier):
    x = with_missing(np.random.default_rng(5).normal(0, 1, (5000, 2)), 0.5)
    x[17] = outlier
    check_exact(Standardizer().fit(x), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_values_have_variance_0_with_missing_ones_too(dtype):
    values = np.array([0.1, 6e4, -3e-7, 0, 1 / 3], dtype)
    x = with_missing(np.tile(values, (1000, 1)))
    found = Standardizer().fit(x)
    assert (found.mean_ == values).all()
    assert (found.var_ == 0).all()
    assert (found.scale_ == 1).all()
    assert (found.transform(values[np.newaxis]) == 0).all()


def test_a_feature_that_has_values_in_a_later_batch():
    x = NORMAL.copy()
    x[:100, 1] = np.nan
    found = Standardizer().partial_fit(x[:100])
    assert np.isnan([found.mean_[1], found.var_[1], found.scale_[1]]).all()
    assert np.isnan(found.transform(x[100:])[:, 1]).all()
    found.partial_fit(x[:50]).partial_fit(x[100:])
    np.testing.assert_allclose(found.mean_[1], x[100:, 1].mean(), rtol=1e-14)
    np.testing.assert_allclose(found.var_[1], x[100:, 1].var(), rtol=1e-14)
    assert found.n_samples_seen_.tolist() == [250, 100, 250, 250, 250]


def test_missing_values_change_no_other_feature():
    x = NORMAL.copy()
    x[5, 1] = np.nan
    ours, without = Standardizer().fit(x), Standardizer().fit(NORMAL)
    others = [0, 2, 3, 4]
    for statistic in STATISTICS:
        assert (getattr(ours, statistic)[others] == getattr(without, statistic)[others]).all()
    assert (ours.transform(x)[:, others] == without.transform(NORMAL)[:, others]).all()
    assert np.isnan(ours.transform(x)[:, 1]).sum() == 1


AXES = {(0,): 0, (1,): 1, (3,): -1, (1, 2): (2, 1), (0, 3): (0, -1), (0, 1, 2, 3): (0, 1, 2, 3), (): ()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kept", AXES)
def test_any_feature_axes(kept, missing, dtype):
    x = with_missing(np.random.default_rng(3).normal(3, 2, (6, 4, 5, 3)).astype(dtype), missing)
    reduced = tuple(axis for axis in range(4) if axis not in kept)
    wide = x.astype(np.float64)
    if len(kept) == 4:  # a value for each feature, or none
        mean, var, count = wide, wide - wide, ~np.isnan(wide)
    else:
        mean, var = np.nanmean(wide, reduced), np.nanvar(wide, reduced)
        count = (~np.isnan(wide)).sum(reduced)
    found = Standardizer(feature_axis=AXES[kept]).fit(x)
    np.testing.assert_allclose(found.mean_, mean, rtol=1e-13)
    np.testing.assert_allclose(found.var_, var, rtol=1e-12)
    assert (found.n_samples_seen_ == count).all()
    assert found.n_features_in_ == np.size(mean)
    scale = np.sqrt(np.where(var == 0, 1, var))
    y = (wide - np.expand_dims(mean, reduced)) / np.expand_dims(scale, reduced)
    result = found.transform(x)
    assert result.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(result, y, rtol=0, atol=3 * eps * 4)
    np.testing.assert_allclose(found.inverse_transform(result), x, rtol=0, atol=8 * eps * 12)


def test_out_of_core(tmp_path):
    path = tmp_path / "x.dat"
    x = np.random.default_rng(4).normal(1e4, 3, (10_000, 8)).astype(np.float32)
    x.tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=x.shape)
    found = Standardizer()
    for start in range(0, len(x), 999):
        found.partial_fit(mapped[start : start + 999])
    whole = Standardizer().fit(x)
    np.testing.assert_allclose(found.mean_, whole.mean_, rtol=1e-15)
    np.testing.assert_allclose(found.var_, whole.var_, rtol=1e-15)
    assert found.n_samples_seen_ == 10_000
    assert type(found.n_samples_seen_) is int
    assert np.abs(found.transform(mapped).mean(axis=0)).max() < 1e-5


def test_huge_and_tiny_values():
    for dtype, scale in ((np.float32, 1e37), (np.float32, 1e-37), (np.float64, 1e150)):
        x = (NORMAL * scale / 10).astype(dtype)
        y = Standardizer().fit_transform(x)
        np.testing.assert_allclose(y, StandardScaler().fit_transform(NORMAL), rtol=0, atol=1e-5)


def test_fit_forgets():
    twice = Standardizer().fit(NORMAL * 2 + 1).fit(NORMAL)
    assert (twice.mean_ == Standardizer().fit(NORMAL).mean_).all()
    assert Standardizer().fit(NORMAL).fit(NORMAL[:, :2]).mean_.shape == (2,)


def test_in_a_pipeline_cloned_and_pickled():
    y = NORMAL @ np.arange(5) + 1
    pipeline = make_pipeline(Standardizer(), Ridge(1e-9)).fit(NORMAL, y)
    np.testing.assert_allclose(pipeline.predict(NORMAL), y, rtol=1e-6)
    fitted = pipeline[0]
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.transform(NORMAL) == fitted.transform(NORMAL)).all()
    assert (again.partial_fit(NORMAL).mean_ == fitted.mean_).all()
    copy = clone(Standardizer(feature_axis=(1, 2)).fit(np.ones((2, 3, 4))))
    assert copy.feature_axis == (1, 2)
    assert not hasattr(copy, "mean_")


def test_frames_in_and_out():
    frame = pandas.DataFrame({"height": [1.0, 2.0, 3.0], "age": [10, 30, 20]}, index=["a", "b", "c"])
    found = Standardizer().set_output(transform="pandas")
    y = found.fit_transform(frame)
    assert list(y.columns) == list(found.feature_names_in_) == list(found.get_feature_names_out()) == ["height", "age"]
    assert list(y.index) == ["a", "b", "c"]
    np.testing.assert_allclose(y, StandardScaler().fit_transform(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an array has no names to compare
        np.testing.assert_allclose(found.inverse_transform(y.to_numpy()), frame)
    with pytest.raises(ValueError, match="feature names should match"):
        found.partial_fit(frame[["age", "height"]])
    assert not hasattr(found.fit(np.ones((2, 3, 4))), "feature_names_in_")
    assert Standardizer(feature_axis=0).fit(frame).partial_fit(frame[["age"]]).n_samples_seen_ == 3  # rows


def test_no_feature_at_all():
    found = Standardizer(feature_axis=2).fit(np.ones((2, 3, 0)))
    assert (found.mean_.shape, found.n_samples_seen_, found.n_features_in_) == ((0,), 0, 0)
    assert found.transform(np.ones((4, 5, 0))).shape == (4, 5, 0)


def test_a_bad_batch_changes_nothing():
    found = Standardizer().fit(NORMAL)
    before = pickle.dumps(found)
    for bad in ([[np.inf] * 5], NORMAL[:, :4], np.ma.masked_invalid(NORMAL)):
        with pytest.raises((TypeError, ValueError)):
            found.partial_fit(bad)
    assert pickle.dumps(found) == before


def test_x_is_left():
    x = with_missing(NORMAL)
    before = x.copy()
    y = Standardizer().fit_transform(x)
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)


def test_without_scikit_learn_the_extra_is_named():
    assert "pip install 'bnnumba[sklearn]'" in error_without("sklearn", "bnnumba.sklearn")


REFUSED = [
    (Standardizer(1.5), NORMAL, TypeError, "feature_axis must be an int or a tuple of ints, got float 1.5"),
    (Standardizer((1, 1)), NORMAL, ValueError, r"feature_axis must not repeat an axis, got \(1, 1\)"),
    (Standardizer((1, -1)), NORMAL, ValueError, r"feature_axis must not repeat an axis, got \(1, -1\) for an array"),
    (Standardizer(2), NORMAL, ValueError, "feature_axis 2 is out of bounds for an array with 2 axes"),
    (Standardizer(), [[np.inf, 1]], ValueError, "Input X contains infinity or a value too large"),
    (Standardizer(), csr_array(NORMAL), TypeError, "Sparse data was passed"),
    (Standardizer(), np.ma.masked_invalid(NORMAL), TypeError, r"X is a masked array.*give X.filled\(np.nan\)"),
    (Standardizer(), NORMAL[0], ValueError, "Expected 2D array, got 1D array instead"),
    (Standardizer(), NORMAL[:0], ValueError, "Found array with 0 sample"),
    (Standardizer(), [["a", "b"]], ValueError, "could not convert string to float"),
    (Standardizer(), NORMAL + 1j, ValueError, "Complex data not supported"),
]


@pytest.mark.parametrize(("estimator", "x", "error", "text"), REFUSED)
def test_bad_input(estimator, x, error, text):
    for method in (estimator.fit, estimator.partial_fit):
        with pytest.raises(error, match=text):
            method(x)
    assert not hasattr(estimator, "mean_")


@pytest.mark.parametrize("method", ["partial_fit", "transform", "inverse_transform"])
def test_other_features_than_those_seen(method):
    found = Standardizer().fit(NORMAL)
    with pytest.raises(ValueError, match=r"X has (4 features, but|features of shape \(4,\))"):
        getattr(found, method)(NORMAL[:, :4])
    images = Standardizer(feature_axis=(1, 2)).fit(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"shape \(4, 3\), but Standardizer has seen .* shape \(3, 4\)"):
        getattr(images, method)(np.ones((2, 4, 3)))
    assert images.n_samples_seen_ == 2


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(Standardizer(), method)(NORMAL)


SUITE = """
import sys
import pytest
import sklearn.preprocessing.tests.test_data as suite
from bnnumba.sklearn import Standardizer

suite.StandardScaler = Standardizer
dense = "scaler and not minmax and not maxabs and not robust and not csc and not csr and not sparse"
chosen = dense + " and not callback"  # of progress bars, which scikit-learn has for some of its own estimators
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", chosen, "--pyargs", suite.__name__]))
"""


def test_scikit_learns_own_tests_of_standard_scaler():
    """With Standardizer in its place; of sparse data, which is refused, none."""
    said = run_python("-c", SUITE)
    assert re.search(r"\b[5-9]\d passed", said), said


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{"with_mean": False}, {"with_std": False}, {"with_mean": False, "with_std": False}]
)
def test_parts_of_it(options, dtype):
    x = with_missing(NORMAL).astype(dtype)
    ours, theirs = Standardizer(**options).fit(x), StandardScaler(**options).fit(x)
    for name in STATISTICS:
        one, other = getattr(ours, name), getattr(theirs, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-6)
    y = ours.transform(x)
    np.testing.assert_allclose(y, theirs.transform(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.inverse_transform(y), x, rtol=1e-5, atol=1e-6)


def test_weights_as_in_standard_scaler():
    x, w = with_missing(NORMAL), np.random.default_rng(1).integers(0, 4, len(NORMAL))
    parts = [(x[:90], w[:90]), (x[90:], w[90:])]
    ours, theirs, at_once = Standardizer(), StandardScaler(), Standardizer().fit(x, sample_weight=w)
    for part, weights in parts:
        ours.partial_fit(part, sample_weight=weights)
        theirs.partial_fit(part, sample_weight=weights)
    for name in (*STATISTICS, "n_samples_seen_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12)
        np.testing.assert_allclose(getattr(ours, name), getattr(at_once, name), rtol=1e-14)
    images = np.random.default_rng(0).normal(size=(5, 3, 4, 4))
    weighted = Standardizer(feature_axis=1).fit(images, sample_weight=[1, 0, 2, 0, 1])
    repeated = Standardizer(feature_axis=1).fit(images[[0, 2, 2, 4]])
    np.testing.assert_allclose(weighted.var_, repeated.var_, rtol=1e-13)


def test_without_a_copy():
    x = NORMAL.copy()
    scaler = Standardizer(copy=False).fit(x)
    assert scaler.transform(x) is x
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-14)
    assert scaler.inverse_transform(x) is x
    np.testing.assert_allclose(x, NORMAL)
    assert scaler.transform(x, copy=True) is not x


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_an_array_of_integers_is_read_as_it_is(dtype):
    x = np.random.default_rng(0).integers(0, 100, (80, 3)).astype(dtype)
    ours, theirs = Standardizer().fit(x), StandardScaler().fit(x)
    y = ours.transform(x)
    assert y.dtype == (np.float64 if dtype == np.int64 else np.float32)
    np.testing.assert_allclose(y, theirs.transform(x), rtol=1e-5, atol=1e-6)
