"""Folded weights: the linear layer alone gives what it and the normalization gave together."""

import copy
import re

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization, fold_into_conv, fold_into_dense
from tests.tools.problems import LAYOUTS, same_bits

INPUTS, OUTPUTS = 5, 3
DTYPES = {np.float32: 2e-6, np.float64: 1e-14}  # and how far the roundings of ten operations of size 1 may lead
LAYERS = {
    "plain": {},
    "without gamma": {"scale": False},
    "without beta": {"center": False},
    "without both": {"scale": False, "center": False},
    "renorm": {"renorm": True},
    "float64": {"dtype": "float64"},
    "no epsilon": {"epsilon": 0.0},
}


def layer_of(**options):
    """A layer with weights as after a training."""
    rng = np.random.default_rng(0)
    layer = BatchNormalization(**options)
    layer.build((None, OUTPUTS))
    layer.set_weights([rng.uniform(0.5, 2.0, OUTPUTS) for _ in layer.get_weights()])
    return layer


def linear(shape, dtype):
    rng = np.random.default_rng(1)
    return rng.normal(size=shape).astype(dtype), rng.normal(size=OUTPUTS).astype(dtype)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_dense(options, dtype, with_bias):
    layer = layer_of(**options)
    weights, bias = linear((INPUTS, OUTPUTS), dtype)
    bias = bias if with_bias else None
    a = np.random.default_rng(2).normal(size=(7, INPUTS))
    expected = layer(a @ weights.astype(float) + (0 if bias is None else bias))
    folded, shift = fold_into_dense(weights, bias, layer)
    assert (folded.shape, shift.shape) == (weights.shape, (OUTPUTS,))
    assert folded.dtype == shift.dtype == dtype
    np.testing.assert_allclose(a @ folded.astype(float) + shift, expected, rtol=0, atol=10 * DTYPES[dtype])


def convolved(data, weights, output_axis):
    """A convolution over two axes without padding, by its definition: sum of data * weights at each place."""
    kernel = np.moveaxis(weights.astype(float), output_axis, -1)  # (inputs, rows, columns, outputs)
    _, rows, columns, _ = kernel.shape
    result = np.zeros((data.shape[0], data.shape[2] - rows + 1, data.shape[3] - columns + 1, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            part = data[:, :, i : i + result.shape[1], j : j + result.shape[2]]
            result += np.einsum("nirc,io->nrco", part, kernel[:, i, j])
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output_axis", [0, 1, 3, -1, -4, np.int64(2)])
def test_conv(output_axis, dtype):
    layer = layer_of()
    shape = [2, 3, 2]
    shape.insert(output_axis % 4, OUTPUTS)
    weights, bias = linear(shape, dtype)
    data = np.random.default_rng(2).normal(size=(2, 2, 6, 6))
    folded, shift = fold_into_conv(weights, bias, layer, output_axis)
    assert (folded.shape, folded.dtype) == (weights.shape, dtype)
    expected = layer(convolved(data, weights, output_axis) + bias)
    np.testing.assert_allclose(convolved(data, folded, output_axis) + shift, expected, atol=30 * DTYPES[dtype])


def test_the_real_convolution():
    """Beside PyTorch's own folding."""
    torch = pytest.importorskip("torch")
    conv, norm = torch.nn.Conv2d(4, OUTPUTS, 3).double(), torch.nn.BatchNorm2d(OUTPUTS).double()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 2.0)
    expected = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval())
    layer = BatchNormalization.from_torch(norm)
    folded, shift = fold_into_conv(conv.weight.detach().numpy(), conv.bias.detach().numpy(), layer, 0)
    np.testing.assert_allclose(folded, expected.weight.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(shift, expected.bias.detach().numpy(), rtol=1e-13)


def torch_layers(torch):
    """Of every class, with groups where there are some, and as many inputs as outputs, so that axes can be mixed up."""
    nn = torch.nn
    for n in (1, 2, 3):
        conv, transposed = getattr(nn, f"Conv{n}d"), getattr(nn, f"ConvTranspose{n}d")
        for groups in (1, 2, 4):
            yield conv(4, 4, 3, groups=groups, padding=1), n
            yield transposed(4, 4, 3, groups=groups, bias=False), n
        yield conv(4, 8, 3, groups=4), n
        yield transposed(4, 8, 2, groups=2, stride=2), n
    yield nn.Linear(4, 4), 0


def test_every_layer_of_pytorch():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    for module, axes in torch_layers(torch):
        x = torch.randn((2, 4, *(5,) * axes), generator=generator, dtype=torch.float64)
        y = module.double()(x)
        norm = getattr(torch.nn, f"BatchNorm{max(axes, 1)}d")(y.shape[1]).double().eval()
        with torch.no_grad():
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 2.0, generator=generator)
            expected = norm(y)
            for given in (norm, BatchNormalization.from_torch(norm)):
                weights, bias = (torch.from_numpy(array) for array in bnnumba.fold(module, given))
                assert weights.shape == module.weight.shape
                folded = copy.deepcopy(module)
                folded.load_state_dict(
                    {"weight": weights} if module.bias is None else {"weight": weights, "bias": bias}
                )
                offset = bias.reshape(-1, *(1,) * axes) if module.bias is None else 0
                torch.testing.assert_close(folded(x) + offset, expected)


def keras_layers(layers):
    for n in (1, 2, 3):
        yield getattr(layers, f"Conv{n}D")(4, 3, padding="same"), n
        yield getattr(layers, f"Conv{n}D")(4, 3, groups=1, use_bias=False), n
        yield getattr(layers, f"Conv{n}DTranspose")(4, 3, strides=2), n
    for n in (1, 2):
        yield getattr(layers, f"DepthwiseConv{n}D")(3, depth_multiplier=1), n
        yield getattr(layers, f"DepthwiseConv{n}D")(3, depth_multiplier=2), n
        yield getattr(layers, f"SeparableConv{n}D")(4, 3, depth_multiplier=2), n
    yield layers.Dense(4), 0


def test_every_layer_of_keras():
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    for layer, axes in keras_layers(keras.layers):
        x = rng.normal(size=(2, *(6,) * axes, 4)).astype(np.float32)
        norm = keras.layers.BatchNormalization()
        norm(layer(x))
        norm.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in norm.get_weights()])
        expected = np.asarray(norm(layer(x)))
        weights, bias = bnnumba.fold(layer, norm)
        (layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel).assign(weights)
        if layer.use_bias:
            layer.bias.assign(bias)
            bias = 0
        np.testing.assert_allclose(np.asarray(layer(x)) + bias, expected, rtol=1e-4, atol=1e-4)


def test_layers_that_fold_does_not_know():
    torch = pytest.importorskip("torch")

    class Padded(torch.nn.Conv2d):
        """What computes something else, perhaps."""

    for other in (Padded(3, OUTPUTS, 1), torch.nn.Bilinear(2, 2, OUTPUTS), "Linear", None):
        with pytest.raises(TypeError, match="before must be a layer of PyTorch or Keras"):
            bnnumba.fold(other, layer_of())
    with pytest.raises(TypeError, match="source must be a BatchNorm module"):
        bnnumba.fold(torch.nn.Linear(4, OUTPUTS), torch.nn.Linear(4, OUTPUTS))
    keras = pytest.importorskip("keras")
    rectified = keras.layers.Dense(OUTPUTS, activation="relu")
    rectified.build((None, 4))
    with pytest.raises(ValueError, match=r"before must have no activation.*got relu"):
        bnnumba.fold(rectified, layer_of())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    layer = layer_of()
    weights, bias = linear((INPUTS, OUTPUTS), np.float32)
    expected = fold_into_dense(weights, bias, layer)
    came = LAYOUTS[layout](weights)
    before = came.copy()
    results = fold_into_dense(came, LAYOUTS[layout](bias), layer)
    assert all(same_bits(a, b) and a.dtype.isnative for a, b in zip(results, expected, strict=True))
    np.testing.assert_array_equal(came, before)


def test_a_matrix_is_multiplied_as_an_array():
    weights, bias = linear((OUTPUTS, OUTPUTS), np.float64)
    results = fold_into_dense(weights.view(np.matrix), bias, layer_of())
    expected = fold_into_dense(weights, bias, layer_of())
    assert all(type(a) is np.ndarray and same_bits(a, b) for a, b in zip(results, expected, strict=True))


def test_a_variance_of_zero_leaves_beta():
    layer = layer_of(epsilon=0.0)
    layer.moving_variance[1] = 0.0
    folded, shift = fold_into_dense(*linear((INPUTS, OUTPUTS), np.float64), layer)
    assert not folded[:, 1].any()
    assert shift[1] == layer.beta[1]
    assert np.isfinite(folded).all()


def test_no_inputs_and_no_outputs():
    layer = BatchNormalization()
    layer.build((None, 0))
    folded, shift = fold_into_dense(np.ones((4, 0), np.float32), None, layer)
    assert (folded.shape, shift.shape) == ((4, 0), (0,))
    assert fold_into_dense(np.ones((0, OUTPUTS), np.float32), None, layer_of())[0].shape == (0, OUTPUTS)


W = np.ones((INPUTS, OUTPUTS), np.float32)
BOTH = {
    "weights": [
        (W.tolist(), TypeError, "array.*list"), (None, TypeError, "array.*None"),
        (W.astype(int), TypeError, "float32, float64.*int64"), (W[0], ValueError, r"\(3,\)"),
        (np.ones((OUTPUTS, INPUTS)), ValueError, "3 outputs, as the layer has features, got 5"),
    ],
    "bias": [
        ([1.0] * OUTPUTS, TypeError, "array.*list"), (0.0, TypeError, "array.*float"),
        (np.ones(OUTPUTS, int), TypeError, "int64"), (np.ones(2), ValueError, r"\(3,\), got \(2,\)"),
        (np.ones((1, OUTPUTS)), ValueError, r"\(3,\), got \(1, 3\)"), (np.array(1.0), TypeError, "0-d"),
    ],
    "layer": [
        (None, TypeError, "BatchNormalization, got NoneType"), (W, TypeError, "BatchNormalization, got ndarray"),
        (BatchNormalization(), ValueError, "built first"),
    ],
}  # fmt: skip
DENSE = {"weights": [(np.ones((1, INPUTS, OUTPUTS)), ValueError, r"\(inputs, outputs\), got \(1, 5, 3\)")]}
CONV = {
    "output_axis": [
        *((value, TypeError, f"int.*got.*{re.escape(repr(value))}") for value in (1.0, None, "1", True)),
        ((1, 1), ValueError, "repeat"), ((0, 1), ValueError, "3 outputs.*got 15"),
        (2, np.exceptions.AxisError, "2 is out of bounds for an array with 2 axes"),
        (-3, np.exceptions.AxisError, "-3 is out of bounds"), (0, ValueError, "3 outputs.*got 5"),
    ],
    "groups": [
        (0, ValueError, ">= 1"), (2, ValueError, "divide the 5 inputs, got 2"), (5, ValueError, "3 outputs.*got 15"),
        (1.0, TypeError, "int"),
    ],
}  # fmt: skip
CASES = [
    pytest.param(function, name, *row, id=f"{function.__name__}-{name}-{i}")
    for function, tables in ((fold_into_dense, (BOTH, DENSE)), (fold_into_conv, (BOTH, CONV)))
    for table in tables
    for name, rows in table.items()
    for i, row in enumerate(rows)
]


@pytest.mark.parametrize(("function", "name", "given", "error", "words"), CASES)
def test_refused(function, name, given, error, words):
    arguments = {"weights": W, "bias": None, "layer": layer_of()}
    if function is fold_into_conv:
        arguments["output_axis"] = 1
    function(**arguments)
    with pytest.raises(error, match=words) as caught:
        function(**{**arguments, name: given})
    assert re.search("weights|bias|layer|output_axis|groups", str(caught.value))


@pytest.mark.parametrize(("axis", "shape"), [((1, 2), (None, 3, 4)), ((), (3,))])
def test_layers_without_exactly_one_feature_axis(axis, shape):
    layer = bnnumba.BatchNormalization(axis)
    layer.build(shape)
    with pytest.raises(ValueError, match="one feature axis, got the feature shape"):
        fold_into_dense(W, None, layer)
