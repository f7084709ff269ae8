"""TensorFlow alone: derivatives, graphs, addresses, errors and XLA."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnnumba.activations import LeakyRelu
from bnnumba.keras import BatchNormalization, convert
from bnnumba.keras import tensorflow as operations

X = np.random.default_rng(0).normal(1, 2, (5, 4, 3))
DY = np.random.default_rng(1).normal(size=X.shape)


def layer_of(**options):
    keras.utils.set_random_seed(0)
    layer = BatchNormalization(gamma_initializer="ones", dtype="float64", **options)
    layer.build(X.shape)
    layer.gamma.assign([0.5, 1.5, -1.0])
    layer.beta.assign([0.1, -0.2, 0.3])
    return layer


def first(layer, x, dy, gamma, training):
    """dx, dgamma and dbeta, as functions of x, dy and gamma."""
    layer.gamma.assign(gamma)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
    return tape.gradient(y, [x, layer.gamma.value, layer.beta.value], dy)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "relu6", LeakyRelu(0.3)])
def test_second_derivatives_are_those_of_the_first(activation, training, graph):
    layer = layer_of(activation=activation)
    x, dy, gamma = tf.constant(X), tf.constant(DY), tf.constant([0.5, 1.5, -1.0], tf.float64)
    weights = [tf.constant(np.random.default_rng(2).normal(size=shape)) for shape in (X.shape, 3, 3)]

    def second(x, dy):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, dy])
            value = tf.add_n(
                [tf.reduce_sum(w * g) for w, g in zip(weights, first(layer, x, dy, gamma, training), strict=True)]
            )
        return [tape.gradient(value, each) for each in (x, dy)]

    found = (tf.function(second) if graph else second)(x, dy)
    step, rng = 1e-6, np.random.default_rng(3)
    for which, gradient in enumerate(found):
        direction = rng.normal(size=X.shape)
        sides = []
        for sign in (1, -1):
            moved = [X, DY]
            moved[which] = moved[which] + sign * step * direction
            results = first(layer, *(tf.constant(each) for each in moved), gamma, training)
            sides.append(sum(float(tf.reduce_sum(w * g)) for w, g in zip(weights, results, strict=True)))
        assert np.sum(gradient * direction) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-4)


def test_gradients_of_given_statistics():
    given = [tf.constant(each, tf.float64) for each in ([0.1, 0.2, 0.3], [1.0, 2.0, 0.5], [0.5, 1.5, -1.0], [1, 2, 3])]
    x = tf.constant(X)
    results = []
    for ours in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([x, *given])
            mean, var, gamma, beta = given
            if ours:
                y = operations.normalize(x, mean, var, gamma, beta, 2, 1e-3, None)
            else:
                y = gamma * (x - mean) / tf.sqrt(var + 1e-3) + beta
        results.append(tape.gradient(y, [x, *given], tf.constant(DY)))
    for mine, their in zip(*results, strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-10, atol=1e-10)


def test_a_persistent_tape_and_a_function_within_another():
    layer, x = layer_of(), tf.constant(X)
    inner = tf.function(lambda x: layer(x, training=True))
    outer = tf.function(lambda x: inner(x) * 2)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = outer(x)
    once, twice = tape.gradient(y, x, tf.constant(DY)), tape.gradient(y, x, tf.constant(DY))
    np.testing.assert_array_equal(once, twice)
    np.testing.assert_allclose(once, 2 * first(layer, x, tf.constant(DY), layer.gamma.value, True)[0], rtol=1e-12)


def test_batches_of_any_size_in_one_trace():
    layer, traced = BatchNormalization(), []
    layer.build((None, None, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3])])
    def run(x):
        traced.append(None)
        y = layer(x, training=True)
        assert y.shape == [None, None, 3]
        return y

    for batch in (2, 5, 0):
        assert run(tf.ones([batch, 4, 3])).shape == [batch, 4, 3]
    assert len(traced) == 1


def test_the_gradient_takes_the_place_of_dy():
    layer = BatchNormalization()
    x = tf.random.normal((64, 64))

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        dy = tf.sin(y)
        kept = tf.identity(dy) + 0.0
        return kept, tape.gradient(y, x, dy), dy

    kept, dx, dy = run(x)
    np.testing.assert_array_equal(kept, dy)  # which is wanted elsewhere, and so is left as it was
    assert not np.allclose(dx, dy)


def test_a_mistake_inside_is_an_error_of_tensorflow():
    settings = [tf.ones((2, 3)), tf.zeros(4), tf.ones(4), None, None, 1, 1e-3, None]
    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes do not go together"):
        operations.normalize(*settings)


def test_xla_falls_back_and_says_so(caplog):
    layer = layer_of()
    expected = layer(tf.constant(X), training=False)
    with caplog.at_level(logging.WARNING, "bnnumba.keras"):
        compiled = tf.function(lambda x: layer(x, training=False), jit_compile=True)(tf.constant(X))
    np.testing.assert_allclose(compiled, expected, rtol=1e-10)
    assert "computed by Keras's own layer: XLA" in caplog.text


def test_a_converted_model_under_jit_compile():
    keras.utils.set_random_seed(0)
    model = convert(keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.ReLU()]))
    model.compile("sgd", "mse", jit_compile=True)
    assert np.isfinite(model.train_on_batch(X[:, 0].astype("float32"), DY[:, 0].astype("float32")))


def test_training_may_be_a_tensor_in_eager_code():
    layer = layer_of()
    y = layer(tf.constant(X), training=tf.constant(True))
    np.testing.assert_allclose(np.mean(y, (0, 1)), layer.beta.numpy(), atol=1e-10)
