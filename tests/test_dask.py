"""bnnumba.dask: what the functions give of the array in memory, by any scheduler, whatever becomes of a worker."""

import os
import pickle
import signal
import weakref

import ml_dtypes
import numpy as np
import pytest

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

from dask.callbacks import Callback  # noqa: E402

import bnnumba  # noqa: E402  # behind what may be missing
import bnnumba.dask as bd  # noqa: E402
from tests.tools import bounds, oracle  # noqa: E402
from tests.tools.problems import FLOATS, LAYOUTS, problem, same_bits  # noqa: E402
from tests.tools.subprocesses import error_without, run_python  # noqa: E402

SHAPES = [((60, 7), -1), ((60, 7), 0), ((8, 9, 5, 4), 1), ((8, 9, 5, 4), (-1, 1)), ((6, 5, 4), ()), ((5, 4), (0, 1))]
DTYPES = [*FLOATS, np.float16, ml_dtypes.bfloat16]

shapes_and_axes = pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)


@pytest.fixture(autouse=True)
def in_this_thread():
    """Where a test says nothing else."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two processes with a thread each."""
    workers = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    where = {"dashboard_address": ":0", "local_directory": tmp_path_factory.mktemp("workers")}
    settings = {"distributed.scheduler.no-workers-timeout": "5 minutes"}
    with dask.config.set(settings), distributed.LocalCluster(**workers, **where) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, timeout=120) as client, dask.config.set(scheduler=None):
        client.wait_for_workers(2, timeout=120)
        yield client


def random_chunks(shape, seed):
    """Some of them empty."""
    rng = np.random.default_rng(seed)
    cuts = [np.sort(rng.integers(0, size + 1, rng.integers(0, 5))) for size in shape]
    return tuple(tuple(map(int, np.diff([0, *cut, size]))) for cut, size in zip(cuts, shape, strict=True))


def chunked(x, seed=0):
    return da.from_array(x, random_chunks(x.shape, seed))


def same_moments(one, other):
    """Those that no float64 shows, too."""
    pairs = zip(np.concatenate(one.spread), np.concatenate(other.spread), strict=True)
    return one.count == other.count and all(same_bits(a, b) for a, b in pairs)


# ---- moments


@every_dtype
@shapes_and_axes
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments(shape, axis, offset, dtype):
    offset = min(offset, 10.0) if np.dtype(dtype).itemsize == 2 else offset
    x = problem(shape, axis, dtype, offset).x
    exact, wide = oracle.batch_norm(x, None, None, axis), np.float32 if x.itemsize == 2 else dtype
    for seed in range(5):
        found = bd.moments(chunked(x, seed), axis)
        bounds.check_moments(wide, found, exact)
        assert (found.count, type(found.count)) == (oracle.count(shape, axis), int)
        assert all(type(each) is np.ndarray and each.dtype == np.float64 for each in found[:2])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_great_many_chunks(rows, dtype):
    """Merged with float64's digits alone, the variance would be off by far more than its bound."""
    x = problem((600 * rows, 2), dtype=dtype, offset=1e8 if dtype == np.float64 else 1e6).x
    bounds.check_moments(dtype, bd.moments(da.from_array(x, (rows, 1))), oracle.batch_norm(x))


@pytest.mark.parametrize("axis", [1, (1, 2), ()])
def test_sizes_that_are_unknown(axis):
    x = problem((50, 4, 3), axis, offset=5.0).x
    some = chunked(x)
    some = some[some[:, 0, 0] > 5]
    found = bd.moments(some, axis)
    kept = x[x[:, 0, 0] > 5]
    bounds.check_moments(np.float32, found, oracle.batch_norm(kept, None, None, axis))
    assert found.count == oracle.count(kept.shape, axis)


NOTHING = [((0, 3), -1), ((5, 0), -1), ((0, 0), 0), ((0, 4, 3), (0, 2)), ((0, 4), ())]


@pytest.mark.parametrize(("shape", "axis"), NOTHING, ids=str)
def test_arrays_of_nothing(shape, axis):
    x = np.empty(shape, np.float32)
    found, expected = bd.moments(da.from_array(x), axis), bnnumba.moments(x, axis)
    assert same_moments(found, expected)
    assert bd.normalize(da.from_array(x), *expected[:2], feature_axis=axis).compute().shape == shape


def test_nan_stays_in_its_feature():
    x = problem((40, 6), dtype=np.float64, offset=5.0).x
    clean = bd.moments(chunked(x))
    x[3, 1], x[33, 4] = np.nan, np.inf
    poisoned = bd.moments(chunked(x))
    others = [0, 2, 3, 5]
    for one, other in zip(poisoned[:2], clean[:2], strict=True):
        assert np.isnan(one[[1, 4]]).all()
        assert same_bits(one[others], other[others])


def test_the_digits_that_go_along_unseen_travel():
    found = bnnumba.moments(problem((70, 3), dtype=np.float64, offset=0.1).x)
    assert any(low.any() for _, low in found.spread)
    frames = distributed.protocol.serialize(found)
    for other in (pickle.loads(pickle.dumps(found)), distributed.protocol.deserialize(*frames)):
        assert same_moments(other, found)


def test_a_chunk_is_loaded_once_and_gone_before_the_next():
    """One task loads it and makes its moments: no other task ever has it, nor another worker."""
    alive, most, loaded, results = weakref.WeakSet(), [], [], []

    class Chunk(np.ndarray):
        """An array that a weak set takes."""

        __hash__ = object.__hash__

    def load(block_id):
        most.append(len(alive))
        loaded.append(block_id)
        x = np.full((10, 4), 3.0).view(Chunk)
        alive.add(x)
        return x

    x = da.map_blocks(load, chunks=((10,) * 12, (4,) * 2), meta=np.empty((0, 0)))
    with Callback(posttask=lambda key, result, *_: results.append(type(result))):
        assert bd.moments(x).count == 120
    assert set(results) == {bnnumba.Moments}
    assert len(set(loaded)) == len(loaded) == 24
    assert max(most) == 0


# ---- schedulers


ARRAYS = {
    "in order": lambda x: da.from_array(x, (900, 30)),
    "rechunked": lambda x: da.from_array(np.ascontiguousarray(x.T), (25, 900)).T.rechunk((277, 99)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_same_bits_by_every_scheduler(name, client):
    x = problem((5000, 100), dtype=np.float64, offset=0.1).x
    array = ARRAYS[name](x)
    with dask.config.set(scheduler="synchronous"):
        expected, y = bd.moments(array), bd.normalize(array, x[0], x[1] ** 2).compute()
    bounds.check_moments(np.float64, expected, oracle.batch_norm(x))
    assert same_bits(y, bnnumba.normalize(x, x[0], x[1] ** 2))
    for threads in (2, 5):
        with dask.config.set(scheduler="threads", num_workers=threads):
            assert same_moments(bd.moments(array), expected)
    before = client.cluster.scheduler.transition_counter
    assert same_moments(bd.moments(array), expected)
    assert client.cluster.scheduler.transition_counter > before
    assert same_moments(bd.moments(array.persist()), expected)
    assert same_bits(bd.normalize(array, x[0], x[1] ** 2).compute(), y)
    three = {"n_workers": 3, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**three) as other, distributed.Client(other, timeout=120):
        assert same_moments(bd.moments(array), expected)
        assert other.scheduler.transition_counter > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bits_of_chunks_in_any_memory_order(layout):
    """A chunk may come from another worker in another order: what lies in neither becomes C order on the way."""
    x = problem((5000, 100), dtype=np.float64, offset=0.1).x
    array = da.from_array(x, (900, 30))
    other = array.map_blocks(LAYOUTS[layout], meta=array._meta)
    assert same_moments(bd.moments(other), bd.moments(array))


def threads_were_started():
    """Whether threads were started in this process."""
    from bnnumba.kernels import workers  # noqa: PLC0415  # in the worker

    return workers.state[workers.COUNT // 8] != 0


def test_workers_compute_with_their_own_threads_alone(client):
    array = da.from_array(problem((40_000, 16)).x, (10_000, 16))
    bd.normalize(array, *bd.moments(array)[:2]).compute()
    assert client.run(threads_were_started) == dict.fromkeys(client.scheduler_info()["workers"], False)


@pytest.mark.parametrize("where", ["in another thread", "afterwards"])
def test_threads_are_left_to_all_others(where):
    code = f"""
where = {where!r}
import threading
import numpy as np
import bnnumba
from bnnumba import forms
from tests.test_dask import threads_were_started

x = np.ones((100_000, 4))
with forms.without_threads():
    with forms.without_threads():
        bnnumba.moments(x)
    bnnumba.moments(x)
    print(threads_were_started())
    if where == "in another thread":
        other = threading.Thread(target=bnnumba.moments, args=(x,))
        other.start()
        other.join(100)
if where == "afterwards":
    bnnumba.moments(x)
print(threads_were_started())
"""
    assert run_python("-c", code).split() == ["False", "True"]


def kill_once(x, marker):
    """Return x; kill the worker that first comes to the chunk that begins with 33."""
    if x[0, 0] == 33:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return x
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_worker_that_is_killed_costs_nothing(client, tmp_path):
    x = problem((20_000, 3), dtype=np.float64, offset=0.1).x
    x[33 * 400, 0] = 33
    array = da.from_array(x, (400, 3))
    with dask.config.set(scheduler="synchronous"):
        expected = bd.moments(array)
    workers = set(client.run(os.getpid).values())
    found = bd.moments(array.map_blocks(kill_once, tmp_path / "killed", meta=np.empty((0, 0))))
    assert (tmp_path / "killed").exists()
    client.wait_for_workers(2, timeout=120)
    assert set(client.run(os.getpid).values()) != workers
    assert same_moments(found, expected)


# ---- normalize


@every_dtype
@shapes_and_axes
def test_normalize(shape, axis, dtype):
    p, other = (problem(shape, axis, dtype, 3.0, seed=seed) for seed in (0, 1))
    mean, var = p.gamma, p.beta**2
    array, residual = chunked(p.x, 1), chunked(other.x, 2)
    for parameters in ((mean, var), (mean, var, other.gamma, other.beta), (mean, var, other.gamma.astype(dtype), None)):
        for options in ({}, {"epsilon": 0.5, "activation": "relu"}, {"residual": residual}):
            y = bd.normalize(array, *parameters, feature_axis=axis, **options)
            assert (y.shape, y.dtype, y.chunks) == (array.shape, array.dtype, array.chunks)
            assert (type(y._meta), y._meta.dtype, y._meta.ndim) == (np.ndarray, array.dtype, array.ndim)
            in_memory = {**options, "residual": other.x} if "residual" in options else options
            assert same_bits(y.compute(), bnnumba.normalize(p.x, *parameters, feature_axis=axis, **in_memory))


def test_normalize_by_lazy_statistics():
    x = problem((60, 7), offset=3.0).x
    array = chunked(x)
    y = bd.normalize(array, array.mean(axis=0), array.var(axis=0), da.ones(7, chunks=3))
    expected = array.mean(axis=0).compute(), array.var(axis=0).compute()
    assert same_bits(y.compute(), bnnumba.normalize(x, *expected))


def test_normalize_sizes_that_are_unknown():
    x = problem((50, 4), offset=5.0).x
    some, kept = chunked(x), x[x[:, 0] > 5]
    some = some[some[:, 0] > 5]
    y = bd.normalize(some, x[0], x[1], residual=(2 * some).rechunk({1: 3}))
    assert np.isnan(y.shape[0])
    assert same_bits(y.compute(), bnnumba.normalize(kept, x[0], x[1], residual=2 * kept))


def test_normalize_is_lazy():
    """It loads nothing, and has its parameters as they were."""
    x, loaded = problem((30, 4)).x, []

    def load(block):
        loaded.append(block.shape)
        return block

    mean, var = np.ones(4), np.ones(4)
    y = bd.normalize(da.from_array(x, (10, 4)).map_blocks(load, meta=x[:0]), mean, var)
    expected = bnnumba.normalize(x, mean, var)
    mean += 1
    var[...] = 9
    assert not loaded
    assert same_bits(y.compute(), expected)
    assert len(loaded) == 3


def test_another_byte_order_becomes_native():
    x = problem((30, 4), offset=2.0).x
    array = da.from_array(x.astype(">f4"), (7, 3))
    assert same_moments(bd.moments(array), bd.moments(da.from_array(x, (7, 3))))
    y = bd.normalize(array, x[0], x[1] ** 2, residual=da.from_array(x))
    assert y.dtype == np.float32
    assert same_bits(y.compute(), bnnumba.normalize(x, x[0], x[1] ** 2, residual=x))


# ---- what is refused

X = da.from_array(problem((6, 4)).x, (3, 2))
UNKNOWN = X[X[:, 0] > 0]
BAD_ARRAYS = [
    (np.ones((3, 2)), TypeError, r"array must be a dask array, got ndarray of shape \(3, 2\)"),
    ([[1.0]], TypeError, "array must be a dask array, got list"),
    (None, TypeError, "array must be a dask array, got NoneType None"),
    (X.astype(complex), TypeError, "each chunk of array must be float32, .* or integers, got complex128"),
    (X[0, 0], TypeError, "each chunk of array must have at least one axis, got a 0-d array"),
    (da.ma.masked_equal(X, 0), TypeError, "each chunk of array must be a NumPy array, got MaskedArray"),
]
BAD_AXES = [
    (X, 1.5, TypeError, "feature_axis must be an int or a tuple of ints, got float 1.5"),
    (X, (1, 1), ValueError, r"feature_axis must not repeat an axis, got \(1, 1\)"),
    (X, 2, np.exceptions.AxisError, "feature_axis 2 is out of bounds for an array with 2 axes"),
    (UNKNOWN, 0, ValueError, r"array must have known sizes along the feature axes .* got \(nan,\)"),
]


@pytest.mark.parametrize(("array", "axis", "error", "words"), [(row[0], -1, *row[1:]) for row in BAD_ARRAYS] + BAD_AXES)
def test_bad_arrays_and_axes(array, axis, error, words):
    for refusing in (lambda: bd.moments(array, axis), lambda: bd.normalize(array, None, None, feature_axis=axis)):
        with pytest.raises(error, match=words):
            refusing()


BAD_OPTIONS = [
    ("mean", None, TypeError, "mean must be a NumPy array, got NoneType None"),
    ("mean", np.ones(3), ValueError, r"mean must have shape \(4,\), got \(3,\)"),
    ("mean", da.ones(3), ValueError, r"mean must have shape \(4,\), got \(3,\)"),
    ("var", UNKNOWN[:, 0], ValueError, r"var must have shape \(4,\), got \(nan,\)"),
    ("var", np.ones(4, int), TypeError, "var must be an array of real floats, got int64"),
    ("gamma", da.ones(4, dtype=complex), TypeError, "gamma must be an array of real floats, got complex128"),
    ("beta", np.float64(1), ValueError, r"beta must have shape \(4,\), got \(\)"),
    ("epsilon", -1, ValueError, "epsilon must be >= 0, got -1"),
    ("activation", "gelu", ValueError, "activation must be None, .*, got str 'gelu'"),
    ("residual", np.ones((6, 4), np.float32), TypeError, "residual must be a dask array, got ndarray"),
    ("residual", X[:5], ValueError, r"residual must have the shape of array, \(6, 4\), got \(5, 4\)"),
    ("residual", UNKNOWN, ValueError, r"residual must have the shape of array, \(6, 4\), got \(nan, 4\)"),
    ("residual", X.astype(np.float64), TypeError, "residual must have the dtype of array, float32, got float64"),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), BAD_OPTIONS)
def test_bad_options(name, value, error, words):
    with pytest.raises(error, match=words):
        bd.normalize(X, **{"mean": np.ones(4), "var": np.ones(4), name: value})


def test_residuals_of_other_chunks_where_sizes_are_unknown():
    other = X.rechunk((2, 2))
    with pytest.raises(ValueError, match="the chunks of array where sizes are unknown, 2 along axis 0, got 3"):
        bd.normalize(UNKNOWN, np.ones(4), np.ones(4), residual=other[other[:, 0] > 0])


def test_integers_are_read_as_they_are():
    x = np.random.default_rng(0).integers(0, 255, (40, 6)).astype(np.uint8)
    array = da.from_array(x, (7, 4))
    found = bd.moments(array)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-15)
    np.testing.assert_allclose(found.var, x.var(0), rtol=1e-6)
    y = bd.normalize(array, *found[:2])
    assert y.dtype == np.float32
    assert same_bits(y.compute(), bnnumba.normalize(x, *found[:2]))


def test_missing_values():
    x = np.random.default_rng(0).normal(size=(40, 6))
    x[x < -0.5] = np.nan
    found = bd.moments(da.from_array(x, (7, 4)), nan_policy="omit")
    alone = bnnumba.moments(x, nan_policy="omit")
    np.testing.assert_array_equal(found.count, alone.count)
    np.testing.assert_allclose(found.var, alone.var, rtol=1e-14)
    with pytest.raises(ValueError, match="nan_policy must be one of"):
        bd.moments(da.from_array(x, (7, 4)), nan_policy="drop")
    with pytest.raises(ValueError, match="x must have no NaN"):
        bd.moments(da.from_array(x, (7, 4)), nan_policy="raise")


WEIGHTS = [(40, 1, 1), (6, 1), (5,), (1, 6, 5), (40, 6, 5)]


@pytest.mark.parametrize("axis", [1, -1, (0, 1), (0, 1, 2), ()], ids=str)
@pytest.mark.parametrize("sizes", [None, *WEIGHTS], ids=str)
@pytest.mark.parametrize("nan_policy", ["propagate", "omit"])
@pytest.mark.parametrize("name", ["mask", "sample_weight"])
def test_masks_and_weights(axis, sizes, nan_policy, name):
    x = problem((40, 6, 5), 1, np.float64, 5.0).x
    x[3, 2, 1] = np.nan
    rng, array = np.random.default_rng(0), da.from_array(x, ((7, 0, 33), (1, 5), (3, 2)))
    weights = None if sizes is None else rng.random(sizes) if name == "sample_weight" else rng.random(sizes) < 0.7
    expected = bnnumba.moments(x, axis, nan_policy=nan_policy, **{name: weights})
    for given in (weights, None if weights is None else chunked(weights)):
        options = {"nan_policy": nan_policy, name: given}
        found, lazy = bd.moments(array, axis, **options), bd.moments(array, axis, **options, compute=False)
        for one, other, late in zip(expected, found, dask.compute(lazy)[0], strict=True):
            assert np.shape(one) == np.shape(other) == np.shape(late)
            assert np.asarray(one).dtype == np.asarray(other).dtype == np.asarray(late).dtype
            np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-14)
            np.testing.assert_array_equal(late, other)


def test_weights_where_sizes_are_unknown():
    x, w = problem((50, 4), dtype=np.float64).x, np.random.default_rng(0).random(50)
    array, weights, chosen = da.from_array(x, (9, 3)), da.from_array(w, 9), x[:, 0] > 0
    some, theirs = array[da.from_array(chosen, 9)], weights[da.from_array(chosen, 9)]
    found = bd.moments(some, sample_weight=theirs[:, None])
    np.testing.assert_allclose(found.var, bnnumba.moments(x[chosen], sample_weight=w[chosen, None]).var, rtol=1e-13)
    assert same_bits(bd.moments(some, mask=np.ones((1, 4), bool)).mean, bd.moments(some).mean)
    words = (
        r"sample_weight must broadcast to array's shape \(nan, 4\), got \(50, 1\): where sizes are unknown, give chunks"
    )
    with pytest.raises(ValueError, match=words):
        bd.moments(some, sample_weight=w[:, None])
    with pytest.raises(ValueError, match="the chunks of array where sizes are unknown, 6 along axis 0, got 5"):
        bd.moments(some, sample_weight=weights.rechunk(11)[da.from_array(chosen, 11)][:, None])
    first = da.from_array(np.arange(50) % 9 == 0, 9)  # one row of each chunk, which would count for all of the chunk
    with pytest.raises(
        ValueError, match=r"a chunk of sample_weight must have the sizes of array's, \(\d,\), got \(1,\)"
    ):
        bd.moments(some, sample_weight=weights[first][:, None])


BAD_WEIGHTS = [
    ({"mask": np.ones((6, 3), bool)}, ValueError, r"mask must broadcast to array's shape \(6, 4\), got \(6, 3\)"),
    ({"mask": np.ones((1, 6, 4), bool)}, ValueError, r"mask must broadcast to array's shape \(6, 4\), got \(1, 6, 4\)"),
    ({"mask": np.ones((6, 1))}, TypeError, "mask must be an array of bool, got float64"),
    ({"sample_weight": [1.0]}, TypeError, "sample_weight must be a NumPy array, got list"),
    ({"sample_weight": da.ones((6, 1), dtype=bool)}, TypeError, "got bool: give it as mask"),
    ({"sample_weight": -np.ones((6, 1))}, ValueError, "sample_weight must be finite and >= 0 everywhere"),
    ({"mask": np.ones((6, 1), bool), "sample_weight": np.ones((6, 1))}, ValueError, "mask must be None where"),
    ({"compute": 0}, TypeError, "compute must be True or False, got int 0"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD_WEIGHTS)
def test_bad_options_of_moments(options, error, words):
    with pytest.raises(error, match=words):
        bd.moments(X, **options)


OTHERS = [(np.ones((4, 3)), "use bnnumba itself, or bnnumba.sklearn"), ([1.0], "got list"), (object(), "got object <")]


@pytest.mark.parametrize(("given", "words"), OTHERS)
def test_what_is_no_dask_array(given, words):
    with pytest.raises(TypeError, match=f"array must be a dask array, .*{words}"):
        bd.moments(given)


def test_tasks_are_few():
    """For each chunk, one makes it and one makes its moments, if they are not one; a sixteenth merges these."""
    source = da.ones((4000, 10), chunks=(1, 10)).astype(np.float32)
    (mean,) = dask.optimize(bd.moments(source, compute=False).mean)
    assert len(dict(mean.__dask_graph__())) < 2.1 * 4000


def test_what_a_chunk_turns_out_not_to_be():
    array = X.map_blocks(lambda x: x.astype(complex), meta=np.empty((0, 0), np.float32))
    with pytest.raises(TypeError, match=r"x must be float32, float64, .* got complex128"):
        bd.moments(array)
    array = X.map_blocks(lambda x: np.ma.masked_equal(x, 0), meta=np.empty((0, 0), np.float32))
    with pytest.raises(TypeError, match="x must be a NumPy array, got MaskedArray"):
        bd.moments(array)


def test_without_dask_the_extra_is_named():
    assert "pip install 'bnnumba[dask]'" in error_without("dask", "bnnumba.dask")
