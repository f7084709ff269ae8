"""`convert`: every kind of model, files, and edits of a model that has a fused pair."""

import logging

import keras
import numpy as np
import pytest
from keras import layers

import bnnumba.keras
from bnnumba.keras import BatchNormalization, convert, fusing

X = np.random.default_rng(0).normal(1, 2, (12, 8, 8, 3)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 4, 12)


def functional():
    inputs = x = keras.Input((8, 8, 3))
    for activation in (layers.ReLU(), layers.ReLU(6.0), layers.Activation("relu"), layers.LeakyReLU(0.2)):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = activation(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def sequential():
    body = [layers.Conv2D(4, 3), layers.BatchNormalization(axis=1), layers.ReLU()]
    return keras.Sequential([keras.Input((8, 8, 3)), *body, layers.Flatten(), layers.Dense(4)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.inner = layers.Conv2D(4, 3), layers.BatchNormalization()
        self.parts = [layers.BatchNormalization(), layers.Flatten(), layers.Dense(4)]

    def call(self, x, training=None):
        x = keras.ops.relu(self.inner(self.conv(x), training=training))
        for part in self.parts:
            x = part(x, training=training) if isinstance(part, layers.BatchNormalization) else part(x)
        return x


def nested():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, functional()(inputs))


MODELS = [functional, sequential, Subclassed, nested]


def made(make):
    keras.utils.set_random_seed(0)
    model = make()
    model(X[:1])
    return model


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.02), loss)
    return model


def fit(model, steps=5):
    for _ in range(steps):
        model.train_on_batch(X, LABELS)
    return model


def kinds(model):
    return {type(layer) for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)}


def array(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def assert_alike(model, other, bound=1e-3):
    for mine, their in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.linalg.norm(mine - their) <= bound * max(np.linalg.norm(their), 1e-2)


@pytest.fixture
def fused(monkeypatch):
    """The activations that layers did besides their own."""
    found = []

    def watched(layer):
        activation = behind(layer)
        found.extend([activation] * bool(activation))
        return activation

    behind = fusing.activation_behind
    monkeypatch.setattr("bnnumba.keras.layer.activation_behind", watched)
    return found


@pytest.mark.parametrize("make", MODELS)
def test_a_model_converted_before_compile_learns_the_same(make):
    ours = fit(compiled(convert(made(make))))
    assert kinds(ours) == {BatchNormalization}
    assert_alike(ours, fit(compiled(made(make))))


@pytest.mark.parametrize("make", MODELS)
def test_a_model_converted_after_steps_goes_on_the_same(make):
    ours, theirs = fit(compiled(made(make)), 2), fit(compiled(made(make)), 2)
    assert convert(ours) is ours
    assert_alike(fit(ours), fit(theirs))
    np.testing.assert_allclose(ours.predict(X, verbose=0), theirs.predict(X, verbose=0), atol=1e-3)


@pytest.mark.parametrize("make", MODELS)
def test_back(make):
    model = made(make)
    before = model.get_config() if make is not Subclassed else None
    convert(convert(model), back=True)
    assert kinds(model) == {layers.BatchNormalization}
    assert not [layer for layer in model._flatten_layers() if fusing.RUN in vars(layer)]
    if before is not None:
        assert model.get_config() == before


@pytest.mark.parametrize("make", [functional, sequential, nested])
def test_files(make, tmp_path):
    model = fit(compiled(convert(made(make))))
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras")
    assert kinds(again) == {BatchNormalization}
    np.testing.assert_allclose(again.predict(X, verbose=0), expected, atol=1e-5)
    convert(again, back=True).save(tmp_path / "theirs.keras")
    theirs = keras.models.load_model(tmp_path / "theirs.keras")
    assert kinds(theirs) == {layers.BatchNormalization}
    np.testing.assert_allclose(theirs.predict(X, verbose=0), expected, atol=1e-5)
    model.save_weights(tmp_path / "own.weights.h5")
    other = made(make)
    other.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_allclose(other.predict(X, verbose=0), expected, atol=1e-5)


def test_activations_behind_are_fused(fused):
    convert(made(functional))(X, training=True)
    assert set(fused) == {"relu", "relu6", "LeakyRelu(0.2)"}


def test_a_sequential_fuses_and_changes(fused):
    model, theirs = convert(made(sequential)), made(sequential)
    model(X)
    assert set(fused) == {"relu"}
    for each in (model, theirs):
        each.pop()
        each.pop()
        each.pop()  # the ReLU
    np.testing.assert_allclose(array(model(X)), array(theirs(X)), atol=1e-5)


def pair(**options):
    """Inputs, y of a layer, and what an activation layer makes of it."""
    inputs = keras.Input((8, 8, 3))
    y = layers.BatchNormalization(beta_initializer="uniform", **options)(inputs)
    return inputs, y, layers.ReLU()(y)


def two_results():
    inputs, y, z = pair()
    return keras.Model(inputs, [y, z])


def used_twice():
    inputs, y, z = pair()
    return keras.Model(inputs, layers.Add()([y, z]))


def shared_layer():
    inputs, norm = keras.Input((8, 8, 3)), layers.BatchNormalization(beta_initializer="uniform")
    return keras.Model(inputs, layers.Add()([layers.ReLU()(norm(inputs)), norm(inputs)]))


def shared_activation():
    (inputs, y, _), relu = pair(), layers.ReLU()
    return keras.Model(inputs, layers.Add()([relu(y), relu(inputs)]))


def regularized():
    inputs, _, z = pair(activity_regularizer=keras.regularizers.L2(0.1))
    return keras.Model(inputs, z)


def another_dtype():
    inputs, _, z = pair(dtype="mixed_float16")
    return keras.Model(inputs, z)


@pytest.mark.parametrize("make", [two_results, used_twice, shared_layer, shared_activation, regularized, another_dtype])
def test_what_is_no_pair_is_not_fused(make, fused):
    found = []
    for change in (convert, lambda model: model):
        keras.utils.set_random_seed(0)
        model = change(make())
        results = model(X, training=True)
        results = [*(results if isinstance(results, list) else [results]), *model.losses]
        found.append([array(each) for each in results])
    assert not fused
    for mine, their in zip(*found, strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-3, atol=1e-3)


def test_a_fused_pair_follows_its_edits(fused):
    inputs, y, z = pair()
    model = convert(keras.Model(inputs, z))
    norm, relu = model.layers[1:]
    assert array(model(X)).min() == 0
    head = keras.Model(inputs, y)  # ends before the ReLU
    assert array(head(X)).min() < 0
    relu.max_value = 0.5
    assert array(model(X)).max() == 0.5
    relu.max_value = 6
    model(X)
    assert fused == ["relu", "relu6"]
    relu.call = lambda x: x - 100
    assert array(model(X)).max() < 0
    norm.activation = "relu6"
    del relu.call
    assert 0 <= array(model(X)).min() <= array(model(X)).max() <= 6
    assert fused == ["relu", "relu6"]


def test_what_was_made_with_an_activation_stays(caplog):
    caplog.set_level(logging.INFO, "bnnumba.keras")
    model = keras.Sequential([keras.Input((3,)), BatchNormalization(activation="relu")])
    convert(model, back=True)
    assert kinds(model) == {BatchNormalization}
    assert "left as it is: it has an activation of its own" in caplog.text


def test_others_stay(caplog):
    class Own(layers.BatchNormalization):
        pass

    caplog.set_level(logging.INFO, "bnnumba.keras")
    parts = [Own()]
    if keras.backend.backend() == "tensorflow":
        parts.append(layers.BatchNormalization(synchronized=True))
    model = convert(keras.Sequential([keras.Input((3,)), *parts]))
    assert kinds(model) == {type(part) for part in parts}


def test_a_layer_is_converted_too():
    layer = layers.BatchNormalization()
    assert type(convert(layer)) is BatchNormalization


def test_wrong_arguments():
    with pytest.raises(TypeError, match="model must be of class Layer, got list"):
        convert([1])
    with pytest.raises(TypeError, match="back must be True or False, got int 1"):
        bnnumba.keras.convert(made(sequential), back=1)
