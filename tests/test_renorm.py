"""Batch renormalization: step by step as in Keras, and by the equations."""

import numpy as np
import pytest

from bnnumba import BatchNormalization
from tests.tools import oracle
from tests.tools.problems import problem, same_bits

EPSILON, MOMENTUM, RENORM_MOMENTUM = 1e-3, 0.8, 0.7
STATISTICS = ("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")
CLIPPINGS = (None, {}, {"rmax": 1.1, "rmin": 0.9, "dmax": 0.1}, {"dmax": 0.0}, {"rmax": None, "rmin": 1.0})


def options(**others):
    return {
        "momentum": MOMENTUM, "epsilon": EPSILON, "renorm": True, "renorm_momentum": RENORM_MOMENTUM,
        "moving_mean_initializer": "ones", "moving_variance_initializer": "ones", **others,
    }  # fmt: skip


def batches(count, shape=(9, 4, 5)):
    return [problem(shape, 1, offset=step / 2, scale=1 + step / 3, seed=step) for step in range(count)]


@pytest.mark.parametrize("clipping", CLIPPINGS, ids=str)
@pytest.mark.parametrize(("center", "scale"), [(True, True), (False, True), (True, False), (False, False)])
def test_keras_step_by_step(clipping, center, scale):
    keras = pytest.importorskip("keras")
    tensorflow = pytest.importorskip("tensorflow")
    ours = BatchNormalization(1, renorm_clipping=clipping, center=center, scale=scale, **options())
    theirs = keras.layers.BatchNormalization(1, renorm_clipping=clipping, center=center, scale=scale, **options())
    for layer in (ours, theirs):
        layer.build((None, 4, None))
    for p in batches(6):
        x = tensorflow.constant(p.x)
        if len(ours.get_weights()) > 5:
            new = [w + 0.125 * k for k, w in enumerate(ours.get_weights()[:-5], 1)]
            ours.set_weights([*new, *ours.get_weights()[-5:]])
            theirs.set_weights([*new, *theirs.get_weights()[-5:]])
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            expected = theirs(x, training=True)
        np.testing.assert_allclose(ours(p.x, training=True), expected.numpy(), rtol=1e-4, atol=1e-5)
        dx, *gradients = tape.gradient(expected, [x, *theirs.trainable_variables], tensorflow.constant(p.dy))
        np.testing.assert_allclose(ours.backward(p.dy), dx.numpy(), rtol=1e-3, atol=1e-5)
        found = [gradient for gradient in (ours.dgamma, ours.dbeta) if gradient is not None]
        for one, other in zip(found, gradients, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)
        for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours(p.x), theirs(x, training=False).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clipping", CLIPPINGS, ids=str)
def test_the_equations(clipping):
    bounds = {name: bound for name, bound in (clipping or {}).items() if bound is not None}
    layer = BatchNormalization(1, renorm_clipping=clipping, dtype="float64", **options())
    layer.build((None, 4, None))
    for p in batches(4):
        before = {name: getattr(layer, name).astype(oracle.WIDE) for name in STATISTICS}
        layer.gamma[:], layer.beta[:] = p.gamma, p.beta
        y = layer(p.x, training=True)
        exact = oracle.batch_norm(p.x, None, None, 1, EPSILON)
        mean, stddev = exact.mean.ravel(), np.sqrt(exact.var.ravel() + oracle.WIDE(EPSILON))
        spread = np.maximum(before["renorm_stddev"], np.sqrt(oracle.WIDE(EPSILON)))
        r = np.clip(stddev / spread, bounds.get("rmin", 0), bounds.get("rmax", np.inf))
        d = np.clip((mean - before["renorm_mean"]) / spread, -bounds.get("dmax", np.inf), bounds.get("dmax", np.inf))
        r, d, gamma, beta = (oracle.along(f, p.x.shape, 1) for f in (r, d, p.gamma, p.beta))
        np.testing.assert_allclose(y, (gamma * (exact.x_hat * r + d) + beta).astype(float), rtol=1e-5, atol=1e-5)

        exact = oracle.backward(p.dy, p.x, mean, exact.var.ravel(), (gamma * r).ravel(), 1, EPSILON)
        np.testing.assert_allclose(layer.backward(p.dy), exact.dx.astype(float), rtol=1e-4, atol=1e-5)
        dgamma = (p.dy * (exact.forward.x_hat * r + d)).sum(axis=(0, 2))
        np.testing.assert_allclose(layer.dgamma, dgamma.astype(float), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.dbeta, p.dy.sum(axis=(0, 2)), rtol=1e-5, atol=1e-5)

        after = {
            "moving_mean": oracle.update_moving(before["moving_mean"], mean, MOMENTUM),
            "moving_stddev": oracle.update_moving(before["moving_stddev"], stddev, MOMENTUM),
            "renorm_mean": oracle.update_moving(before["renorm_mean"], mean, RENORM_MOMENTUM),
            "renorm_stddev": oracle.update_moving(before["renorm_stddev"], stddev, RENORM_MOMENTUM),
        }
        after["moving_variance"] = np.maximum(after["moving_stddev"] ** 2 - oracle.WIDE(EPSILON), 0)
        for name, expected in after.items():
            np.testing.assert_allclose(getattr(layer, name), expected.astype(float), rtol=1e-7, err_msg=name)


def test_with_the_batchs_own_statistics_it_is_batch_normalization():
    """r = 1 and d = 0 where the averages are the batch's."""
    p = problem((9, 4, 5), 1)
    plain = BatchNormalization(1, epsilon=EPSILON)
    layer = BatchNormalization(1, renorm_clipping={"rmin": 1.0, "rmax": 1.0, "dmax": 0.0}, **options())
    assert same_bits(layer(p.x, training=True), plain(p.x, training=True))
    assert same_bits(layer.backward(p.dy), plain.backward(p.dy))
    assert same_bits(layer.dgamma, plain.dgamma)


def test_frozen_and_inference_leave_all_statistics():
    p = problem((9, 4, 5), 1)
    layer = BatchNormalization(1, **options())
    layer(p.x, training=True)
    before = layer.get_weights()
    assert len(before) == 7
    layer(p.x)
    layer.trainable = False
    layer(p.x, training=True)
    layer.backward(p.dy)
    assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), before, strict=True))


@pytest.mark.parametrize("skip", [False, True])
def test_nonfinite_batches(skip):
    x = problem((9, 4, 5), 1).x
    x[3, 1, 2] = np.nan
    layer = BatchNormalization(1, skip_nonfinite=skip, **options())
    layer.build(x.shape)
    before = [getattr(layer, name).copy() for name in STATISTICS]
    y = layer(x, training=True)
    assert list(np.isnan(y).all(axis=(0, 2))) == [False, True, False, False]
    for name, start in zip(STATISTICS, before, strict=True):
        moved = getattr(layer, name)
        assert moved[1] == start[1] if skip else np.isnan(moved[1])
        assert np.isfinite(moved[[0, 2, 3]]).all()
        assert (moved[[0, 2, 3]] != start[[0, 2, 3]]).all()


@pytest.mark.parametrize("axis", [(), (1, 2), -1], ids=str)
def test_degenerate_and_other_axes(axis):
    layer = BatchNormalization(axis, **options(epsilon=0.0))
    y = layer(np.ones((3, 2, 2)), training=True)
    assert np.isfinite(y).all()
    assert np.isfinite(layer.backward(np.ones((3, 2, 2)))).all()
    before = layer.get_weights()
    layer(np.ones((0, 2, 2)), training=True)
    assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), before, strict=True))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"renorm": 1}, TypeError, "renorm"),
        ({"renorm_momentum": 1.5}, ValueError, "renorm_momentum"),
        ({"renorm_clipping": [1.0]}, TypeError, "renorm_clipping"),
        ({"renorm_clipping": {"max": 1.0}}, ValueError, "renorm_clipping.*rmin, rmax, dmax.*max"),
        ({"renorm_clipping": {"rmax": "1"}}, TypeError, "rmax"),
        ({"renorm_clipping": {"rmax": 1.0, "rmin": 2.0}}, ValueError, "rmin <= rmax"),
        ({"renorm_clipping": {"dmax": -1.0}}, ValueError, "dmax"),
        ({"renorm_clipping": {"rmin": -1.0}}, ValueError, "rmin"),
        ({"renorm": True, "ddof": 1}, ValueError, "ddof"),
    ],
)
def test_bad_input(given, error, words):
    with pytest.raises(error, match=words):
        BatchNormalization(**given)
