"""BatchNormalization: its modes, its state, its round trips."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, problem, same_bits

WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")


def built(shape=(9, 3), axis=-1, **options):
    """A layer whose weights differ from each other, and a problem for it."""
    p = problem(shape, axis, offset=3.0)
    moving = {"moving_mean_initializer": p.beta + 3, "moving_variance_initializer": p.gamma**2 + 0.5}
    layer = BatchNormalization(axis, gamma_initializer=p.gamma, beta_initializer=p.beta, **{**moving, **options})
    layer.build(shape)
    return layer, p


def state(layer):
    return [weight.copy() for weight in layer.get_weights()]


def check_same(weights, others):
    assert all(same_bits(a, b) for a, b in zip(weights, others, strict=True))


# ---- modes


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), [((9, 3), -1), ((4, 3, 5, 5), 1), ((4, 3, 5, 2), (1, -1))], ids=str)
def test_training(shape, axis, dtype, ddof):
    layer, p = built(shape, axis, ddof=ddof, momentum=0.75, dtype="float64")
    x, dy = p.x.astype(dtype), p.dy.astype(dtype)
    mean, var = layer.moving_mean.copy(), layer.moving_variance.copy()
    y = layer(x, training=True)
    exact = oracle.batch_norm(x, p.gamma, p.beta, axis)
    bounds.check_y(dtype, y, exact)
    assert y.dtype == dtype

    n = oracle.count(shape, axis)
    moved_mean = 0.75 * mean + 0.25 * exact.mean.reshape(mean.shape)
    moved_var = 0.75 * var + 0.25 * exact.var.reshape(var.shape) * n / (n - ddof)
    # a quarter of the batch's error, and the roundings of three operations
    allowed_mean, allowed_var = (
        bound.reshape(mean.shape) / 2 + 4 * bounds.E64 * abs(moved)
        for bound, moved in (
            (bounds.mean(dtype, exact.mean, exact.var), moved_mean),
            (bounds.var(dtype, exact.mean, exact.var), moved_var),
        )
    )
    bounds.check("moving_mean", layer.moving_mean, moved_mean, allowed_mean)
    bounds.check("moving_variance", layer.moving_variance, moved_var, allowed_var)

    dx = layer.backward(dy)
    exact = oracle.backward(dy, x, exact.mean, exact.var, p.gamma, axis)
    bounds.check_gradients(dtype, bnnumba.Gradients(dx, layer.dgamma, layer.dbeta), exact)


def test_training_gives_the_bits_of_the_functions():
    layer, p = built()
    mean, var = layer.moving_mean.copy(), layer.moving_variance.copy()
    y, moments = bnnumba.batch_norm(p.x, layer.gamma, layer.beta)
    bnnumba.update_moving(mean, var, moments)
    gradients = bnnumba.batch_norm_backward(p.dy, p.x, *moments[:2], layer.gamma)
    assert same_bits(layer(p.x, training=True), y)
    assert same_bits(layer.backward(p.dy), gradients.dx)
    check_same([layer.moving_mean, layer.moving_variance, layer.dgamma, layer.dbeta], [mean, var, *gradients[1:3]])


def test_inference():
    layer, p = built()
    before = state(layer)
    y = layer(p.x)
    bounds.check_y(
        np.float32, y, oracle.normalize(p.x, layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    )
    assert same_bits(layer(p.x, training=False), y)
    check_same(state(layer), before)
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(p.dy)


def test_frozen():
    """Keras's frozen mode: moving statistics are used, and left, whatever `training` says."""
    layer, p = built()
    layer.trainable = False
    before = state(layer)
    assert same_bits(layer(p.x, training=True), layer(p.x))
    dx = layer.backward(p.dy)
    exact = oracle.backward(p.dy, p.x, layer.moving_mean, layer.moving_variance, layer.gamma, frozen=True)
    bounds.check_gradients(np.float32, bnnumba.Gradients(dx, layer.dgamma, layer.dbeta), exact, frozen=True)
    check_same(state(layer), before)


def test_the_mode_is_that_of_the_call():
    """Backward belongs to the call before it, whatever happened to the layer since."""
    layer, p = built()
    frozen_layer, _ = built()
    frozen_layer.trainable = False
    for one in (layer, frozen_layer):
        one(p.x, training=True)
    mean, var = frozen_layer.moving_mean.copy(), frozen_layer.moving_variance.copy()
    expected = bnnumba.batch_norm_backward(p.dy, p.x, mean, var, layer.gamma, frozen=True).dx
    frozen_layer.moving_mean[...] = 100.0
    frozen_layer.trainable, layer.trainable = True, False
    assert same_bits(frozen_layer.backward(p.dy), expected)
    expected = bnnumba.batch_norm_backward(p.dy, p.x, *bnnumba.moments(p.x)[:2], layer.gamma).dx
    assert same_bits(layer.backward(p.dy), expected)


def test_one_backward_for_each_training_call():
    layer, p = built()
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(p.dy)
    layer(p.x, training=True)
    layer(p.x[:2])  # inference between the two keeps nothing and takes nothing
    layer.backward(p.dy)
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(p.dy)


def test_training_keeps_a_reference_to_x_until_backward():
    layer, p = built()
    x = p.x.copy()
    layer(x, training=True)
    x[...] = p.x[::-1]  # a copy would not see this
    expected = bnnumba.batch_norm_backward(p.dy, x, *bnnumba.moments(p.x)[:2], layer.gamma).dx
    assert same_bits(layer.backward(p.dy), expected)


def test_inference_in_many_threads():
    layer, _ = built((400, 3))
    batches = [problem((400, 3), seed=seed).x for seed in range(16)]
    expected = [layer(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        check_same(list(pool.map(layer, batches)), expected)


@pytest.mark.parametrize("renorm", [False, True])
def test_without_momentum_moving_statistics_are_the_average_of_all_batches(renorm):
    """As PyTorch's momentum=None; a batch without a value does not count, nor does a call that does not train."""
    layer = BatchNormalization(momentum=None, renorm=renorm)
    batches = [problem((9, 3), seed=seed, offset=seed).x for seed in range(5)]
    for x in batches:
        layer(x, training=True)
        layer(x)
        layer(x[:0], training=True)
    assert layer.batches_seen == 5
    moments = [bnnumba.moments(x) for x in batches]
    means = np.mean([each.mean for each in moments], axis=0)
    if renorm:
        variances = np.mean([np.sqrt(each.var + 1e-3) for each in moments], axis=0) ** 2 - 1e-3
    else:
        variances = np.mean([each.var for each in moments], axis=0)
    np.testing.assert_allclose(layer.moving_mean, means, rtol=1e-14)  # 5 steps of 3 roundings each
    np.testing.assert_allclose(layer.moving_variance, variances, rtol=1e-14)
    layer.trainable = False
    layer(batches[0], training=True)
    assert layer.batches_seen == 5
    assert copy.deepcopy(layer).batches_seen == 5


@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.99, 1.0])
def test_momentum_is_the_share_that_is_kept(momentum):
    """moving = momentum*moving + (1 - momentum)*batch: with powers of two, to the last bit of 0.25's result."""
    layer = BatchNormalization(momentum=momentum, moving_mean_initializer=8.0, moving_variance_initializer=16.0)
    layer(np.array([[2.0], [6.0]]), training=True)  # mean 4, variance 4
    assert layer.moving_mean == momentum * 8.0 + (1 - momentum) * 4.0
    assert layer.moving_variance == momentum * 16.0 + (1 - momentum) * 4.0


# ---- what it is built of


def test_build_by_shape_or_by_the_first_call():
    layer, by_call = BatchNormalization(1), BatchNormalization(1)
    assert layer.get_weights() == []
    assert not layer.built
    assert layer.gamma is layer.beta is layer.moving_mean is layer.moving_variance is None
    layer.build((None, 3, None))
    by_call(np.zeros((2, 3, 4), np.float32))
    assert layer.built
    assert by_call.built
    check_same(layer.get_weights(), by_call.get_weights())
    layer.build([7, 3, 5])  # again, for the same features
    for shape in [(2, 4, 4), (2, 1, 4)]:
        with pytest.raises(ValueError, match=r"feature shape \(3,\)"):
            layer.build(shape)
        with pytest.raises(ValueError, match=r"feature shape \(3,\)"):
            layer(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float64])
def test_dtypes(dtype):
    layer = BatchNormalization(dtype=dtype)
    layer.build((None, 3))
    assert [weight.dtype for weight in layer.get_weights()] == [np.dtype(dtype)] * 2 + [np.dtype(np.float64)] * 2
    for data in FLOATS:
        assert layer(np.ones((2, 3), data)).dtype == data


INITIALIZERS = {
    "zeros": ("zeros", [0.0, 0.0, 0.0]),
    "ones": ("ones", [1.0, 1.0, 1.0]),
    "an int": (2, [2.0, 2.0, 2.0]),
    "a float": (-0.5, [-0.5, -0.5, -0.5]),
    "a NumPy scalar": (np.float32(0.25), [0.25, 0.25, 0.25]),
    "an array": (np.array([1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]),
    "an array of ints": (np.array([1, 2, 3]), [1.0, 2.0, 3.0]),
    "a callable": (lambda shape: np.arange(np.prod(shape)).reshape(shape), [0.0, 1.0, 2.0]),
    "a callable that gives a list": (lambda shape: [0.5] * shape[0], [0.5, 0.5, 0.5]),
}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", INITIALIZERS)
def test_initializers(kind, weight):
    given, expected = INITIALIZERS[kind]
    layer = BatchNormalization(**{f"{weight}_initializer": given})
    layer.build((5, 3))
    result = getattr(layer, weight)
    assert list(result) == expected
    result[0] = 7.0  # the layer's own, not the caller's array
    assert not isinstance(given, np.ndarray) or list(given) == expected


@pytest.mark.parametrize(("center", "scale"), [(False, True), (True, False), (False, False)])
def test_without_center_or_scale(center, scale):
    layer, p = built(center=center, scale=scale)
    names = [name for name, there in zip(WEIGHTS, (scale, center, True, True), strict=True) if there]
    check_same(layer.get_weights(), [getattr(layer, name) for name in names])
    gamma, beta = (p.gamma.astype(np.float32) if scale else None), (p.beta.astype(np.float32) if center else None)
    assert same_bits(layer(p.x, training=True), bnnumba.batch_norm(p.x, gamma, beta)[0])
    layer.backward(p.dy)
    assert (layer.gamma is None) == (layer.dgamma is None) == (not scale)
    assert (layer.beta is None) == (layer.dbeta is None) == (not center)


# ---- round trips


def test_weights():
    layer, _ = built()
    weights = layer.get_weights()
    check_same(weights, [getattr(layer, name) for name in WEIGHTS])  # Keras's order
    weights[0][...] = 0.0
    assert layer.gamma.any()  # what get_weights gave was a copy

    other = BatchNormalization()
    other.build((None, 3))
    kept = other.gamma
    other.set_weights(layer.get_weights())
    check_same(other.get_weights(), layer.get_weights())
    assert other.gamma is kept  # in place: an optimizer may hold it


def test_config():
    options = {
        "axis": (1, -1), "momentum": 0.5, "epsilon": 1e-5, "center": False, "scale": False, "beta_initializer": 2.0,
        "gamma_initializer": "zeros", "moving_mean_initializer": "ones", "moving_variance_initializer": 0.5, "ddof": 1,
        "dtype": "float64", "skip_nonfinite": True, "activation": "relu", "renorm": False,
        "renorm_clipping": {"rmax": 2.0}, "renorm_momentum": 0.9,
    }  # fmt: skip
    layer = BatchNormalization(**options)
    assert layer.get_config() == options
    again = BatchNormalization.from_config(layer.get_config())
    assert again.get_config() == options
    assert BatchNormalization().get_config() == {
        "axis": -1, "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True, "beta_initializer": "zeros",
        "gamma_initializer": "ones", "moving_mean_initializer": "zeros", "moving_variance_initializer": "ones",
        "ddof": 0, "dtype": "float32", "skip_nonfinite": False, "activation": None, "renorm": False,
        "renorm_clipping": None, "renorm_momentum": 0.99,
    }  # fmt: skip


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(duplicate):
    layer, p = built(momentum=0.5, ddof=1)
    layer(p.x, training=True)
    layer.backward(p.dy)
    layer.trainable = False
    twin = duplicate(layer)
    check_same(twin.get_weights(), layer.get_weights())
    check_same([twin.dgamma, twin.dbeta], [layer.dgamma, layer.dbeta])
    assert not any(np.shares_memory(a, getattr(layer, name)) for name, a in vars(twin).items() if name in WEIGHTS)
    assert twin.trainable is False
    twin.trainable = layer.trainable = True
    assert same_bits(twin(p.x, training=True), layer(p.x, training=True))
    check_same(twin.get_weights(), layer.get_weights())
    unbuilt = duplicate(BatchNormalization(axis=1))
    assert unbuilt.get_weights() == []
    assert unbuilt.axis == 1


def test_repr_names_what_is_not_the_default():
    assert repr(BatchNormalization()) == "BatchNormalization()"
    assert repr(BatchNormalization(1, ddof=1)) == "BatchNormalization(axis=1, ddof=1)"


def test_output_that_finds_no_memory_leaves_the_state():
    layer, p = built()
    layer(p.x, training=True)
    before = layer.get_weights()
    with pytest.raises(MemoryError):
        layer(np.broadcast_to(p.x[:1], (2**45, *p.x.shape[1:])), training=True)
    for weight, kept in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept, strict=True)
    assert layer.backward(p.dy).shape == p.x.shape  # of the call that succeeded
