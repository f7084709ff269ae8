"""Our layer and Keras's, trained side by side: the same weights after 20 steps, in each configuration."""

import keras
import numpy as np
import pytest

import bnnumba.keras

STEPS = 20
SHAPES = {"vector": (8, 3), "sequence": (6, 5, 4), "image": (4, 6, 5, 3), "volume": (2, 3, 4, 3, 5)}
NAMED = {
    **{f"{shape}, axis {axis}": (shape, {"axis": axis}) for shape in SHAPES for axis in (-1, 1)},
    "axis 2": ("image", {"axis": 2}),
    "no gamma": ("image", {"scale": False}),
    "no beta": ("image", {"center": False}),
    "neither": ("image", {"scale": False, "center": False}),
    "momentum 0": ("image", {"momentum": 0.0}),
    "momentum 0.8": ("vector", {"momentum": 0.8}),
    "epsilon 1e-7": ("image", {"epsilon": 1e-7}),
    "epsilon 0.1": ("sequence", {"epsilon": 0.1, "axis": 1}),
    **{
        f"moving {mean} and {var}": (
            "image",
            {"momentum": 0, "moving_mean_initializer": mean, "moving_variance_initializer": var},
        )
        for mean in ("zeros", "ones")
        for var in ("zeros", "ones")
    },
    "gamma and beta drawn": ("image", {"gamma_initializer": "uniform", "beta_initializer": "uniform"}),
    "regularizers": ("image", {"beta_regularizer": "l2", "gamma_regularizer": "l2"}),
    "constraints": ("image", {"beta_constraint": "non_neg", "gamma_constraint": "max_norm"}),
    "frozen": ("image", {"trainable": False}),
    "renorm": ("vector", {"renorm": True}),
    "renorm, image": ("image", {"renorm": True, "renorm_momentum": 0.8}),
    "renorm, axis 1": ("image", {"renorm": True, "axis": 1, "momentum": 0.9}),
    "renorm, clipped": (
        "image",
        {"renorm": True, "renorm_clipping": {"rmax": 3.0, "rmin": 0.3, "dmax": 5.0}},
    ),
    "renorm, no gamma": ("image", {"renorm": True, "scale": False}),
    "renorm, no beta": ("image", {"renorm": True, "center": False}),
    "mixed float16": ("image", {"dtype": "mixed_float16"}),
    "mixed bfloat16": ("sequence", {"dtype": "mixed_bfloat16"}),
    "mixed float16, axis 1": ("image", {"dtype": "mixed_float16", "axis": 1}),
    "bfloat16": ("image", {"dtype": "bfloat16"}),
    "masked": ("masked", {}),
    "masked, momentum 0": ("masked", {"momentum": 0.0}),
    "masked, no gamma": ("masked", {"scale": False}),
    "masked, renorm": ("masked", {"renorm": True}),
    "relu": ("image", {}, "relu"),
    "relu6": ("image", {"axis": 1}, "relu6"),
    "relu, half": ("image", {"dtype": "mixed_float16"}, "relu"),
    "relu, masked": ("masked", {}, "relu"),
    "relu, renorm": ("image", {"renorm": True}, "relu"),
}
# Of data that is rounded to half precision, the last bit of a result may differ, and so what is learnt of it.
HALF = {"mixed_float16": 2e-3, "mixed_bfloat16": 2e-2, "bfloat16": 5e-2}


def trained(kind, shape, options, activation, ours):
    """The weights, and the results of training and inference, after the steps."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    masked = shape == "masked"
    x = rng.normal(3, 2, SHAPES["sequence" if masked else shape]).astype("float32")
    if masked:
        x[:, 3:] = 0.0
    target = rng.normal(size=x.shape).astype("float32")
    own = {"activation": activation} if ours and activation else {}
    behind = [] if ours or not activation else [keras.layers.Activation(activation, dtype=options.get("dtype"))]
    layers = [keras.layers.Masking()] * masked + [kind(**options, **own), *behind]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=keras.backend.backend() == "jax")
    for _ in range(STEPS):
        model.train_on_batch(x, target)
    results = [model(x, training=training) for training in (False, True)]
    return [*model.get_weights(), *(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in results)]


@pytest.mark.parametrize("name", NAMED)
def test_lockstep(name):
    shape, options, *activation = NAMED[name]
    given = shape, options, *(activation or [None])
    theirs = trained(keras.layers.BatchNormalization, *given, ours=False)
    ours = trained(bnnumba.keras.BatchNormalization, *given, ours=True)
    bound = HALF.get(options.get("dtype"), 1e-5)
    for mine, their in zip(ours, theirs, strict=True):
        expected = np.asarray(their, np.float32)
        error = np.abs(np.asarray(mine, np.float32) - expected).max()
        assert error <= bound * max(np.abs(expected).max(), 1e-3)


def test_there_are_enough_configurations():
    assert len(NAMED) >= 38
