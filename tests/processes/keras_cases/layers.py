"""The layer by itself: what it refuses, its configuration, and inputs of unusual kinds."""

import keras
import numpy as np
import pytest
from keras import ops

from bnnumba.activations import LeakyRelu
from bnnumba.keras import BatchNormalization

X = np.random.default_rng(0).normal(2, 3, (6, 4, 4, 3)).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def both(options, x, training, behind=None):
    """What our layer and Keras's with an activation behind it make of x; and their weights after that."""
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        keras.utils.set_random_seed(0)
        own = {"activation": behind} if kind is BatchNormalization else {}
        layer = kind(gamma_initializer="uniform", beta_initializer="uniform", **options, **own)
        found.append([layer(x, training=training), *layer.weights])
    return found


def test_it_is_keras_own_class_and_more():
    layer = BatchNormalization(axis=1, momentum=0.5)
    assert isinstance(layer, keras.layers.BatchNormalization)
    assert layer.get_config().keys() == keras.layers.BatchNormalization().get_config().keys()


def test_synchronized_is_refused():
    with pytest.raises(ValueError, match="synchronized"):
        BatchNormalization(synchronized=True)


@pytest.mark.parametrize("activation", ["tanh", 3])
def test_a_wrong_activation_is_refused(activation):
    with pytest.raises(ValueError, match="activation must be None, 'relu', 'relu6', LeakyRelu, got"):
        BatchNormalization(activation=activation)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", LeakyRelu(0.3)])
def test_the_configuration_makes_the_same_layer(activation):
    layer = BatchNormalization(axis=1, activation=activation)
    again = BatchNormalization.from_config(layer.get_config())
    assert again.activation == activation
    assert again.get_config() == layer.get_config()
    same = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(same) is BatchNormalization
    assert same.activation == activation


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("activation", "theirs"),
    [("relu", ops.relu), ("relu6", ops.relu6), (LeakyRelu(0.3), lambda y: ops.leaky_relu(y, 0.3))],
)
def test_activations(activation, theirs, training):
    ours, expected = both({"axis": 1}, X, training, activation)
    np.testing.assert_allclose(array(ours[0]), array(theirs(expected[0])), atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axis", [-1, 0, 1, 2, -2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
def test_axes_and_dtypes(axis, dtype, training):
    ours, expected = both({"axis": axis}, ops.convert_to_tensor(X, dtype=dtype), training)
    for mine, their in zip(ours, expected, strict=True):
        assert keras.backend.standardize_dtype(mine.dtype) == keras.backend.standardize_dtype(their.dtype)
        np.testing.assert_allclose(array(mine), array(their), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_dtype_policies(policy):
    ours, expected = both({"dtype": policy}, X, training=True)
    for mine, their in zip(ours, expected, strict=True):
        assert keras.backend.standardize_dtype(mine.dtype) == keras.backend.standardize_dtype(their.dtype)
        np.testing.assert_allclose(array(mine), array(their), rtol=1e-2, atol=1e-2)


def test_large_values_of_half_precision_do_not_overflow():
    x = (60000 * np.sign(X)).astype("float16")
    layer = BatchNormalization(dtype="mixed_float16")
    assert np.isfinite(array(layer(x, training=True))).all()
    assert np.isfinite(array(layer.moving_variance)).all()


def test_an_empty_batch_leaves_the_moving_statistics():
    layer = BatchNormalization()
    layer.build((None, 3))
    assert layer(np.zeros((0, 3), "float32"), training=True).shape == (0, 3)
    assert layer(np.zeros((0, 3), "float32")).shape == (0, 3)
    np.testing.assert_array_equal(array(layer.moving_mean), np.zeros(3))
    np.testing.assert_array_equal(array(layer.moving_variance), np.ones(3))


def test_a_mask_changes_the_statistics_only():
    mask = np.zeros((6, 4, 4), bool)
    mask[:3] = True
    layer = BatchNormalization(momentum=0.0)
    layer(X, training=True, mask=mask)
    np.testing.assert_allclose(array(layer.moving_mean), X[:3].mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(array(layer.moving_variance), X[:3].var((0, 1, 2)), rtol=1e-5)


def test_a_wrong_number_of_features_is_refused():
    layer = BatchNormalization()
    layer(X)
    with pytest.raises(ValueError, match="axis -1"):
        layer(X[..., :2])
