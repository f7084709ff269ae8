"""Layers of PyTorch, Keras and ONNX as a State of ours, and ours as PyTorch's. None of the three is imported here.

| | gamma | beta | moving_mean | moving_variance | momentum m | ddof |
|---|---|---|---|---|---|---|
| PyTorch | weight | bias | running_mean | running_var | 1 - m; None is the average over all batches | 1 |
| Keras 3 | gamma | beta | moving_mean | moving_variance | m | 0 |
| ONNX | scale | B | input_mean | input_var | m | 0 |
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.state import State

WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")
TORCH_NAMES = dict(zip(WEIGHTS, ("weight", "bias", "running_mean", "running_var"), strict=True))
KERAS_NAMES = {name: name for name in (*WEIGHTS, "moving_stddev", "renorm_mean", "renorm_stddev")}
COUNT = "num_batches_tracked"
TORCH_EPSILON, TORCH_MOMENTUM = 1e-5, 0.1
ONNX_DEFAULTS = {"epsilon": float(np.float32(1e-5)), "momentum": float(np.float32(0.9))}  # float32, as attributes are


def from_torch(source: Any, epsilon: float, momentum: float | None, axis: int | tuple[int, ...]) -> State:
    """Translate a module or a state dict; a module brings its own epsilon and momentum.

    A module without a momentum, as torchvision's FrozenBatchNorm2d, becomes a layer that is not trainable.
    """
    trainable = True
    if not isinstance(source, Mapping):
        checks.class_named("source", source, "BatchNorm", "module of PyTorch or its state dict")
        checks.left_out(epsilon=(epsilon, TORCH_EPSILON), momentum=(momentum, TORCH_MOMENTUM))
        checks.initialized(source)
        epsilon, trainable = source.eps, hasattr(source, "momentum")
        momentum = source.momentum if trainable else momentum
        values = {name: getattr(source, name, None) for name in (*TORCH_NAMES.values(), COUNT)}
        source = {name: value for name, value in values.items() if value is not None}
        checks.running_statistics(source)
    checks.state_dict(source, ("running_mean", "running_var"), ("weight", "bias", COUNT))
    kept = None if momentum is None else 1 - checks.momentum(momentum)
    batches_seen = checks.batches(COUNT, _array(source.get(COUNT, 0)))
    config = {"axis": axis, "epsilon": epsilon, "momentum": kept, "ddof": 1}
    return _state(source, TORCH_NAMES, config)._replace(trainable=trainable, batches_seen=batches_seen)


def to_torch(state: State) -> dict[str, Array]:
    """Translate into the arrays of a state dict, all of the layer's dtype but the count of batches, int64."""
    features = checks.one_feature_axis(state.weights.get("moving_mean"))
    weights = dict(state.weights)
    if state.config["scale"] or state.config["center"]:  # PyTorch has both or neither
        weights = {"gamma": np.ones(features), "beta": np.zeros(features), **weights}
    result = {TORCH_NAMES[n]: np.array(weights[n], state.config["dtype"]) for n in WEIGHTS if n in weights}
    return {**result, COUNT: np.array(state.batches_seen, np.int64)}


def from_keras(layer: Any) -> State:
    """Translate a layer of Keras 3 that was built."""
    checks.class_named("layer", layer, "BatchNormalization", "layer of Keras")
    weights = {name: getattr(layer, name, None) for name in KERAS_NAMES}
    checks.one_feature_axis(weights["moving_mean"])
    theirs = layer.get_config()
    config = {name: theirs[name] for name in ("axis", "momentum", "epsilon")}
    if isinstance(config["axis"], Iterable):  # as Keras 2 has it
        config["axis"] = tuple(config["axis"])
    if theirs.get("renorm", False):
        config.update({name: theirs[name] for name in ("renorm", "renorm_clipping", "renorm_momentum")})
    given = {name: weight for name, weight in weights.items() if weight is not None}
    return _state(given, KERAS_NAMES, config)._replace(trainable=bool(layer.trainable))


def from_onnx(node: Any, initializers: Any) -> State:
    """Translate a node and the initializers of its graph: a mapping by name, or an iterable of TensorProto."""
    checks.onnx_node(node)
    names = dict(zip(WEIGHTS, node.input[1:], strict=True))
    given = checks.initializers(initializers, list(names.values()))
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    config = {name: attributes.get(name, default) for name, default in ONNX_DEFAULTS.items()}
    return _state(given, names, {"axis": 1, **config})


def _state(given: Mapping[str, Any], names: dict[str, str], config: dict[str, Any]) -> State:
    """The state of a layer with these weights; it is float64 where the first of them is."""
    arrays = {ours: _array(given[theirs]) for ours, theirs in names.items() if theirs in given}
    shape = checks.vector(names["moving_mean"], arrays["moving_mean"]).shape
    arrays = {ours: checks.features(names[ours], array, shape) for ours, array in arrays.items()}
    dtype = "float64" if next(iter(arrays.values())).dtype.char == "d" else "float32"
    dtypes = {"gamma": dtype, "beta": dtype}
    weights = {ours: np.array(array, dtypes.get(ours, "float64")) for ours, array in arrays.items()}
    return State({**config, "center": "beta" in weights, "scale": "gamma" in weights, "dtype": dtype}, shape, weights)


def _array(value: Any) -> Any:
    """What holds an array as an array; anything else as it is."""
    if hasattr(value, "detach"):  # PyTorch's
        value = value.detach().cpu()
        if value.is_floating_point() and value.element_size() < 4:  # PyTorch gives NumPy no bfloat16
            value = value.float()
    if hasattr(value, "data_type"):  # ONNX's, so that ONNX is there
        value = import_module("onnx.numpy_helper").to_array(value)
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray):
        value = np.asarray(value)
    return value
