"""Layers of PyTorch, Keras and ONNX as a State of ours, and ours as PyTorch's. None of the three is imported here.

| | gamma | beta | moving_mean | moving_variance | momentum m | ddof |
|---|---|---|---|---|---|---|
| PyTorch | weight | bias | running_mean | running_var | 1 - m; None is the average over all batches | 1 |
| Keras 3 | gamma | beta | moving_mean | moving_variance | m | 0 |
| ONNX | scale | B | input_mean | input_var | m | 0 |
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any, Self

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.state import WEIGHTS, State, Stateful

SHARED = WEIGHTS[:4]  # those that all three libraries have
TORCH_NAMES = dict(zip(SHARED, ("weight", "bias", "running_mean", "running_var"), strict=True))
KERAS_NAMES = {name: name for name in WEIGHTS}
COUNT = "num_batches_tracked"
TORCH_EPSILON, TORCH_MOMENTUM = 1e-5, 0.1
OURS = "bnnumba.torch.modules"
KNOWN_FORWARDS = ("torch.nn.modules.batchnorm", "torchvision.ops.misc", OURS)
ONNX_DEFAULTS = {"epsilon": float(np.float32(1e-5)), "momentum": float(np.float32(0.9))}  # float32, as attributes are


class Exchanged(Stateful):
    """A layer that is made of other libraries' layers, and PyTorch's of it."""

    @classmethod
    def from_torch(
        cls,
        source: Any,
        *,
        epsilon: float = TORCH_EPSILON,
        momentum: float | None = TORCH_MOMENTUM,
        axis: int | tuple[int, ...] = 1,
    ) -> Self:
        """A new layer like a BatchNorm module of PyTorch, or of its state dict; float64 if its weights are.

        An activation of `bnnumba.torch`'s layers comes along.

            momentum: ours = 1 - PyTorch's; None is None    ddof = 1    batches_seen = num_batches_tracked

        Parameters
        ----------
        source : BatchNorm module of PyTorch or `bnnumba.torch`, SyncBatchNorm and torchvision's FrozenBatchNorm2d (not
            trainable here) included, but of no class with another `forward`; or a dict of tensors or arrays:
            running_mean, running_var; weight, bias, num_batches_tracked, or not
        epsilon, momentum
            PyTorch's; of a state dict only: a module has its own.
        axis : int or tuple of ints
            PyTorch's is 1.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or the module has no running statistics, or none yet.
        """
        return cls._of(_from_torch(source, epsilon, momentum, axis))

    def to_torch_state(self) -> dict[str, Any]:
        """New arrays for `load_state_dict` of a BatchNorm module of PyTorch, by its names and of the layer's dtype.

        The module is affine if the layer has a gamma or a beta; what it lacks is 1 or 0. The module is to be made with
        eps = epsilon, momentum = 1 - momentum; it moves its variance by ddof = 1. An activation stays with the caller.

        Raises
        ------
        ValueError
            If the layer is not built, or has not exactly one feature axis.
        """
        return _to_torch(self._state())

    @classmethod
    def from_keras(cls, layer: Any) -> Self:
        """A new layer like a BatchNormalization of Keras 3, trainable or not as it is; float64 if its weights are.

        Batch renormalization comes along; initializers, regularizers and constraints do not.

        Raises
        ------
        TypeError, ValueError
            If it is no such layer, or not built.
        """
        return cls._of(_from_keras(layer))

    @classmethod
    def from_onnx(cls, node: Any, initializers: Any) -> Self:
        """A new layer like a BatchNormalization node of ONNX, with axis = 1; float64 if its scale is.

        Parameters
        ----------
        node : NodeProto
            Its training_mode is not used: here each call says it.
        initializers : the graph, whose Constant nodes count too; or graph.initializer, an iterable of TensorProtos; or
            a mapping of names to arrays or TensorProtos

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or the node is another one, or has spatial=0, as before opset 9, or inputs
            that are not among the initializers.
        """
        return cls._of(_from_onnx(node, initializers))


def _from_torch(source: Any, epsilon: float, momentum: float | None, axis: int | tuple[int, ...]) -> State:
    """Translate a module or a state dict; a module brings its own epsilon and momentum.

    A module without a momentum, as torchvision's FrozenBatchNorm2d, becomes a layer that is not trainable.
    """
    trainable, activation = True, None
    if not isinstance(source, Mapping):
        _check_class("source", source, "BatchNorm", "module of PyTorch or its state dict")
        if _owner_of_forward(source) == OURS:
            activation = source.activation
        _check_left_out(epsilon=(epsilon, TORCH_EPSILON), momentum=(momentum, TORCH_MOMENTUM))
        _check_initialized(source)
        epsilon, trainable = source.eps, hasattr(source, "momentum")
        momentum = source.momentum if trainable else momentum
        values = {name: getattr(source, name, None) for name in (*TORCH_NAMES.values(), COUNT)}
        source = {name: value for name, value in values.items() if value is not None}
        _check_running_statistics(source)
    _check_keys(source, ("running_mean", "running_var"), ("weight", "bias", COUNT))
    kept = None if momentum is None else 1 - checks.momentum(momentum)
    batches_seen = checks.batches(COUNT, as_array(source.get(COUNT, 0)))
    config = {"axis": axis, "epsilon": epsilon, "momentum": kept, "ddof": 1, "activation": activation}
    return _state(source, TORCH_NAMES, config)._replace(trainable=trainable, batches_seen=batches_seen)


def _to_torch(state: State) -> dict[str, Any]:
    """Translate into the arrays of a state dict, all of the layer's dtype but the count of batches, int64."""
    features = checks.one_feature_axis(state.weights.get("moving_mean"))
    weights = dict(state.weights)
    if state.config["scale"] or state.config["center"]:  # PyTorch has both or neither
        weights = {"gamma": np.ones(features), "beta": np.zeros(features), **weights}
    result = {TORCH_NAMES[n]: np.array(weights[n], state.config["dtype"]) for n in SHARED if n in weights}
    return {**result, COUNT: np.array(state.batches_seen, np.int64)}


def _from_keras(layer: Any) -> State:
    """Translate a layer of Keras 3 that was built."""
    _check_class("layer", layer, "BatchNormalization", "layer of Keras")
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


def _from_onnx(node: Any, initializers: Any) -> State:
    """Translate a node and the initializers of its graph: a mapping by name, or an iterable of TensorProto."""
    _check_node(node)
    names = dict(zip(SHARED, node.input[1:], strict=True))
    given = _initializers(initializers, list(names.values()))
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    config = {name: attributes.get(name, default) for name, default in ONNX_DEFAULTS.items()}
    return _state(given, names, {"axis": 1, **config})


def _state(given: Mapping[str, Any], names: dict[str, str], config: dict[str, Any]) -> State:
    """The state of a layer with these weights; it is float64 where the first of them is."""
    arrays = {ours: as_array(given[theirs]) for ours, theirs in names.items() if theirs in given}
    shape = _vector(names["moving_mean"], arrays["moving_mean"]).shape
    arrays = {ours: checks.features(names[ours], array, shape) for ours, array in arrays.items()}
    dtype = "float64" if next(iter(arrays.values())).dtype.char == "d" else "float32"
    dtypes = {"gamma": dtype, "beta": dtype}
    weights = {ours: np.array(array, dtypes.get(ours, "float64")) for ours, array in arrays.items()}
    return State({**config, "center": "beta" in weights, "scale": "gamma" in weights, "dtype": dtype}, shape, weights)


def as_array(value: Any) -> Any:
    """Return what holds an array, of whatever library, as an array of NumPy's; anything else as it is."""
    if hasattr(value, "detach"):  # PyTorch's
        value = value.detach().cpu()
        if value.is_floating_point() and value.element_size() < 4:  # PyTorch gives NumPy no bfloat16
            value = value.float()
    if hasattr(value, "data_type"):  # ONNX's, so that ONNX is there
        value = import_module("onnx.numpy_helper").to_array(value)
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray):
        value = np.asarray(value)
    return value


def _check_class(name: str, value: object, part: str, what: str) -> None:
    """An object of another library, told by the names of its classes."""
    if not any(part in kind.__name__ for kind in type(value).__mro__):
        raise TypeError(f"{name} must be a {part} {what}, got {checks.described(value)}")


def _owner_of_forward(module: Any) -> str:
    """Tell whose forward a module has; refuse one that may do more than normalize, as timm's BatchNormAct2d does."""
    owner: Any = next((kind for kind in type(module).__mro__ if "forward" in vars(kind)), None)
    if owner is None:  # a stand-in that is no module
        return ""
    if "forward" in vars(module) or owner.__module__ not in KNOWN_FORWARDS:
        where = "the module itself" if "forward" in vars(module) else f"{owner.__module__}.{owner.__qualname__}"
        raise TypeError(f"source must have PyTorch's own forward, got that of {where}: give its state dict instead")
    return str(owner.__module__)


def _check_left_out(**arguments: tuple[object, object]) -> None:
    """Refuse arguments, given with their defaults, that a module says itself."""
    for name, (value, default) in arguments.items():
        if value != default:
            raise ValueError(f"{name} must be left out with a module, which has its own, got {checks.shown(value)}")


def _check_initialized(module: Any) -> None:
    """Refuse a lazy module of PyTorch that saw no data."""
    if getattr(module, "has_uninitialized_params", bool)():
        raise ValueError(f"source must be initialized: call the module first, got {checks.described(module)}")


def _check_running_statistics(given: Collection[str]) -> None:
    """Refuse a module of PyTorch that normalizes by the batch at inference too."""
    if not {"running_mean", "running_var"} <= set(given):
        raise ValueError("source must have running statistics, got a module with track_running_stats=False")


def _check_keys(source: Collection[Any], needed: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Refuse a state dict with keys missing, or others."""
    if not set(needed) <= set(source) <= {*needed, *optional}:
        expected = f"{', '.join(needed)}, and at most {', '.join(optional)} besides, without a prefix"
        raise ValueError(f"source must have the keys {expected}, got {', '.join(map(str, source)) or 'none'}")


def _vector(name: str, value: object) -> Array:
    """An array with one axis."""
    array = checks.numpy_array(name, value)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    return array


def _check_node(node: Any) -> None:
    """A BatchNormalization of ONNX, with a mean and a variance for each feature."""
    operator = getattr(node, "op_type", None)
    if operator is None:
        raise TypeError(f"node must be a NodeProto of ONNX, got {checks.described(node)}")
    if operator != "BatchNormalization":
        raise ValueError(f"node must be a BatchNormalization, got {operator}")
    if len(node.input) != 5:
        raise ValueError(f"node must have the inputs X, scale, B, input_mean and input_var, got {len(node.input)}")
    if any(attribute.name == "spatial" and not attribute.i for attribute in node.attribute):
        raise ValueError("node must have spatial=1, got 0: a mean for every position, not for every channel")


def _initializers(value: Any, names: list[str]) -> dict[str, Any]:
    """Those of an ONNX graph that are named, of a mapping by name or an iterable of what has a name."""
    if hasattr(value, "initializer"):  # a graph
        constants = {node.output[0]: node.attribute for node in value.node if node.op_type == "Constant"}
        tensors = {name: attribute.t for name, (attribute, *_) in constants.items() if attribute.name == "value"}
        value = {**{tensor.name: tensor for tensor in value.initializer}, **tensors}
    if not isinstance(value, Iterable):
        raise TypeError(f"initializers must be a mapping or an iterable of TensorProto, got {checks.described(value)}")
    given = value if isinstance(value, Mapping) else {getattr(tensor, "name", None): tensor for tensor in value}
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"initializers must have {', '.join(names)}, got none named {', '.join(missing)}")
    return {name: given[name] for name in names}
