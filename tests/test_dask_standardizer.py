"""bnnumba.dask.Standardizer: what scikit-learn's StandardScaler makes of the data in memory, lazily."""

import numpy as np
import pytest

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")
preprocessing = pytest.importorskip("sklearn.preprocessing")

import dask  # noqa: E402  # behind what may be missing
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402

from bnnumba.dask import Standardizer  # noqa: E402
from tests.tools.problems import same_bits  # noqa: E402
from tests.tools.subprocesses import error_without  # noqa: E402

NAMES = list("abcdef")


def table(dtype=np.float64, seed=0):
    """With gaps, and a column of equal values."""
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 3, (400, 6)).astype(dtype)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 2] = 7
    return x


def as_array(x):
    return da.from_array(x, (70, 4))


def as_frame(x):
    return dd.from_pandas(pd.DataFrame(x, columns=NAMES[: x.shape[1]]), npartitions=4)


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("given", [as_array, as_frame])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_mean", [False, True])
@pytest.mark.parametrize("with_std", [False, True])
def test_beside_standard_scaler(given, weighted, with_mean, with_std):
    x, weights = table(), np.random.default_rng(1).random(400) if weighted else None
    theirs = preprocessing.StandardScaler(with_mean=with_mean, with_std=with_std).fit(x, sample_weight=weights)
    if weighted:
        weights = da.from_array(weights, 70) if given is as_array else dd.from_pandas(pd.Series(weights), npartitions=4)
    standardizer = Standardizer(with_mean=with_mean, with_std=with_std).fit(given(x), sample_weight=weights)
    for name in ("mean_", "var_", "scale_"):
        one, other = getattr(standardizer, name), getattr(theirs, name)
        if one is not None:
            assert type(one) is np.ndarray
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-30)
    y = standardizer.transform(given(x))
    back = standardizer.inverse_transform(y)
    assert type(y) is type(back) is type(given(x))
    np.testing.assert_allclose(np.asarray(y.compute()), theirs.transform(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.asarray(back.compute()), x, rtol=1e-12)


def test_a_table_keeps_its_names_and_index():
    x = table(np.float32)
    standardizer = Standardizer().fit(as_frame(x))
    y = standardizer.transform(as_frame(x)).compute()
    assert list(standardizer.feature_names_in_) == list(y.columns) == NAMES
    assert list(y.index) == list(range(400))
    assert set(y.dtypes) == {np.dtype(np.float32)}
    assert not hasattr(standardizer.fit(as_array(x)), "feature_names_in_")


def test_parts_and_the_whole():
    x, parts = table(), Standardizer()
    for part in np.split(x, 4):
        parts.partial_fit(as_array(part))
    whole = Standardizer().fit(as_array(x))
    assert same_bits(parts.mean_, whole.mean_)
    assert same_bits(parts.var_, whole.var_)
    np.testing.assert_array_equal(parts.n_samples_seen_, (~np.isnan(x)).sum(0))


def test_images_of_integers():
    x = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3)).astype(np.uint8)
    array = da.from_array(x, (7, 4, 4, 3))
    y = Standardizer().fit(array).transform(array)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.compute().mean((0, 1, 2)), 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["bool", "boolean", "Int64", "Float32", "int64[pyarrow]"])
def test_columns_of_several_kinds(kind):
    other = pd.Series([1, 0, 1, 1]).astype(kind)
    frame = pd.DataFrame({"a": [1.0, 2, 3, 5], "b": other, "c": pd.array([1, None, 3, 4], "Int64")})
    table = dd.from_pandas(frame, npartitions=2)
    y = Standardizer().fit(table).transform(table).compute()
    expected = preprocessing.StandardScaler().fit_transform(frame.astype(float))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-15)


def test_names_of_results_and_what_weights_count():
    x, weights = table(), da.ones(400, dtype=bool, chunks=70)
    assert list(Standardizer().fit(as_frame(x)).get_feature_names_out()) == NAMES
    np.testing.assert_array_equal(
        Standardizer().fit(as_array(x), sample_weight=weights).n_samples_seen_,
        Standardizer().fit(as_array(x)).n_samples_seen_,
    )
    rows = Standardizer(with_mean=False, with_std=False).fit(as_array(np.ones((9, 2))), sample_weight=np.full(9, 0.5))
    assert rows.n_samples_seen_ == 9


def test_as_an_estimator():
    standardizer = clone(Standardizer(0, with_std=False))
    assert standardizer.get_params() == {"feature_axis": 0, "copy": True, "with_mean": True, "with_std": False}
    x = as_array(table())
    assert same_bits(Standardizer().fit_transform(x).compute(), Standardizer().fit(x).transform(x).compute())


def test_bad_input():
    x = table()
    fitted = Standardizer().fit(as_frame(x))
    for error, words, call in (
        (NotFittedError, "not fitted yet", lambda: Standardizer().transform(as_array(x))),
        (TypeError, "array must be a dask array, got ndarray", lambda: Standardizer().fit(x)),
        (ValueError, r"X has features of shape \(4,\), but .* \(6,\)", lambda: fitted.transform(da.ones((3, 4)))),
        (ValueError, "X must have the columns that were seen", lambda: fitted.transform(as_frame(x)[NAMES[::-1]])),
        (ValueError, "X must have the columns that were seen", lambda: fitted.partial_fit(as_frame(x)[["a"]])),
        (ValueError, "sample_weight must broadcast", lambda: fitted.fit(as_array(x), sample_weight=np.ones(3))),
        (ValueError, r"shape \(n_samples,\), got \(\)", lambda: fitted.fit(as_array(x), sample_weight=2.0)),
        (ValueError, "give chunks as array has them", lambda: fitted.fit(as_frame(x), sample_weight=np.ones(400))),
    ):
        with pytest.raises(error, match=words):
            call()
    words = dd.from_pandas(pd.DataFrame({"a": ["x", "y"]}), npartitions=1)
    with pytest.raises(TypeError, match=r"X must have columns of numbers, got .* in \['a'\]"):
        Standardizer().fit(words)
    assert list(fitted.feature_names_in_) == NAMES


def test_without_scikit_learn_it_is_named():
    assert "pip install 'bnnumba[sklearn]'" in error_without("sklearn", "bnnumba.dask.standardizer")
