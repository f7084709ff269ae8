"""Layers of PyTorch, Keras and ONNX become ours: the same outputs, and the same moving averages when both train on.

Where the libraries are installed they are asked themselves; stand-ins with their attributes test the rest without them.
"""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnnumba import BatchNormalization
from tests.tools.problems import same_bits
from tests.tools.subprocesses import run_python

STEPS = 10
# float64: roundings of sums in another order; float32: of standardized data
NEAR = {"float64": {"rtol": 1e-9, "atol": 1e-9}, "float32": {"rtol": 1e-5, "atol": 1e-5}}


def batches(shape, dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(STEPS)]


def check_near(ours, theirs, dtype):
    np.testing.assert_allclose(ours, np.asarray(theirs), **NEAR[dtype])


def test_the_core_imports_none_of_them():
    others = {"torch", "keras", "tensorflow", "onnx", "jax", "sklearn", "dask", "distributed", "mpi4py"}
    code = f"import bnnumba, sys; print(sorted({others} & set(sys.modules)))"
    assert run_python("-c", code).strip() == "[]"


# ---- PyTorch

TORCH_CASES = {
    "1d": ("BatchNorm1d", (16, 3), {}),
    "1d with lengths": ("BatchNorm1d", (8, 3, 5), {"momentum": 0.25}),
    "2d": ("BatchNorm2d", (4, 3, 4, 5), {"eps": 0.1}),
    "3d": ("BatchNorm3d", (2, 3, 2, 3, 4), {"momentum": 0.0}),
    "cumulative": ("BatchNorm2d", (4, 3, 4, 5), {"momentum": None}),
    "not affine": ("BatchNorm2d", (4, 3, 4, 5), {"affine": False, "momentum": 1.0}),
    "lazy, after its first call": ("LazyBatchNorm2d", (4, 3, 4, 5), {}),
    "synchronized": ("SyncBatchNorm", (4, 3, 4, 5), {}),
}


def torch_module(kind, shape, options, dtype="float64"):
    """A module that trained for three steps and whose weights are not those that it began with."""
    torch = pytest.importorskip("torch")
    size = () if kind.startswith("Lazy") else (shape[1],)
    module = getattr(torch.nn, kind)(*size, **options, dtype=getattr(torch, dtype))
    if kind != "SyncBatchNorm":  # which trains on GPUs only
        for x in batches(shape, dtype)[:3]:
            module(torch.from_numpy(x + 0.5))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(np.random.default_rng(1).uniform(0.5, 2.0, shape[1])))
    return module


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("case", TORCH_CASES)
def test_torch(case, dtype):
    torch = pytest.importorskip("torch")
    kind, shape, options = TORCH_CASES[case]
    module = torch_module(kind, shape, options, dtype)
    layer = BatchNormalization.from_torch(module)
    assert layer.dtype == dtype
    assert layer.trainable
    assert (layer.axis, layer.ddof) == (1, 1)
    assert layer.batches_seen == module.num_batches_tracked
    for x in batches(shape, dtype):
        if kind != "SyncBatchNorm":
            check_near(layer(x, training=True), module.train()(torch.from_numpy(x)).detach(), dtype)
        check_near(layer(x), module.eval()(torch.from_numpy(x)).detach(), dtype)
    check_near(layer.moving_mean, module.running_mean, dtype)
    check_near(layer.moving_variance, module.running_var, dtype)
    assert layer.batches_seen == module.num_batches_tracked


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("case", TORCH_CASES)
def test_torch_state_dicts_both_ways(case, dtype):
    """A state dict makes the layer that the module makes; and what the layer gives is what it came from."""
    torch = pytest.importorskip("torch")
    kind, shape, options = TORCH_CASES[case]
    module = torch_module(kind, shape, options, dtype)
    layer = BatchNormalization.from_torch(module)
    state = module.state_dict()
    own = {"epsilon": module.eps, "momentum": module.momentum}
    for source in (state, {name: tensor.numpy() for name, tensor in state.items()}):
        twin = BatchNormalization.from_torch(source, **own)
        assert twin.get_config() == layer.get_config()
        assert twin.batches_seen == layer.batches_seen
        for a, b in zip(twin.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    given = layer.to_torch_state()
    assert list(given) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(given[name], tensor.numpy(), strict=True)
    fresh = torch_module(kind, shape, options, dtype)
    fresh.load_state_dict({name: torch.from_numpy(array) for name, array in given.items()})
    x = batches(shape, dtype)[0]
    check_near(layer(x), fresh.eval()(torch.from_numpy(x)).detach(), dtype)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {}, {"scale": False, "center": False}])
def test_a_layer_of_ours_becomes_a_module(options):
    torch = pytest.importorskip("torch")
    layer = BatchNormalization(1, momentum=0.75, ddof=1, dtype="float64", **options)
    steps = batches((4, 3, 4, 5), "float64")
    for x in steps:
        layer(3 * x - 1, training=True)
    affine = layer.center or layer.scale
    module = torch.nn.BatchNorm2d(3, eps=layer.epsilon, momentum=0.25, affine=affine, dtype=torch.float64)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in layer.to_torch_state().items()})
    check_near(layer(steps[0]), module.eval()(torch.from_numpy(steps[0])).detach(), "float64")
    assert module.num_batches_tracked == STEPS
    layer(steps[0], training=True)
    module.train()(torch.from_numpy(steps[0]))
    check_near(layer.moving_variance, module.running_var, "float64")


def test_a_state_for_torch_is_new():
    layer = BatchNormalization(1, dtype="float64")
    layer.build((None, 3))
    for array in layer.to_torch_state().values():
        array[...] = 7
    assert all((weight != 7).all() for weight in layer.get_weights())
    assert layer.batches_seen == 0


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_torch_in_half_precision(half):
    torch = pytest.importorskip("torch")
    module = torch_module("BatchNorm1d", (16, 3), {}).to(getattr(torch, half))
    layer = BatchNormalization.from_torch(module)
    assert layer.dtype == np.float32
    np.testing.assert_array_equal(layer.gamma, module.weight.detach().float().numpy())
    np.testing.assert_array_equal(layer.moving_variance, module.running_var.double().numpy())


def test_torch_channels_last_and_without_bias():
    module = torch_module("BatchNorm1d", (16, 3), {"bias": False})
    layer = BatchNormalization.from_torch(module, axis=-1)
    assert layer.beta is None
    assert layer(np.ones((2, 4, 3), np.float32)).shape == (2, 4, 3)


def test_torch_modules_that_cannot_come():
    torch = pytest.importorskip("torch")
    for module, error, words in (
        (torch.nn.BatchNorm1d(3, track_running_stats=False), ValueError, "track_running_stats=False"),
        (torch.nn.LazyBatchNorm1d(), ValueError, "initialized"),
        (torch.nn.LazyBatchNorm1d(affine=False), ValueError, "initialized"),
        (torch.nn.InstanceNorm1d(3, track_running_stats=True), TypeError, "BatchNorm module.*InstanceNorm1d"),
        (torch.nn.LayerNorm(3), TypeError, "BatchNorm module.*LayerNorm"),
        (torch.ones(3), TypeError, "BatchNorm module.*Tensor"),
        (torch.nn.BatchNorm1d(3, momentum=1.5), ValueError, r"momentum.*\[0, 1\]"),
    ):
        with pytest.raises(error, match=words):
            BatchNormalization.from_torch(module)


# ---- what stands in for PyTorch


class Tensor:
    """As much of a tensor as is asked for, of gradients too; a NumPy array only by way of detach and cpu."""

    def __init__(self, array, steps=()):
        self.array, self.steps = array, steps

    def detach(self):
        return Tensor(self.array, (*self.steps, "detach"))

    def cpu(self):
        return Tensor(self.array, (*self.steps, "cpu"))

    def float(self):
        return Tensor(self.array.astype(np.float32), self.steps)

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    def element_size(self):
        return self.array.itemsize

    def __array__(self, dtype=None, copy=None):
        assert self.steps == ("detach", "cpu")
        return self.array


class FrozenBatchNorm2d:
    """Torchvision's: buffers, and no momentum."""

    def __init__(self):
        self.weight, self.bias = Tensor(np.array([2.0, 3.0])), Tensor(np.array([0.5, 0.25]))
        self.running_mean, self.running_var = Tensor(np.array([1.0, -1.0])), Tensor(np.array([4.0, 9.0]))
        self.eps = 0.5


class BatchNorm2d(FrozenBatchNorm2d):
    def __init__(self):
        super().__init__()
        self.momentum, self.num_batches_tracked = 0.25, Tensor(np.array(7))


def test_a_stand_in():
    layer = BatchNormalization.from_torch(BatchNorm2d())
    assert layer.get_config() == {
        **BatchNormalization().get_config(), "axis": 1, "epsilon": 0.5, "momentum": 0.75, "ddof": 1, "dtype": "float64",
    }  # fmt: skip
    assert [list(weight) for weight in layer.get_weights()] == [[2, 3], [0.5, 0.25], [1, -1], [4, 9]]
    assert (layer.trainable, layer.batches_seen) == (True, 7)


def test_a_frozen_module_is_not_trainable():
    layer = BatchNormalization.from_torch(FrozenBatchNorm2d())
    assert not layer.trainable
    x = np.full((3, 2, 1, 1), 5.0)
    np.testing.assert_allclose(layer(x, training=True)[0, :, 0, 0], [2 * 4 / 4.5**0.5 + 0.5, 3 * 6 / 9.5**0.5 + 0.25])
    assert list(layer.moving_mean) == [1, -1]


@pytest.mark.parametrize(
    ("momentum", "steps", "mean", "variance"),
    [
        (0.1, 1, 0.9 * 8 + 0.1 * 4, 0.9 * 16 + 0.1 * 8),  # of [2, 6]: mean 4, variance 4, and 8 by n - 1
        (None, 1, 0.8 * 8 + 0.2 * 4, 0.8 * 16 + 0.2 * 8),  # the fifth batch
        (0.0, 3, 8.0, 16.0),
        (1.0, 1, 4.0, 8.0),
    ],
)
def test_momentum_is_the_share_of_the_new_batch(momentum, steps, mean, variance):
    state = {"running_mean": np.array([8.0]), "running_var": np.array([16.0]), "num_batches_tracked": np.array(4)}
    layer = BatchNormalization.from_torch(state, momentum=momentum)
    for _ in range(steps):
        layer(np.array([[2.0], [6.0]]), training=True)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-15)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-15)


F = np.ones(3, np.float32)
GOOD_STATE = {"weight": F, "bias": F, "running_mean": F, "running_var": F, "num_batches_tracked": np.array(1)}
UNINITIALIZED = BatchNorm2d()
UNINITIALIZED.has_uninitialized_params = lambda: True
BAD_TORCH = [
    (None, {}, TypeError, "BatchNorm module of PyTorch or its state dict, got NoneType"),
    (np.ones(3), {}, TypeError, "BatchNorm module"),
    (BatchNormalization, {}, TypeError, "BatchNorm module"),
    (UNINITIALIZED, {}, ValueError, "initialized: call the module first"),
    (BatchNorm2d(), {"epsilon": 1e-3}, ValueError, r"epsilon must be left out.*0\.001"),
    (BatchNorm2d(), {"momentum": None}, ValueError, "momentum must be left out.*None"),
    (BatchNorm2d(), {"axis": "1"}, TypeError, "axis must be an int.*'1'"),
    ({}, {}, ValueError, "running_mean, running_var, and.*got none"),
    ({f"bn.{name}": array for name, array in GOOD_STATE.items()}, {}, ValueError, "without a prefix, got bn.weight"),
    ({**GOOD_STATE, 3: F}, {}, ValueError, "must have the keys.*, 3"),
    ({name: array for name, array in GOOD_STATE.items() if name != "running_var"}, {}, ValueError, "running_var"),
    ({**GOOD_STATE, "weight": F[:2]}, {}, ValueError, r"weight must have shape \(3,\), got \(2,\)"),
    ({**GOOD_STATE, "running_var": F[:2]}, {}, ValueError, r"running_var must have shape \(3,\)"),
    ({**GOOD_STATE, "running_mean": np.ones((3, 1))}, {}, ValueError, r"running_mean must have one axis.*\(3, 1\)"),
    ({**GOOD_STATE, "bias": [1.0, 1.0, 1.0]}, {}, TypeError, "bias must be a NumPy array, got list"),
    ({**GOOD_STATE, "bias": None}, {}, TypeError, "bias must be a NumPy array, got NoneType"),
    ({**GOOD_STATE, "bias": np.ones(3, int)}, {}, TypeError, "bias must be.*int64"),
    ({**GOOD_STATE, "bias": np.ma.ones(3)}, {}, TypeError, "bias must be.*MaskedArray"),
    *(({**GOOD_STATE, "num_batches_tracked": value}, {}, TypeError, "num_batches_tracked must be an int")
      for value in (1.0, np.ones(1, int), "1", None, True)),
    ({**GOOD_STATE, "num_batches_tracked": -1}, {}, ValueError, "num_batches_tracked must be >= 0, got -1"),
    *((GOOD_STATE, {"momentum": value}, error, "momentum must be")
      for value, error in ((1.01, ValueError), (np.nan, ValueError), ("0.1", TypeError))),
    (GOOD_STATE, {"epsilon": -1.0}, ValueError, "epsilon must be >= 0"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "options", "error", "words"), BAD_TORCH)
def test_torch_refused(source, options, error, words):
    with pytest.raises(error, match=words):
        BatchNormalization.from_torch(source, **options)


def test_a_right_state():
    """Each row above changes one thing only in a call that works."""
    layer = BatchNormalization.from_torch(GOOD_STATE)
    assert (layer.epsilon, layer.momentum, layer.dtype, layer.batches_seen) == (1e-5, 0.9, np.float32, 1)


@pytest.mark.parametrize(
    ("axis", "shape", "words"), [(1, None, "built first"), ((1, 2), (None, 3, 4), "one feature axis")]
)
def test_layers_without_a_state_for_torch(axis, shape, words):
    layer = BatchNormalization(axis)
    if shape is not None:
        layer.build(shape)
    with pytest.raises(ValueError, match=words):
        layer.to_torch_state()


# ---- Keras

KERAS_CASES = {
    "defaults": ((16, 3), {}),
    "channels first": ((4, 3, 4, 5), {"axis": 1, "momentum": 0.75}),
    "channels last": ((4, 5, 4, 3), {"epsilon": 0.1}),
    "without gamma": ((16, 3), {"scale": False}),
    "without beta": ((16, 3), {"center": False}),
    "without both": ((4, 5, 3), {"scale": False, "center": False}),
    "renorm": ((4, 5, 4, 3), {"renorm": True, "renorm_momentum": 0.75}),
    "renorm, clipped": ((16, 3), {"renorm": True, "renorm_clipping": {"rmax": 1.25, "rmin": 0.8, "dmax": 0.5}}),
    "renorm, clipped in part": ((16, 3), {"renorm": True, "renorm_clipping": {"rmax": 1.25, "dmax": None}}),
}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("case", KERAS_CASES)
def test_keras(case, dtype):
    keras = pytest.importorskip("tensorflow").keras
    shape, options = KERAS_CASES[case]
    peer = keras.layers.BatchNormalization(**options, dtype=dtype)
    peer.build(shape)
    rng = np.random.default_rng(1)
    peer.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in peer.get_weights()])
    layer = BatchNormalization.from_keras(peer)
    assert layer.dtype == dtype
    for x in batches(shape, dtype):
        check_near(layer(x, training=True), peer(x, training=True), dtype)
        check_near(layer(x), peer(x, training=False), dtype)
    for ours, theirs in zip(layer.get_weights(), peer.get_weights(), strict=True):
        check_near(ours, theirs, dtype)

    assert layer.trainable
    peer.trainable = False
    assert not BatchNormalization.from_keras(peer).trainable


@pytest.mark.parametrize(("policy", "expected"), [("mixed_float16", "float32"), ("bfloat16", "float32")])
def test_keras_in_half_precision(policy, expected):
    keras = pytest.importorskip("tensorflow").keras
    peer = keras.layers.BatchNormalization(dtype=policy, gamma_initializer="random_uniform")
    peer.build((None, 3))
    layer = BatchNormalization.from_keras(peer)
    assert layer.dtype == expected
    np.testing.assert_array_equal(layer.gamma, np.asarray(peer.gamma, np.float32))


def test_keras_not_built():
    keras = pytest.importorskip("tensorflow").keras
    with pytest.raises(ValueError, match="built first"):
        BatchNormalization.from_keras(keras.layers.BatchNormalization())


class KerasVariable:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, dtype=None, copy=None):
        return self.array


def keras_stand_in(config=(), **weights):
    layer = type("BatchNormalization", (), {})()
    layer.get_config = lambda: {"axis": [3], "momentum": 0.5, "epsilon": 0.25, "name": "norm", **dict(config)}
    layer.trainable = False
    for name, array in weights.items():
        setattr(layer, name, KerasVariable(array))
    return layer


def test_a_keras_stand_in():
    layer = BatchNormalization.from_keras(keras_stand_in(beta=2 * F, moving_mean=3 * F, moving_variance=4 * F))
    assert layer.get_config() == {
        **BatchNormalization().get_config(), "axis": (3,), "momentum": 0.5, "epsilon": 0.25, "scale": False,
    }  # fmt: skip
    assert [weight[0] for weight in layer.get_weights()] == [2, 3, 4]
    assert not layer.trainable


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (None, TypeError, "layer must be a BatchNormalization layer of Keras, got NoneType"),
        (np.ones(3), TypeError, "layer must be a BatchNormalization layer of Keras"),
        (keras_stand_in(), ValueError, "built first"),
        (keras_stand_in(moving_mean=F, moving_variance=F[:2]), ValueError, r"moving_variance.*\(3,\), got \(2,\)"),
        (keras_stand_in({"renorm": True, "renorm_clipping": {"rmin": 2.0, "rmax": 1.0}, "renorm_momentum": 0.9},
                        **dict.fromkeys(("moving_mean", "moving_variance", "renorm_mean"), F)),
         ValueError, "rmin <= rmax"),
        (keras_stand_in({"renorm": True, "renorm_clipping": {}, "renorm_momentum": 0.9},
                        **dict.fromkeys(("moving_mean", "moving_variance", "renorm_mean"), F)),
         ValueError, "the weights must be moving_mean, moving_variance, moving_stddev"),
    ],
)  # fmt: skip
def test_keras_refused(given, error, words):
    with pytest.raises(error, match=words):
        BatchNormalization.from_keras(given)


# ---- ONNX: its backend tests' cases, and its own test data

ONNX_CASES = {
    "example": {},
    "epsilon": {"epsilon": 1e-2},
    "momentum": {"momentum": 0.75},
    "both": {"epsilon": 1e-2, "momentum": 0.0},
}
ONNX_INPUTS = ["x", "s", "bias", "mean", "var"]


def onnx_weights(dtype):
    rng = np.random.default_rng(2)
    s, bias, mean = rng.normal(size=(3, 3)).astype(dtype)
    return {"s": s, "bias": bias, "mean": mean, "var": rng.uniform(size=3).astype(dtype)}


def onnx_model(weights, shape, dtype, **attributes):
    onnx = pytest.importorskip("onnx")
    helper, training = onnx.helper, attributes.get("training_mode", 0)
    node = helper.make_node(
        "BatchNormalization", ONNX_INPUTS, ["y", "new_mean", "new_var"][: 3 if training else 1], **attributes
    )
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given = {name: weights[name].shape for name in ONNX_INPUTS[1:] if training}
    inputs = [helper.make_tensor_value_info(name, kind, size) for name, size in {"x": shape, **given}.items()]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in node.output]
    tensors = [] if training else [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([node], "normalization", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=9)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("case", ONNX_CASES)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)], ids=str)
def test_onnx_inference(shape, case, dtype):
    runtime = pytest.importorskip("onnxruntime")
    model = onnx_model(onnx_weights(dtype), shape, dtype, **ONNX_CASES[case])
    layer = BatchNormalization.from_onnx(model.graph.node[0], model.graph.initializer)
    assert (layer.axis, layer.ddof, layer.dtype) == (1, 0, dtype)
    x = batches(shape, dtype)[0]
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    check_near(layer(x), expected, dtype)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("case", ONNX_CASES)
def test_onnx_training(case, dtype):
    reference = pytest.importorskip("onnx.reference")
    weights, shape = onnx_weights(dtype), (2, 3, 4, 5)
    model = onnx_model(weights, shape, dtype, training_mode=1, **ONNX_CASES[case])
    layer = BatchNormalization.from_onnx(model.graph.node[0], weights)
    peer = reference.ReferenceEvaluator(model)
    for x in batches(shape, dtype):
        y, weights["mean"], weights["var"] = peer.run(None, {"x": x, **weights})
        check_near(layer(x, training=True), y, dtype)
        check_near(layer.moving_mean, weights["mean"], dtype)
        check_near(layer.moving_variance, weights["var"], dtype)


def test_onnx_constants():
    """PyTorch's export of a layer without weight and bias has them as Constant nodes."""
    onnx = pytest.importorskip("onnx")
    weights = onnx_weights("float32")
    graph = onnx_model(weights, (2, 3), "float32").graph
    expected = BatchNormalization.from_onnx(graph.node[0], graph.initializer)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for constants in (list(tensors)[:2], list(tensors)):
        changed = onnx.GraphProto()
        changed.CopyFrom(graph)
        del changed.initializer[:]
        changed.initializer.extend(tensor for name, tensor in tensors.items() if name not in constants)
        changed.node.extend(onnx.helper.make_node("Constant", [], [name], value=tensors[name]) for name in constants)
        layer = BatchNormalization.from_onnx(changed.node[0], changed)
        assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), expected.get_weights(), strict=True))
        with pytest.raises(ValueError, match="initializers must have"):
            BatchNormalization.from_onnx(changed.node[0], changed.initializer)


def test_onnx_own_data():
    """Models that PyTorch exported, of all ranks, which ONNX brings along with what came out of them."""
    onnx = pytest.importorskip("onnx")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-converted"
    models = sorted(folder.glob("test_BatchNorm*"))
    assert len(models) >= 5
    for model in models:
        graph = onnx.load(model / "model.onnx").graph
        x, y = (
            onnx.numpy_helper.to_array(onnx.load_tensor(model / "test_data_set_0" / f"{name}_0.pb"))
            for name in ("input", "output")
        )
        layer = BatchNormalization.from_onnx(graph.node[0], graph.initializer)
        np.testing.assert_allclose(layer(x), y, rtol=1e-5, atol=1e-5)


def test_onnx_in_half_precision():
    onnx = pytest.importorskip("onnx")
    kinds = dict.fromkeys(ONNX_INPUTS[1:], onnx.TensorProto.BFLOAT16) | {"s": onnx.TensorProto.FLOAT16}
    tensors = [onnx.helper.make_tensor(name, kind, (3,), [0.5, 1.5, 2.5]) for name, kind in kinds.items()]
    layer = BatchNormalization.from_onnx(onnx.helper.make_node("BatchNormalization", ONNX_INPUTS, ["y"]), tensors)
    assert layer.dtype == np.float32
    assert all(list(weight) == [0.5, 1.5, 2.5] for weight in layer.get_weights())


def onnx_stand_in(op_type="BatchNormalization", inputs=ONNX_INPUTS, **attributes):
    """A node, whose attributes each have a float and an int."""
    attribute = [SimpleNamespace(name=name, f=float(value), i=int(value)) for name, value in attributes.items()]
    return SimpleNamespace(op_type=op_type, input=list(inputs), attribute=attribute)


def test_an_onnx_stand_in():
    weights = dict(zip(ONNX_INPUTS[1:], (F, 2 * F, 3 * F, 4 * F), strict=True))
    layer = BatchNormalization.from_onnx(onnx_stand_in(epsilon=0.25, momentum=0.5, spatial=1, training_mode=1), weights)
    assert [weight[0] for weight in layer.get_weights()] == [1, 2, 3, 4]
    assert layer.get_config() == {**BatchNormalization().get_config(), "axis": 1, "epsilon": 0.25, "momentum": 0.5}
    layer = BatchNormalization.from_onnx(onnx_stand_in(), weights)
    assert (layer.epsilon, layer.momentum) == (np.float32(1e-5), np.float32(0.9))


GOOD_INITIALIZERS = dict.fromkeys(ONNX_INPUTS, F)
BAD_ONNX = [
    (None, GOOD_INITIALIZERS, TypeError, "node must be a NodeProto of ONNX, got NoneType"),
    (onnx_stand_in("InstanceNormalization"), GOOD_INITIALIZERS, ValueError, "BatchNormalization, got Instance"),
    (onnx_stand_in(spatial=0), GOOD_INITIALIZERS, ValueError, "spatial=1, got 0"),
    (onnx_stand_in(inputs=["x", "s", "bias"]), GOOD_INITIALIZERS, ValueError, "inputs X, scale.*got 3"),
    (onnx_stand_in(), {}, ValueError, "none named s, bias, mean, var"),
    (onnx_stand_in(), [], ValueError, "none named s, bias, mean, var"),
    (onnx_stand_in(), [F, F], ValueError, "none named s, bias, mean, var"),
    (onnx_stand_in(), {**GOOD_INITIALIZERS, "s": None}, TypeError, "s must be a NumPy array, got NoneType"),
    (onnx_stand_in(), {**GOOD_INITIALIZERS, "var": F[:2]}, ValueError, r"var must have shape \(3,\), got \(2,\)"),
    (onnx_stand_in(), {**GOOD_INITIALIZERS, "mean": np.ones((3, 2))}, ValueError, "mean must have one axis"),
    (onnx_stand_in(), {**GOOD_INITIALIZERS, "bias": np.ones(3, int)}, TypeError, "bias must be.*int64"),
    (onnx_stand_in(), 3, TypeError, "initializers must be a mapping or an iterable of TensorProto, got int"),
    (onnx_stand_in(momentum=2.0), GOOD_INITIALIZERS, ValueError, r"momentum must be in \[0, 1\]"),
    (onnx_stand_in(epsilon=-1.0), GOOD_INITIALIZERS, ValueError, "epsilon must be >= 0"),
]


@pytest.mark.parametrize(("node", "initializers", "error", "words"), BAD_ONNX)
def test_onnx_refused(node, initializers, error, words):
    with pytest.raises(error, match=words):
        BatchNormalization.from_onnx(node, initializers)


# ---- for all


class Layer(BatchNormalization):
    """A caller's own."""


def test_a_subclass_makes_its_own_kind():
    initializers = copy.deepcopy(GOOD_INITIALIZERS)
    layers = [
        Layer.from_torch(GOOD_STATE),
        Layer.from_keras(keras_stand_in(moving_mean=F, moving_variance=F)),
        Layer.from_onnx(onnx_stand_in(), initializers),
    ]
    assert [type(layer) for layer in layers] == [Layer] * 3
    layers[2].moving_mean[...] = 7.0  # the layer's own, not the caller's array
    layers[2].gamma[...] = 7.0
    assert all((array == 1).all() for array in initializers.values())
