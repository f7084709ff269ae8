"""xarray's labelled arrays: beside xarray's own mean and std, in NumPy's memory and in Dask's."""

import numpy as np
import pytest

xarray = pytest.importorskip("xarray")

import bnnumba.xarray as bx  # noqa: E402  # behind what may be missing
from tests.tools.subprocesses import error_without, run_python  # noqa: E402

DIMS = ["time", ["lat", "lon"], ("time", "lon"), None]


def cube(dtype=np.float64, gaps=True, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(280, 5, (40, 6, 7)).astype(dtype)
    if gaps and values.dtype.kind == "f":
        values[rng.random(values.shape) < 0.2] = np.nan
        values[:, 2, 3] = np.nan
    coords = {
        "time": np.arange("2000-01-01", "2000-02-10", dtype="M8[D]"),
        "lat": np.linspace(-60, 60, 6),
        "lon": np.arange(7.0),
        "height": 2.0,
        "zone": ("lat", list("abcdef")),
    }
    return xarray.DataArray(values, coords, ("time", "lat", "lon"), "t2m", {"units": "K"})


@pytest.mark.parametrize("dim", DIMS, ids=str)
@pytest.mark.parametrize("skipna", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32])
@pytest.mark.parametrize("chunks", [None, {"time": 9, "lat": 4}])
def test_beside_xarray(dim, skipna, dtype, chunks):
    plain = cube(dtype)
    wide = plain.astype(np.float64)
    given = plain if chunks is None else plain.chunk(chunks)
    mean, var, count = bx.moments(given, dim, skipna=skipna)
    xarray.testing.assert_allclose(mean, wide.mean(dim, skipna=skipna, keep_attrs=True), rtol=1e-12)
    xarray.testing.assert_allclose(var, wide.var(dim, skipna=skipna, keep_attrs=True), rtol=1e-6)
    assert mean.dtype == var.dtype == np.float64
    if skipna:
        np.testing.assert_array_equal(count, wide.count(dim))
    assert (mean.name, mean.attrs) == ("t2m", {"units": "K"})
    assert set(mean.coords) == set(wide.mean(dim).coords)

    y = bx.standardize(given, dim, skipna=skipna)
    expected = (wide - wide.mean(dim, skipna=skipna)) / wide.std(dim, skipna=skipna)
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-4)
    assert (y.name, y.attrs, y.dims, set(y.coords)) == ("t2m", {"units": "K"}, plain.dims, set(plain.coords))
    assert (y.chunks is None) == (chunks is None)
    assert y.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float32 if dtype == np.uint8 else np.float64)


@pytest.mark.parametrize("chunks", [None, {"time": 9, "lat": 4}])
def test_weights(chunks):
    x = cube()
    weights = np.cos(np.deg2rad(x.lat))
    given = x if chunks is None else x.chunk(chunks)
    for each in (weights, weights.chunk({"lat": 2})):
        mean, var, count = bx.moments(given, ["lat", "lon"], weights=each)
        theirs = x.weighted(weights)
        xarray.testing.assert_allclose(mean, theirs.mean(["lat", "lon"], keep_attrs=True), rtol=1e-12)
        xarray.testing.assert_allclose(var, theirs.var(["lat", "lon"], keep_attrs=True), rtol=1e-10)
        np.testing.assert_allclose(count, theirs.sum_of_weights(["lat", "lon"]))
        y = bx.standardize(given, ["lat", "lon"], weights=each)
        xarray.testing.assert_allclose(y, (x - mean) / np.sqrt(var), rtol=1e-10)


def test_dataset():
    x = cube()
    other = x.isel(lon=0, drop=True).rename("other")
    given = xarray.Dataset({"a": x, "b": other, "c": x.lat * 2, "d": ("time", ["x"] * 40)}, attrs={"source": "here"})
    mean, _, count = bx.moments(given, ["time", "lon"])
    assert set(mean.data_vars) == set(count.data_vars) == {"a", "b"}
    assert mean.attrs == {"source": "here"}
    xarray.testing.assert_allclose(mean.a, x.mean(["time", "lon"], keep_attrs=True))
    xarray.testing.assert_allclose(mean.b, other.mean("time", keep_attrs=True))
    y = bx.standardize(given, "time")
    assert list(y.data_vars) == list(given.data_vars)
    xarray.testing.assert_identical(y.c, given.c)
    xarray.testing.assert_allclose(y.a, bx.standardize(x, "time"))


def test_a_climate_of_months_with_gaps():
    x = cube(np.float32)
    anomalies = x.groupby("time.month").map(bx.standardize, dim="time")
    for month in (1, 2):
        one = anomalies.sel(time=anomalies.time.dt.month == month)
        there = one.count("time") > 1
        np.testing.assert_allclose(one.mean("time").where(there, 0), 0, atol=1e-5)
        np.testing.assert_allclose(one.std("time").where(there, 1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(anomalies), np.isnan(x))


def test_a_large_offset_costs_no_digits():
    rng = np.random.default_rng(1)
    x = xarray.DataArray((1e6 + rng.normal(size=(2000, 3))).astype(np.float32), dims=("time", "cell"))
    y, wide = bx.standardize(x, "time"), x.astype(np.float64)
    np.testing.assert_allclose(y, (wide - wide.mean("time")) / wide.std("time"), rtol=0, atol=2e-6)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e11])
def test_the_unit_of_weights_does_not_matter(unit):
    """Nor the number of values: cells' areas in square metres, or five million values."""
    rng = np.random.default_rng(0)
    x = xarray.DataArray(rng.normal(280, 15, 4000), dims="x")
    weights = xarray.DataArray(np.full(4000, unit), dims="x")
    assert abs(bx.standardize(x, "x", weights=weights).std() - 1) < 1e-9
    equal = xarray.DataArray(280 * (1 + 2.0**-52 * rng.integers(-1, 2, 4000)), dims="x")
    assert abs(bx.standardize(equal, "x", weights=weights)).max() < 1e-12
    many = xarray.DataArray(1e9 + 0.5 * rng.normal(size=5_000_000), dims="x")
    assert abs(bx.standardize(many, "x").std() - 1) < 1e-3


def test_no_encoding_of_a_file_is_kept():
    x = cube()
    x.encoding = {"dtype": "int16", "scale_factor": 0.001}
    assert bx.standardize(x, "time").encoding == {}
    assert bx.standardize(x.to_dataset(), "time").t2m.encoding == {}
    assert x.encoding["dtype"] == "int16"


def test_constant_and_missing_cells():
    x = xarray.DataArray(np.array([[0.1, np.nan, 1.0], [0.1, np.nan, np.nan], [0.1, np.nan, 3.0]]), dims=("t", "c"))
    y = bx.standardize(x, "t")
    np.testing.assert_array_equal(y, [[0, np.nan, -1], [0, np.nan, np.nan], [0, np.nan, 1]])
    mean, var, count = bx.moments(x, "t")
    np.testing.assert_array_equal(count, [3, 0, 2])
    np.testing.assert_array_equal(mean, [0.1, np.nan, 2])
    np.testing.assert_array_equal(var, [0, np.nan, 1])


REFUSED = [
    (np.ones((2, 3)), "time", {}, TypeError, "obj must be a DataArray or a Dataset, got ndarray"),
    (cube(), "depth", {}, ValueError, r"dim must name dimensions of obj, \('time', 'lat', 'lon'\), got 'depth'"),
    (cube(), [], {}, ValueError, "dim must name dimensions of obj"),
    (cube().to_dataset(), "depth", {}, ValueError, "dim must name dimensions of obj"),
    (cube().astype(str), "time", {}, TypeError, "obj must be of floats, bool or integers, got <U"),
    (cube(), "time", {"skipna": 1}, TypeError, "skipna must be True or False, got int 1"),
    (cube(), "time", {"weights": np.ones(40)}, TypeError, "weights must be a DataArray, got ndarray"),
    (cube(), "time", {"weights": xarray.DataArray([1.0], dims="x")}, ValueError, "dimensions of the variable 't2m', "),
    (cube(), "time", {"weights": -cube().lon}, ValueError, "sample_weight must be finite and >= 0"),
    (cube(), "time", {"weights": cube().lat[1:]}, ValueError, "lat"),
]


@pytest.mark.parametrize(("obj", "dim", "options", "error", "words"), REFUSED)
def test_bad_input(obj, dim, options, error, words):
    for call in (bx.moments, bx.standardize):
        with pytest.raises(error, match=words):
            call(obj, dim, **options)


PEAK = """
import resource, sys
import numpy as np, xarray, bnnumba.xarray as bx
x = xarray.DataArray(np.random.default_rng(0).normal(size=(400, 200, 300)).astype(np.float32), dims=("t", "y", "x"))
small = x[:9, :9, :9]
ways = {"ours": lambda x: bx.standardize(x, "t"), "theirs": lambda x: (x - x.mean("t")) / x.std("t")}
way = ways[sys.argv[1]]
way(small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y = way(x)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - y.nbytes)
"""


def test_memory():
    """Beside its result, less than a third of what xarray's own expression takes."""
    assert float(run_python("-c", PEAK, "ours")) < float(run_python("-c", PEAK, "theirs")) / 3


def test_without_xarray_the_extra_is_named():
    assert "pip install 'bnnumba[xarray]'" in error_without("xarray", "bnnumba.xarray")
