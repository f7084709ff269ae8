"""The kernels on canonical arrays: both forms against the oracle, and all their bits against each other."""

import json

import numpy as np
import pytest

import bnnumba
from bnnumba.activations import NAMED
from bnnumba.kernels import serial, threaded
from tests.processes.kernel_results import EMPTY, EPSILON, SHAPES, digest, every_result, label
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, problem, same_bits
from tests.tools.subprocesses import run_python

DTYPES = pytest.mark.parametrize("dtype", FLOATS)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
MOST_THREADS = 4


def check_same(results, others):
    for name, result in results.items():
        assert same_bits(result, others[name]), name


def check_against_oracle(p, results):
    dtype = p.x.dtype
    exact = oracle.batch_norm(p.x, p.gamma, p.beta, 1, EPSILON)
    moments = bnnumba.Moments(results["mean"], results["var"], 0)
    bounds.check_moments(dtype, moments, exact)
    bounds.check_y(dtype, results["batch_norm"], exact)
    for frozen, kernel in ((False, "batch_norm_backward"), (True, "frozen_backward")):
        exact = oracle.backward(p.dy, p.x, *moments[:2], p.gamma, 1, EPSILON, frozen)
        gradients = bnnumba.Gradients(results[kernel], results["dgamma"], results["dbeta"])
        bounds.check_gradients(dtype, gradients, exact, frozen)


def check_consistency(results):
    """Kernels of several steps give the bits of the steps."""
    for one, other in (
        ("mean", "batch_norm mean"), ("var", "batch_norm var"), ("normalize", "batch_norm"),
        ("dgamma", "batch_norm_backward dgamma"), ("dbeta", "batch_norm_backward dbeta"),
        ("dgamma", "frozen_backward dgamma"), ("dbeta", "frozen_backward dbeta"),
        ("input_gradient", "batch_norm_backward"), ("frozen_input_gradient", "frozen_backward"),
    ):  # fmt: skip
        assert same_bits(results[one], results[other]), (one, other)


def check_fused(p, results):
    """Kernels with a residual and ReLU give the bits of those without, and of NumPy's sum, maximum and choice."""
    with_residual = results["normalize"] - p.dy
    expected = {
        "relu": np.maximum(results["normalize"], 0), "add": with_residual, "add_relu": np.maximum(with_residual, 0)
    }  # fmt: skip
    for kind, y in expected.items():
        for kernel in (f"normalize_{kind}", f"batch_norm_{kind}"):
            np.testing.assert_array_equal(results[f"{kernel} y"], y)
        for name in ("mean", "var"):
            assert same_bits(results[f"batch_norm_{kind} {name}"], results[name])
    statistics = results["mean"], results["var"]
    for kind in ("relu", "add_relu"):
        dresidual = np.where(expected[kind] > 0, p.dy, 0).astype(p.x.dtype)
        for kernel in (f"{kind}_gradient_sums", f"{kind}_batch_norm_backward_into", f"{kind}_frozen_backward_into"):
            dx = np.empty_like(p.x)
            plain = serial.frozen_backward if "frozen" in kernel else serial.batch_norm_backward
            sums = plain(dresidual, p.x, *statistics, p.gamma, EPSILON, dx)
            known = {"dx": dx, "dgamma": sums[0], "dbeta": sums[1], "dresidual": dresidual}
            found = {name: results.get(f"{kernel} {name}") for name in known}
            assert (found["dx"] is None) == ("sums" in kernel)
            assert (found["dresidual"] is None) == (kind == "relu")
            for name, result in found.items():
                if result is not None:
                    np.testing.assert_array_equal(result, known[name], f"{kernel} {name}")


@pytest.mark.subset
@pytest.mark.parametrize("shape", [(70, 3, 1), (20, 70, 1), (3, 4, 150), *EMPTY], ids=str)
def test_serial_form_on_small_shapes(shape):
    p = problem(shape, 1, offset=100.0)
    results = every_result(serial, p)
    check_against_oracle(p, results)
    check_consistency(results)
    check_fused(p, results)


@DTYPES
@EVERY_SHAPE
def test_both_forms(shape, dtype):
    p = problem(shape, 1, dtype, offset=100.0)
    results = every_result(serial, p)
    check_against_oracle(p, results)
    check_consistency(results)
    check_fused(p, results)
    check_same(results, every_result(threaded, p))


@pytest.mark.parametrize("form", [serial, threaded], ids=["serial", "threaded"])
@pytest.mark.parametrize("feature", [3, 16, 57, 96, 512, 1024])
def test_a_row_has_the_bits_that_it_has_alone(feature, form):
    """Whether four rows are filled at once, or one."""
    rng = np.random.default_rng(0)
    statistics = [rng.uniform(0.5, 2, feature) for _ in range(4)]
    for rows in (3, 4, 9, 33, 2**13 // feature + 5, 2**18 // feature + 7):
        residual, x = (rng.standard_normal((rows, feature, 1), np.float32) for _ in range(2))
        y, alone = np.empty_like(x), np.empty_like(x[:1])
        form.normalize(x, *statistics, EPSILON, y, residual)
        for r in {0, rows - 1, *rng.integers(0, rows, 100).tolist()}:
            form.normalize(x[r : r + 1], *statistics, EPSILON, alone, residual[r : r + 1])
            assert same_bits(y[r : r + 1], alone)


@pytest.fixture(scope="module")
def digests():
    """Those that `tests.processes.kernel_results` prints."""
    return json.loads(run_python("-m", "tests.processes.kernel_results", NUMBA_NUM_THREADS=str(MOST_THREADS)))


@DTYPES
@pytest.mark.parametrize("shape", SHAPES + EMPTY, ids=str)
def test_bits_do_not_depend_on_threads_or_process(shape, dtype, digests):
    own = digest(every_result(serial, problem(shape, 1, dtype, offset=100.0)))
    assert digests[label(shape, dtype)] == [own] * (1 + MOST_THREADS)


@DTYPES
@EVERY_SHAPE
def test_functions_give_the_bits_of_the_kernels(shape, dtype):
    p = problem(shape, 1, dtype, offset=100.0)
    results = every_result(serial, p)
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, 1, epsilon=EPSILON)
    gradients = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], p.gamma, 1, epsilon=EPSILON)
    functions = {
        "batch_norm": y,
        "mean": moments.mean,
        "var": moments.var,
        "batch_norm_backward": gradients.dx,
        "dgamma": gradients.dgamma,
        "dbeta": gradients.dbeta,
    }
    check_same(functions, results)


@DTYPES
@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_empty_arrays(shape, dtype):
    p = problem(shape, 1, dtype)
    results = every_result(serial, p)
    check_same(results, every_result(threaded, p))
    assert not any(np.any(result) for name, result in results.items() if not name.endswith("count"))


@DTYPES
@pytest.mark.parametrize("form", [serial, threaded])
def test_results_may_take_the_place_of_the_data(form, dtype):
    for shape in ((300, 17, 1), (6, 5, 300)):
        p = problem(shape, 1, dtype)
        results = every_result(form, p)
        x = p.x.copy()
        form.batch_norm(x, p.gamma, p.beta, EPSILON, x)
        assert same_bits(x, results["batch_norm"])
        for kernel in ("batch_norm_backward", "frozen_backward"):
            for place in (0, 1):
                data = [p.dy.copy(), p.x.copy()]
                getattr(form, kernel)(*data, results["mean"], results["var"], p.gamma, EPSILON, data[place])
                assert same_bits(data[place], results[kernel])

        fused, act = (results["mean"], results["var"], p.gamma, EPSILON), NAMED["relu"]
        for place in (0, 1):
            data = [p.x.copy(), -p.dy]
            form.batch_norm(data[0], p.gamma, p.beta, EPSILON, data[place], data[1], act)
            assert same_bits(data[place], results["normalize_add_relu y"])
        for kind in ("relu", "add_relu"):
            y = results[f"normalize_{kind} y"]
            for kernel in ("batch_norm_backward_into", "frozen_backward_into"):
                for place in (0, 1):
                    data = [p.dy.copy(), p.x.copy()]
                    dresidual = np.empty_like(p.x) if kind == "add_relu" else None
                    sums = np.empty((2, shape[1]))
                    getattr(form, kernel)(*data, *fused, data[place], *sums, dresidual, act, y)
                    assert same_bits(data[place], results[f"{kind}_{kernel} dx"])


# ---- data that a guess at the mean is taken from, where the guess is bad

OUTLIERS = {
    "the first element": lambda n: [0],
    "the first 64": lambda n: np.arange(min(n, 64)),
    "the last 64": lambda n: np.arange(n)[-64:],
    "eight, evenly spread": lambda n: np.arange(8) * n // 8,
    "every 16th": lambda n: np.arange(0, n, 16),
    "one half": lambda n: np.arange(n // 2),
}


@DTYPES
@pytest.mark.parametrize("size", [1e3, 1e6, 1e10])
@pytest.mark.parametrize("outliers", OUTLIERS)
@pytest.mark.parametrize("shape", [(20_000, 3, 1), (3_000, 70, 1), (10, 3, 2_000)], ids=str)
def test_outliers_do_not_spoil_the_moments(shape, outliers, size, dtype):
    p = problem(shape, 1, dtype, offset=5.0)
    by_feature = np.moveaxis(p.x, 1, 0).reshape(shape[1], -1).copy()
    by_feature[1, OUTLIERS[outliers](by_feature.shape[1])] += dtype(size)  # the other features have none
    x = np.ascontiguousarray(np.moveaxis(by_feature.reshape(shape[1], shape[0], shape[2]), 0, 1))
    exact = oracle.batch_norm(x, p.gamma, p.beta, 1, EPSILON)
    y = np.empty_like(x)
    bounds.check_moments(dtype, bnnumba.Moments(*serial.batch_norm(x, p.gamma, p.beta, EPSILON, y), 0), exact)
    bounds.check_y(dtype, y, exact)


def test_a_steep_ramp():
    """Chunks whose means are far apart: merging them must not lose what each holds."""
    for dtype in FLOATS:
        x = np.linspace(-1e6, 1e6, 60_000).astype(dtype).reshape(20_000, 3, 1)
        exact = oracle.batch_norm(x, None, None, 1)
        bounds.check_moments(dtype, bnnumba.Moments(*threaded.moments(x), 0), exact)


# ---- values whose roundings add up, instead of cancelling each other


def _few_values(rng, n, f):
    return np.where(rng.random((n, f)) < 0.5, *rng.normal(size=(2, f)))


def _one_outweighs(rng, n, f):
    return rng.normal(size=(n, f)) * np.where(rng.random((n, f)) < 1 / n, 10.0 ** rng.uniform(0, 9, f), 1.0)


def _samples_far_from_the_mean(rng, n, f):
    x = rng.integers(-3, 4, (n, f)) / 3
    x[np.arange(16) * n // 16] = x.mean(axis=0) + x.std(axis=0)
    return x


VALUES = {
    "few values": _few_values,
    "one outweighs the others": _one_outweighs,
    "mixed magnitudes": lambda rng, n, f: rng.normal(size=(n, f)) * 10.0 ** rng.uniform(-6, 2, (n, f)),
    "samples far from the mean": _samples_far_from_the_mean,
}


@DTYPES
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("n", [2, 3, 17, 320])
def test_moments_of_any_values(n, values, dtype):
    x = VALUES[values](np.random.default_rng(n), n, 5000).astype(dtype).reshape(n, 5000, 1)
    exact = oracle.batch_norm(x, None, None, 1)
    bounds.check_moments(dtype, bnnumba.Moments(*serial.moments(x), 0), exact)
