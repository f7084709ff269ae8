"""Calls that go straight to their kernels: as the long way, and only where all is of the common kind."""

import sys

import numpy as np
import pytest

import bnnumba
from bnnumba import _objects, direct
from tests.tools.problems import FLOATS, problem, same_bits
from tests.tools.subprocesses import run_python

SHAPES = [((32, 64), -1), ((32, 64), 0), ((5,), 0), ((4, 3, 40), 1), ((2, 3, 4, 5), -2), ((7, 1, 5), 1), ((1, 9), -1)]
PARAMETERS = ["float64", "float32", "none"]

if direct.OFF:  # NUMBA_DISABLE_JIT
    pytestmark = pytest.mark.skip("there is no compiled code that could be called")


@pytest.fixture
def long_way(monkeypatch):
    """Calls a function the long way."""

    def call(function, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(direct, "OFF", True)
            return function(*arguments, **options)

    return call


def features(p, which):
    return {"float64": (p.gamma, p.beta), "float32": (p.gamma.astype("f"), p.beta.astype("f")), "none": (None, None)}[
        which
    ]


def test_the_layout_of_arrays_is_known():
    assert direct._known_layout()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("which", PARAMETERS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_the_same_bits_as_the_long_way(shape, axis, which, dtype, long_way):
    p = problem(shape, axis, dtype, offset=3.0)
    gamma, beta = features(p, which)
    y, (mean, var, count) = direct.batch_norm(p.x, gamma, beta, axis, 1e-3)
    expected, moments = long_way(bnnumba.batch_norm, p.x, gamma, beta, axis)
    assert same_bits(y, expected)
    assert same_bits(mean, moments.mean)
    assert same_bits(var, moments.var)
    assert (count, type(count)) == (moments.count, int)
    y = direct.normalize(p.x, mean, var.astype("f"), gamma, beta, axis, 1e-5)
    expected = long_way(bnnumba.normalize, p.x, mean, var.astype("f"), gamma, beta, axis, epsilon=1e-5)
    assert same_bits(y, expected)
    for frozen in (False, True):
        found = direct.backward(p.dy, p.x, mean, var, gamma, axis, 1e-3, frozen)
        gradients = long_way(bnnumba.batch_norm_backward, p.dy, p.x, mean, var, gamma, axis, frozen=frozen)
        assert all(map(same_bits, found, gradients[:3]))


@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"center": False, "scale": False}, {"momentum": None}], ids=str)
def test_a_layer_as_the_long_way(options, long_way):
    p = problem((32, 64))
    layers = [bnnumba.BatchNormalization(**options) for _ in range(2)]
    results = []
    for layer, call in zip(layers, (lambda f, *a, **k: f(*a, **k), long_way), strict=True):
        steps = [(call(layer, p.x, training=True), call(layer.backward, p.dy)) for _ in range(3)]
        results.append([*sum(steps, ()), call(layer, p.x), layer.dgamma, layer.dbeta, *layer.get_weights()])
    for one, other in zip(*results, strict=True):
        assert (one is None and other is None) or same_bits(one, other)
    assert layers[0].batches_seen == layers[1].batches_seen == 3


def right():
    """Arguments that are taken."""
    p = problem((32, 64))
    return {"x": p.x, "gamma": p.gamma, "beta": p.beta, "axis": -1, "epsilon": 1e-3}


X = right()["x"]
OTHERS = {
    "x": [None, X.tolist(), X.astype(">f4"), X.astype("i4"), X.astype("f2"), X.astype("O"), X.astype("g"), X[::2],
          np.asfortranarray(X), X.view(type("Subclass", (np.ndarray,), {})), np.ma.masked_array(X), X[:0], X[0, 0],
          np.ones((512, 512), "f"), np.array(1.0, "f"), np.zeros((32, 64), "f4,f4"), X[:, :63]],
    "gamma": [0, 1.0, np.ones(63), np.ones((1, 64)), np.ones(128)[::2], np.ones(64, "i4"), np.ones(64, ">f8"),
              [1.0] * 64, np.full(64, 1e30), np.full(64, np.inf), np.full(64, np.nan), np.ones(64, "O"), (),
              np.ones(())],
    "axis": [True, 2, -3, 2**70, -(2**70), (1,), (0, 1), None, 1.0, np.int64(1), slice(0, 1), "x", ()],
    "epsilon": [-1.0, np.nan, np.inf, 1, None, True, "x", np.float64(1e-3), 10**400, [1e-3]],
}  # fmt: skip
CASES = [(name, value) for name, values in OTHERS.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_what_is_not_of_the_common_kind_goes_the_long_way(name, value):
    given = right()
    assert direct.batch_norm(**given) is not None
    statistics = {"mean": np.zeros(64), "var": np.ones(64)}
    beta = given["beta"]
    assert direct.batch_norm(**{**given, name: value}) is None
    assert direct.normalize(**{**statistics, **given, name: value}) is None
    del given["beta"]
    dy = np.ones((32, 64), "f")
    assert direct.backward(**{**statistics, **given, name: value}, dy=dy, frozen=False) is None
    if name == "gamma":
        given[name] = None
        for other in ("mean", "var"):
            if other == "var" or value is None or np.shape(value) != (64,):
                changed = {**statistics, **given, other: value}
                assert direct.normalize(**changed, beta=beta) is None or np.shape(value) == (64,)
    if name == "x":
        assert direct.backward(value, **{**statistics, **given}, frozen=False) is None


@pytest.mark.parametrize("name", ["moving_mean", "moving_var"])
@pytest.mark.parametrize(
    "value",
    [
        np.zeros(64, "f"),
        np.zeros(63),
        np.zeros(128)[::2],
        np.frombuffer(bytes(512)),
        "the other",
        "half the other",
        0.0,
    ],
    ids=str,
)
def test_statistics_that_cannot_be_moved_so(name, value):
    both = np.zeros(96)
    moving = {"moving_mean": both[:64], "moving_var": np.zeros(64)}
    other = next(each for each in moving if each != name)
    if isinstance(value, str):
        moving = {name: both[:64] if value == "the other" else both[32:], other: both[:64]}
    else:
        moving[name] = value
    assert direct.batch_norm(**right(), **moving) is None


def test_references_are_as_before():
    given, moving = right(), (np.zeros(64), np.ones(64))
    dy, (_, (mean, var, _)) = np.ones((32, 64), "f"), direct.batch_norm(**given)
    layer = bnnumba.BatchNormalization()
    layer(given["x"], training=True)
    arrays = [*given.values(), *moving, dy, mean, var, None, 0, 1, layer.moving_mean, layer.gamma]
    before = [sys.getrefcount(each) for each in arrays]
    for _ in range(2000):
        direct.batch_norm(**given, moving_mean=moving[0], moving_var=moving[1])
        direct.normalize(given["x"], mean, var, None, None, -1, 1e-3)
        direct.backward(dy, given["x"], mean, var, None, -1, 1e-3, False)
        direct.backward(dy, given["x"], mean, var, None, (0, 1), 1e-3, False)
        layer(dy, training=True)
    layer.backward(dy)
    after = [sys.getrefcount(each) for each in arrays]
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) < 100


@pytest.mark.parametrize("dtype", FLOATS)
def test_results_go_where_the_caller_says(dtype, long_way):
    p, mean, var = problem((32, 64), dtype=dtype), np.zeros(64), np.ones(64)
    y = bnnumba.batch_norm(p.x, p.gamma, p.beta)[0]
    z = bnnumba.normalize(p.x, mean, var, p.gamma, p.beta)
    dx = bnnumba.batch_norm_backward(p.dy, p.x, mean, var, p.gamma).dx
    for place in ("new", "x", "a view of x", "dy"):
        for expected, call in (
            (y, lambda x, dy, out: direct.batch_norm(x, p.gamma, p.beta, -1, 1e-3, out)[0]),
            (z, lambda x, dy, out: direct.normalize(x, mean, var, p.gamma, p.beta, -1, 1e-3, out)),
            (dx, lambda x, dy, out: direct.backward(dy, x, mean, var, p.gamma, -1, 1e-3, False, out)[0]),
        ):
            x, dy = p.x.copy(), p.dy.copy()
            out = {"new": np.empty_like(x), "x": x, "a view of x": x[:], "dy": dy}[place]
            assert call(x, dy, out) is out
            assert same_bits(out, expected)


def test_results_that_overlap_go_the_long_way():
    memory, statistics = np.zeros(40 * 64, "f"), np.ones(128)
    x, out, mean, var = (
        memory[: 32 * 64].reshape(32, 64),
        memory[64 : 33 * 64].reshape(32, 64),
        *statistics.reshape(2, 64),
    )
    dy = x.copy()
    doubles = np.zeros(34 * 64)
    wide, over = doubles[: 32 * 64].reshape(32, 64), doubles[32 * 64 - 32 : 33 * 64 - 32]
    locked = np.empty_like(x)
    locked.flags.writeable = False
    for wrong in (out, locked, np.empty((32, 63), "f"), np.empty((32, 64)), np.empty((64, 32), "f").T, "x", 1):
        assert direct.batch_norm(x, None, None, -1, 1e-3, wrong) is None
        assert direct.normalize(x, mean, var, None, None, -1, 1e-3, wrong) is None
        assert direct.backward(dy, x, mean, var, None, -1, 1e-3, False, wrong) is None
        assert direct.backward(x, dy, mean, var, None, -1, 1e-3, True, wrong) is None
    given = np.ones((32, 64))
    assert direct.batch_norm(given, over, None, -1, 1e-3, wide) is None
    assert direct.batch_norm(given, None, over, -1, 1e-3, wide) is None
    for arguments in (
        (over, var, None, None),
        (mean, over, None, None),
        (mean, var, over, None),
        (mean, var, None, over),
    ):
        assert direct.normalize(given, *arguments, -1, 1e-3, wide) is None
    for arguments in ((over, var, None), (mean, over, None), (mean, var, over)):
        assert direct.backward(given, given, *arguments, -1, 1e-3, False, wide) is None


def test_results_of_other_sizes_are_refused():
    """A handler of a signal may change x's shape after they were made."""
    given, short, other = right(), np.empty(63), np.empty((64, 32), "f")
    x, mean, var = given["x"], np.zeros(64), np.ones(64)
    for y, a, b in ((other, mean, var), (x.copy(), short, var), (x.copy(), mean, short)):
        results = (y, a.copy(), b.copy())
        assert direct._BATCH_NORM.call(*given.values(), *results, None, None) == _objects.OTHERWISE
        assert direct._BACKWARD.call(x, x, mean, var, None, -1, 1e-3, *results) == _objects.OTHERWISE
    assert direct._NORMALIZE.call(x, mean, var, None, None, -1, 1e-3, other) == _objects.OTHERWISE


@pytest.mark.parametrize("ddof", [0.5, np.float32(0.5), np.nan, True, 2, 10**30, None, "a", np.array(1)], ids=repr)
def test_a_layers_other_ddof_goes_the_long_way(ddof):
    layer = bnnumba.BatchNormalization()
    layer.build((32, 64))
    layer.ddof = ddof
    assert direct.training(layer, right()["x"]) is None


def test_what_changes_a_layer_is_one_step_from_its_first_call_on():
    """In a new process: no handler of a signal may run between the parts of a change."""
    code = """
import numpy as np, bnnumba
from bnnumba import direct
layer = bnnumba.BatchNormalization()
layer.build((32, 64))
print(type(direct.training(layer, np.ones((32, 64), "f"))[2][0]).__name__)
"""
    assert run_python("-c", code) == "builtin_function_or_method\n"


THREADS = """
import sys, threading
import numpy as np
import bnnumba
sys.setswitchinterval(1e-6)
x, mean, var = np.random.default_rng(0).standard_normal((20, 4)), np.zeros(4), np.ones(4)
barrier = threading.Barrier(16)

def call():
    barrier.wait()
    for _ in range(50):
        bnnumba.normalize(x, mean, var)
        bnnumba.batch_norm(x)
        bnnumba.batch_norm_backward(x, x, mean, var)
        layer = bnnumba.BatchNormalization()
        layer(x, training=True)
        layer.backward(x)

threads = [threading.Thread(target=call) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("right")
"""


def test_the_first_calls_of_many_threads_at_once():
    for _ in range(4):
        assert run_python("-c", THREADS) == "right\n"
