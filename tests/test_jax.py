"""What `bnnumba.jax` computes: beside the oracle, the functions on NumPy's arrays, and JAX's own derivatives."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402  # behind what may be missing
from jax.sharding import Mesh, PartitionSpec  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import bnnumba  # noqa: E402
from bnnumba.activations import LeakyRelu  # noqa: E402
from bnnumba.jax import batch_norm, calls, normalize, targets  # noqa: E402
from tests.tools import bounds, oracle  # noqa: E402
from tests.tools.subprocesses import error_without, run_python  # noqa: E402

CASES = [((32, 6), -1), ((4, 6, 5, 3), 1), ((5, 3, 4, 6), (1, -1)), ((3, 4, 5), (2, 0)), ((7,), ()), ((1, 6, 1), 1)]
HALVES = ("float16", "bfloat16")
EPSILON = 1e-3


@pytest.fixture(params=["float32", "float64", *HALVES])
def dtype(request):
    """Each dtype; of float64, JAX has to be told."""
    with_x64(request.param == "float64")
    yield request.param
    with_x64(False)


@pytest.fixture
def x64():
    with_x64(True)
    yield
    with_x64(False)


def with_x64(on):
    jax.config.update("jax_enable_x64", on)


def data(shape, dtype="float32", seed=0, mean=3.0):
    values = np.random.default_rng(seed).normal(mean, 2, shape)
    return np.asarray(jnp.asarray(values.astype(np.float32 if dtype != "float64" else np.float64)).astype(dtype))


def features_of(shape, axis, seed=1):
    rng = np.random.default_rng(seed)
    size = oracle.feature_shape(shape, axis)
    return [np.asarray(rng.uniform(0.5, 2, size).astype(np.float32)) for _ in range(2)]


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(a, b)


def near(a, b, tolerance=2e-5):
    b = np.asarray(b, np.float64)
    np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance * max(abs(b).max(), 1))


def plain(x, gamma=None, beta=None, *, axis=-1, epsilon=EPSILON, activation=None, residual=None):
    """The same by JAX's own operations."""
    x_axes = oracle.reduced_axes(x.ndim, axis)
    mean = jnp.mean(x, x_axes)
    var = jnp.mean((x - jnp.expand_dims(mean, x_axes)) ** 2, x_axes)
    return plain_normalize(x, mean, var, gamma, beta, axis, epsilon, activation, residual), mean, var


def plain_normalize(x, mean, var, gamma, beta, axis=-1, epsilon=EPSILON, activation=None, residual=None):
    mean, var, gamma, beta = (
        default if each is None else jnp.expand_dims(each, oracle.reduced_axes(x.ndim, axis))
        for each, default in ((mean, 0), (var, 1), (gamma, 1), (beta, 0))
    )
    v = gamma * (x - mean) / jnp.sqrt(var + epsilon) + beta
    return ACTIVATIONS[activation](v if residual is None else v + residual)


ACTIVATIONS = {
    None: lambda v: v,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    LeakyRelu(0.3): lambda v: jax.nn.leaky_relu(v, 0.3),
}


def loss(function, inputs, seed=7, **options):
    """A number that depends on all outputs, as a function of the inputs by name."""
    rng = np.random.default_rng(seed)
    outputs = jax.tree.leaves(function(**inputs, **options))
    weights = [jnp.asarray(rng.normal(size=each.shape), jnp.float32) for each in outputs]

    def total(inputs):
        results = jax.tree.leaves(function(**inputs, **options))
        return sum(jnp.sum(each.astype(jnp.float32) * w) for each, w in zip(results, weights, strict=True))

    return total


# ---- values


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_are_those_of_the_functions(case, dtype):
    shape, axis = case
    x, (gamma, beta) = data(shape, dtype), features_of(shape, axis)
    y, moments = bnnumba.batch_norm(x, gamma, beta, axis)
    wide = jnp.zeros((), float).dtype
    for call in (batch_norm, jax.jit(batch_norm, static_argnames="axis")):
        found = call(x, gamma, beta, axis=axis)
        for result, expected in zip(found, (y, *moments[:2]), strict=True):
            same(result, expected if result is found[0] else expected.astype(wide))
    mean, var = (each.astype(np.float32) for each in moments[:2])
    same(normalize(x, mean, var, gamma, beta, axis=axis), bnnumba.normalize(x, mean, var, gamma, beta, axis))
    same(normalize(x, mean, var, axis=axis), bnnumba.normalize(x, mean, var, None, None, axis))


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize("mean", [3.0, 2e6])
@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_beside_the_oracle(case, mean, dtype):
    """Gradients too: mean and var reach the backward pass in float64, however far from 0 the data is."""
    shape, axis = case
    x, dy, (gamma, beta) = data(shape, dtype, mean=mean), data(shape, dtype, 5, 0.0), features_of(shape, axis)
    exact = oracle.batch_norm(x, gamma, beta, axis)
    (y, *_), pull = jax.vjp(partial(batch_norm, axis=axis), x, gamma, beta)
    bounds.check_y(dtype, y, exact)
    zeros = np.zeros(gamma.shape, jnp.zeros((), float).dtype)
    dx, dgamma, dbeta = pull((jnp.asarray(dy), zeros, zeros))
    expected = oracle.backward(dy, x, *oracle.moments(x, axis), gamma, axis)
    bounds.check("dx", dx, expected.dx, bounds.dx(dtype, expected))
    near(dgamma, expected.dgamma.reshape(gamma.shape), 1e-5)
    near(dbeta, expected.dbeta.reshape(gamma.shape), 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
def test_activations_and_residuals(activation, added):
    """As the functions have them, backward too."""
    shape = 4, 6, 5
    x, residual, dy, (gamma, beta) = data(shape), data(shape, seed=2), data(shape, seed=3), features_of(shape, 1)
    residual = residual if added else None
    options = {"activation": activation, "residual": residual}
    y, (mean, var, _) = bnnumba.batch_norm(x, gamma, beta, 1, **options)
    pulled = bnnumba.batch_norm_backward(dy, x, mean, var, gamma, 1, y=y, activation=activation, residual=added)

    def forward(x, gamma, beta, residual):
        return batch_norm(x, gamma, beta, axis=1, activation=activation, residual=residual)[0]

    found, pull = jax.vjp(forward, x, gamma, beta, residual)
    same(found, y)
    dx, dgamma, dbeta, dresidual = pull(dy)
    same(dx, pulled.dx)
    same(dgamma, pulled.dgamma.astype(np.float32))
    same(dbeta, pulled.dbeta.astype(np.float32))
    assert (dresidual is None) == (not added)
    if added:
        same(dresidual, pulled.dresidual)

    mean, var = mean.astype(np.float32), var.astype(np.float32)
    y = bnnumba.normalize(x, mean, var, gamma, beta, 1, **options)
    frozen = partial(normalize, axis=1, activation=activation)
    found, pull = jax.vjp(lambda x, r: frozen(x, mean, var, gamma, beta, residual=r), x, residual)
    pulled = bnnumba.batch_norm_backward(
        dy, x, mean, var, gamma, 1, frozen=True, y=y, activation=activation, residual=added
    )
    same(found, y)
    dx, dresidual = pull(dy)
    same(dx, pulled.dx)
    if added:
        same(dresidual, pulled.dresidual)


@pytest.mark.parametrize("dtype", HALVES, indirect=True)
@pytest.mark.parametrize("activation", [None, "relu", LeakyRelu(0.3)], ids=str)
def test_half_precision_backward(activation, dtype):
    x, dy, (gamma, beta) = data((40, 6), dtype), data((40, 6), dtype, 4, 0.0), features_of((40, 6), -1)
    y, (mean, var, _) = bnnumba.batch_norm(x, gamma, beta, activation=activation)
    expected = bnnumba.batch_norm_backward(dy, x, mean, var, gamma, y=y, activation=activation)
    half = jnp.asarray(gamma).astype(dtype), jnp.asarray(beta).astype(dtype)
    pull = jax.vjp(lambda x, g, b: batch_norm(x, g, b, activation=activation)[0], x, gamma, beta)[1]
    same(pull(dy)[0], expected.dx)
    found = jax.vjp(lambda x, g, b: batch_norm(x, g, b, activation=activation)[0], x, *half)[1](dy)
    assert [each.dtype.name for each in found] == [dtype] * 3


def test_degenerate():
    y, mean, var = batch_norm(jnp.ones((0, 3)))
    assert y.shape == (0, 3)
    same(mean, np.zeros(3, np.float32))
    same(var, np.zeros(3, np.float32))
    assert [each.shape for each in batch_norm(jnp.ones((4, 0)))] == [(4, 0), (0,), (0,)]
    y, _, var = batch_norm(jnp.full((4, 2), 7.0), None, jnp.array([1.0, 2.0]), epsilon=0.0)
    same(y, np.tile(np.float32([1, 2]), (4, 1)))
    same(var, np.zeros(2, np.float32))
    grad = jax.grad(lambda x: batch_norm(x, epsilon=0.0)[0].sum() + batch_norm(x)[1].sum())(jnp.full((4, 2), 7.0))
    same(grad, np.full((4, 2), 0.25, np.float32))
    x = data((9, 3)).copy()
    x[2, 1] = np.nan
    expected, _ = bnnumba.batch_norm(x)
    same(batch_norm(x)[0], expected)


# ---- derivatives


INPUTS = ("x", "gamma", "beta", "residual")


def problem(activation, added, shape=(6, 4, 5), axis=1):
    gamma, beta = features_of(shape, axis)
    inputs = {"x": data(shape), "gamma": gamma, "beta": beta, **({"residual": data(shape, seed=2)} if added else {})}
    return {name: jnp.asarray(each) for name, each in inputs.items()}, {"axis": axis, "activation": activation}


def derivative(function, order, inputs, options):
    """The gradient of a loss; or of order 2, that of the sum of its gradient's squares."""
    first = jax.grad(loss(function, inputs, **options))
    if order == 1:
        return first(inputs)
    return jax.grad(lambda inputs: sum(jnp.sum(each**2) for each in jax.tree.leaves(first(inputs))))(inputs)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_through_all_outputs(activation, added, order):
    """Through y, mean and var at once, beside JAX's own of the formulas."""
    inputs, options = problem(activation, added)

    found, expected = (derivative(f, order, inputs, options) for f in (batch_norm, plain))
    for name in inputs:
        near(found[name], expected[name], 1e-4)


@pytest.mark.parametrize("which", ["mean", "var"])
def test_gradients_through_one_moment_alone(which):
    x = jnp.asarray(data((6, 4, 5)))
    weights = jnp.arange(1.0, 5.0)
    index = ["y", "mean", "var"].index(which)
    found, expected = (jax.grad(lambda x, f=f: f(x, axis=1)[index] @ weights)(x) for f in (batch_norm, plain))
    near(found, expected)


@pytest.mark.parametrize("activation", [None, "relu", LeakyRelu(0.3)], ids=str)
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_normalize(activation, order):
    inputs, options = problem(activation, True)
    inputs |= {"mean": jnp.arange(1.0, 5.0), "var": jnp.arange(2.0, 6.0)}

    found, expected = (derivative(f, order, inputs, options) for f in (normalize, plain_normalize))
    for name in inputs:
        near(found[name], expected[name], 1e-4)


def test_against_finite_differences(x64):
    inputs, options = problem(LeakyRelu(0.3), True, (5, 3), 1)
    given = [inputs[name].astype(jnp.float64) for name in INPUTS]

    def function(x, gamma, beta, residual):
        y, mean, var = batch_norm(x, gamma, beta, residual=residual, **options)
        return jnp.sin(y) * var + mean

    check_grads(function, given, 2, modes=["rev"])
    check_grads(
        lambda x, mean, var, gamma: jnp.sin(normalize(x, mean, var, gamma)), [*given[:2], *given[1:3]], 2, ["rev"]
    )


def test_third_derivatives(x64):
    x = jnp.asarray(data((5, 2), "float64"))

    def third(function):
        f = lambda t: jnp.sum(jnp.sin(function(x * t)[0] * x))  # noqa: E731
        return jax.grad(jax.grad(jax.grad(f)))(1.5)

    near(third(batch_norm), third(plain), 1e-9)


def test_second_derivatives_far_from_zero():
    x = data((400, 3), mean=1e5)
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)

    def second(function, x):
        inner = jax.grad(lambda x: jnp.sum(jnp.sin(function(x)[0])))
        return jax.grad(lambda x: jnp.sum(inner(x) ** 2))(x)

    near(second(batch_norm, x), second(plain, centred.astype(np.float32)), 1e-3)


# ---- transformations


def test_vmap():
    x = jnp.asarray(data((3, 8, 4, 5)))
    gamma, beta = (jnp.asarray(each) for each in features_of((8, 4, 5), 1))
    f = partial(batch_norm, axis=1, activation="relu")

    def total(x, gamma, beta):
        return jnp.sum(f(x, gamma, beta)[0] ** 2)

    slices = [f(each, gamma, beta) for each in x]
    for axes in (0, 1):
        mapped = jax.vmap(f, (axes, None, None), (axes, 0, 0))(jnp.moveaxis(x, 0, axes), gamma, beta)
        results = jnp.moveaxis(mapped[0], axes, 0), *mapped[1:]
        for found, *expected in zip(results, *slices, strict=True):
            near(found, np.stack(expected), 1e-6)
    found = jax.vmap(jax.grad(total, (0, 1, 2)), (0, None, None))(x, gamma, beta)
    for index, each in enumerate(found):
        near(each, np.stack([jax.grad(total, index)(one, gamma, beta) for one in x]), 1e-5)
    whole = jax.grad(lambda *inputs: jax.vmap(total, (0, None, None))(*inputs).sum(), (0, 1, 2))(x, gamma, beta)
    near(whole[0], found[0])
    near(whole[1], found[1].sum(0))
    nested = jax.vmap(jax.vmap(lambda x: batch_norm(x)[0]))(x)
    near(nested, np.stack([[batch_norm(b)[0] for b in a] for a in x]), 1e-6)
    mapped_gamma = jax.vmap(lambda gamma: f(x[0], gamma, beta)[0])(jnp.stack([gamma, 2 * gamma]))
    near(mapped_gamma[1], f(x[0], 2 * gamma, beta)[0], 1e-6)


def gradient(x, gamma, beta):
    return jax.grad(lambda *inputs: jnp.sum(batch_norm(*inputs, activation="relu")[0] ** 2), (0, 1, 2))(x, gamma, beta)


def test_one_device_of_a_mesh():
    x, (gamma, beta) = jnp.asarray(data((16, 6))), map(jnp.asarray, features_of((16, 6), -1))
    mesh, p = Mesh(np.array(jax.devices()[:1]), ("i",)), PartitionSpec
    expected = gradient(x, gamma, beta)
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(p("i"), p(), p()), out_specs=(p("i"), p(), p()))
    for found, each in zip(mapped(x, gamma, beta), expected, strict=True):
        same(found, each)
    for found, each in zip(jax.pmap(gradient, in_axes=(0, None, None))(x[None], gamma, beta), expected, strict=True):
        same(found[0], each)


def test_donated_buffers():
    x, (gamma, beta) = data((64, 6)), features_of((64, 6), -1)
    given = jnp.array(x)
    y, *_ = jax.jit(batch_norm, donate_argnums=0)(given, gamma, beta)
    same(y, bnnumba.batch_norm(x, gamma, beta)[0])
    assert given.is_deleted()
    step = jax.jit(lambda x: x - 0.1 * gradient(x, gamma, beta)[0], donate_argnums=0)
    kept = jnp.array(x)
    expected = kept - 0.1 * gradient(kept, gamma, beta)[0]
    near(step(jnp.array(x)), expected, 1e-6)


def test_scan_and_checkpoint():
    x, (gamma, beta) = jnp.asarray(data((3, 16, 6))), map(jnp.asarray, features_of((16, 6), -1))
    _, found = jax.lax.scan(lambda carry, each: (carry, gradient(each, gamma, beta)[0]), 0.0, x)
    for one, each in zip(found, x, strict=True):
        same(one, gradient(each, gamma, beta)[0])
    again = jax.grad(jax.checkpoint(lambda x: jnp.sum(batch_norm(x, gamma, beta, activation="relu")[0] ** 2)))(x[0])
    near(again, gradient(x[0], gamma, beta)[0], 1e-6)


def test_many_calls_at_once():
    """Of large data, whose kernels use threads, in XLA's threads and Python's."""
    arrays = [data((40_000, 16), seed=seed) for seed in range(6)]
    gamma, beta = features_of((40_000, 16), -1)
    expected = [bnnumba.batch_norm(x, gamma, beta) for x in arrays]
    every = jax.jit(lambda arrays: [batch_norm(x, gamma, beta) for x in arrays])

    def check(_):
        for (y, mean, _), (right, moments) in zip(every(arrays), expected, strict=True):
            same(y, right)
            same(mean, moments.mean.astype(np.float32))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(12)))


# ---- errors

X = jnp.ones((4, 3))
REFUSED = {
    "integers": (lambda: batch_norm(jnp.ones((4, 3), int)), TypeError, "x must be float32, float64, .*, got int32"),
    "a list": (lambda: batch_norm([[1.0]]), TypeError, "x must be an array of JAX or NumPy, got list"),
    "a number": (lambda: batch_norm(jnp.ones(())), TypeError, "x must have at least one axis, got a 0-d array"),
    "gamma's shape": (lambda: batch_norm(X, jnp.ones(4)), ValueError, r"gamma must have shape \(3,\), got \(4,\)"),
    "beta's dtype": (
        lambda: batch_norm(X, None, jnp.arange(3)),
        TypeError,
        "beta must be an array of real floats, got int",
    ),
    "no mean": (
        lambda: normalize(X, None, jnp.ones(3)),
        TypeError,
        "mean must be an array of JAX or NumPy, got NoneType",
    ),
    "axis": (lambda: batch_norm(X, axis=2), np.exceptions.AxisError, "axis 2 is out of bounds"),
    "an axis twice": (lambda: batch_norm(X, axis=(1, -1)), ValueError, "axis must not repeat an axis"),
    "epsilon": (lambda: batch_norm(X, epsilon=-1), ValueError, "epsilon must be >= 0, got -1"),
    "an array epsilon": (lambda: batch_norm(X, epsilon=jnp.ones(())), TypeError, "epsilon must be a real number"),
    "activation": (lambda: batch_norm(X, activation="gelu"), ValueError, "activation must be None, 'relu'"),
    "residual's shape": (lambda: batch_norm(X, residual=X[0]), ValueError, "residual must have the shape of x"),
    "residual's dtype": (
        lambda: batch_norm(X, residual=X.astype(jnp.bfloat16)),
        TypeError,
        "residual must have the dtype of x, float32, got bfloat16",
    ),
    "forward mode": (lambda: jax.jvp(batch_norm, (X,), (X,)), TypeError, "forward-mode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        call()
    if "list" not in name and "mode" not in name:
        with pytest.raises(error, match=words):
            jax.jit(lambda _: call())(X)


def test_another_device_is_refused():
    class Elsewhere:
        platform = "cuda"

    from bnnumba.jax.functions import _on_cpu  # noqa: PLC0415

    with pytest.raises(ValueError, match="x must be on the CPU, got an array on cuda"):
        _on_cpu("x", type("Array", (), {"devices": lambda self: {Elsewhere()}})())


F32, U32, F16 = np.float32, np.uint32, np.float16
RIGHT = (((4, 3, 1), F32), ((3,), F32), ((3,), F32)), (((4, 3, 1), F32), ((4, 3, 2), U32), ((3,), F32), ((3,), F32))
FRAMES = {  # of a call of the forward's target, what stands for which buffer, and what XLA says
    "an argument too many": ({}, [((3,), F32)], "fixed number of buffers"),
    "rank": ({0: ((4, 3), F32)}, [], "data must have one shape"),
    "dtype of x": ({0: ((4, 3, 1), F16)}, [], "data must have one shape"),
    "size of y": ({3: ((4, 3, 2), F32)}, [], "data must have one shape"),
    "dtype of gamma": ({1: ((3,), F16)}, [], "features must be float32 or float64"),
    "size of beta": ({2: ((2,), F32)}, [], "features must be float32 or float64"),
    "size of mean": ({5: ((4,), F32)}, [], "features must be float32 or float64"),
    "size of rows": ({4: ((3, 3, 2), U32)}, [], "rows must be uint32"),
}


def call_target(changed, more, **attributes):
    name = targets.prepare(targets.Target("forward", "float32", "", residual=False), 48)
    buffers = [changed.get(i, each) for i, each in enumerate(itertools.chain(*RIGHT))]
    arguments, results = buffers[:3] + more, buffers[3:]
    call = jax.ffi.ffi_call(name, [jax.ShapeDtypeStruct(*each) for each in results])
    given = [np.ones(*each) for each in arguments]
    return jax.block_until_ready(jax.jit(lambda *arrays: call(*arrays, **attributes))(*given))


@pytest.mark.parametrize("name", FRAMES)
def test_a_wrong_call_of_a_target_is_an_error_of_xla(name):
    changed, more, words = FRAMES[name]
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"bnnumba.jax: .*{words}"):
        call_target(changed, more, epsilon=np.float64(0), slope=np.float64(0))


@pytest.mark.parametrize(
    "attributes", [{}, {"epsilon": np.float64(0)}, {"epsilon": np.float32(0), "slope": np.float64(0)}]
)
def test_wrong_attributes_are_an_error_of_xla(attributes):
    with pytest.raises(jax.errors.JaxRuntimeError, match="the attributes must be epsilon and slope"):
        call_target({}, [], **attributes)


def test_a_target_without_its_kernel_is_an_error_of_xla(monkeypatch):
    right = {"epsilon": np.float64(0), "slope": np.float64(0)}
    call_target({}, [], **right)
    place = targets._places.of[targets.Target("forward", "float32", "", residual=False)]
    kernel, place[targets.frame.ALONE] = place[targets.frame.ALONE], 0
    monkeypatch.setattr(targets, "_kernel_address", lambda *_: 0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="the kernel is not compiled in this process"):
        call_target({}, [], **right)
    place[targets.frame.ALONE] = kernel


WITHOUT_COMPILER = """
import jax.numpy as jnp
from numba.core import compiler
from bnnumba import jax

if {loaded}:
    def compile_extra(*_, **__):
        raise AssertionError("something is compiled")
    compiler.compile_extra = compile_extra
y, mean, var = jax.batch_norm(jnp.ones((4, 3)), activation="relu")
print(float(mean.sum()))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    for loaded in (False, True):
        printed = run_python("-c", WITHOUT_COMPILER.format(loaded=loaded), NUMBA_CACHE_DIR=str(tmp_path))
        assert float(printed) == 3.0


SWITCHED_OFF = """
import jax.numpy as jnp
from bnnumba import jax

try:
    jax.batch_norm(jnp.ones((4, 3)))
except RuntimeError as error:
    print(error)
"""


def test_the_compiler_must_not_be_switched_off():
    printed = run_python("-c", SWITCHED_OFF, NUMBA_DISABLE_JIT="1")
    assert printed.strip() == "bnnumba.jax needs Numba's compiler, got NUMBA_DISABLE_JIT=1"


def test_a_missing_library_is_named():
    assert error_without("jax", "bnnumba.jax") == "bnnumba.jax needs JAX: pip install 'bnnumba[jax]'\n"


def test_an_unknown_version_of_xla_is_refused(monkeypatch):
    assert targets.xla_version() in targets.KNOWN
    monkeypatch.setattr(targets, "KNOWN", ((7, 1),))
    with pytest.raises(RuntimeError, match=r"knows XLA's FFI in the versions 7\.1, got \d+\.\d+ of jax"):
        targets.xla_version()


# ---- side by side with plain formulas, over several steps of training

SHAPES = {"dense": ((24, 6), -1), "first": ((4, 6, 5, 4), 1), "last": ((4, 5, 4, 6), -1), "two": ((6, 3, 8, 2), (1, 3))}
CONFIGURATIONS = [
    *itertools.product(SHAPES, ACTIVATIONS, [False, True], [True]),
    *itertools.product(SHAPES, [None], [False], [False]),
    *((shape, "relu", True, False) for shape in ("dense", "first")),
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_in_lockstep(configuration):
    """Parameters and moving statistics of both stay together. 38 configurations."""
    name, activation, added, affine = configuration
    shape, axis = SHAPES[name]
    gamma, beta = features_of(shape, axis)
    target = jnp.asarray(data(shape, seed=9, mean=0.5))

    def make_step(function, frozen):
        def objective(parameters, x):
            scale, offset = (parameters["gamma"], parameters["beta"]) if affine else (None, None)
            given = parameters["w"] * x
            residual = x if added else None
            options = {"axis": axis, "activation": activation, "residual": residual}
            y, mean, var = function(given, scale, offset, **options)
            return jnp.mean((y - target) ** 2), (mean, var)

        def step(state, x):
            parameters, moving = state
            gradients, batch = jax.grad(objective, has_aux=True)(parameters, x)
            parameters = jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradients)
            moving = jax.tree.map(lambda m, b: 0.9 * m + 0.1 * b, moving, batch)
            return (parameters, moving), frozen(x, *moving, axis=axis)

        return jax.jit(step)

    start = {"w": jnp.ones(()), "gamma": jnp.asarray(gamma), "beta": jnp.asarray(beta)}
    states = [(start, (jnp.zeros(gamma.shape), jnp.ones(gamma.shape)))] * 2
    frozen_plain = lambda x, mean, var, axis: plain_normalize(x, mean, var, None, None, axis)  # noqa: E731
    steps = make_step(batch_norm, normalize), make_step(plain, frozen_plain)
    for seed in range(4):
        x = jnp.asarray(data(shape, seed=20 + seed))
        (ours, y), (theirs, expected) = (step(state, x) for step, state in zip(steps, states, strict=True))
        states = [ours, theirs]
        near(y, expected, 1e-4)
        jax.tree.map(partial(near, tolerance=1e-4), ours, theirs)


def test_there_are_38_configurations():
    assert len(CONFIGURATIONS) == 38
    assert calls.wide() == np.float32
