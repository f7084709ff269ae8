"""Functional models that let a layer of ours do the work of the ReLU behind it: decided anew in each run of the graph.

A run is what Keras traces, or an eager call. Nothing is kept from one to the next, so that no edit of a model, of its
layers or of what shares them can make a fused pair wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MethodType
from typing import Any

import keras

from bnnumba.activations import LeakyRelu, text_of
from bnnumba.outputs import Change

RUN = "_run_through_graph"  # Keras's method for the call of a functional model's layers

_behind: ContextVar[tuple[Any, str]] = ContextVar("bnnumba_keras_behind", default=(None, ""))


def activation_behind(layer: Any) -> str:
    """The activation that a layer's call at hand is to do besides its own; "" for none."""
    fused, activation = _behind.get()
    return activation if fused is layer else ""


def let_fuse(model: Any, back: bool) -> list[Change]:
    """The changes that make a model fuse, if it is functional, or a Sequential that is built; or that undo it."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    if not hasattr(type(graph), RUN):
        return []
    own = vars(graph)
    if back:
        return [(own.pop, RUN, None)] if RUN in own else []
    return [(own.__setitem__, RUN, MethodType(_run, graph))]


def _run(model: Any, inputs: Any, operation_fn: Callable[..., Any] = lambda op: op, call_fn: Any = None) -> Any:
    """Run the graph as Keras does, but with each pair as one call."""
    run = MethodType(getattr(type(model), RUN), model)
    pairs = _pairs(model) if call_fn is None else {}
    if not pairs:
        return run(inputs, operation_fn, call_fn)
    done = {activation for activation, _ in pairs.values()}

    def fused(operation: Any) -> Any:
        if operation in done:
            return lambda y, *_, **__: y
        call = operation_fn(operation)
        return _called_with(call, operation, pairs[operation][1]) if operation in pairs else call

    return run(inputs, fused)


def _called_with(call: Callable[..., Any], layer: Any, activation: str) -> Callable[..., Any]:
    def called(*arguments: Any, **options: Any) -> Any:
        with _fusing(layer, activation):
            return call(*arguments, **options)

    return called


@contextmanager
def _fusing(layer: Any, activation: str) -> Iterator[None]:
    token = _behind.set((layer, activation))
    try:
        yield
    finally:
        _behind.reset(token)


def _pairs(model: Any) -> dict[Any, tuple[Any, str]]:
    """The layers of ours whose only use in a graph is by an activation, with that layer and what it is."""
    from bnnumba.keras.layer import BatchNormalization  # noqa: PLC0415  # which asks here for `activation_behind`

    nodes = [node for each in model._nodes_by_depth.values() for node in each if node.operation and not node.is_input]
    calls = Counter(node.operation for node in nodes)
    users: dict[int, list[Any]] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            users.setdefault(id(tensor), []).append(node.operation)
    results = {id(tensor) for tensor in model.outputs}
    pairs = {}
    for node in nodes:
        layer = node.operation
        if type(layer) is not BatchNormalization or layer.activation is not None or calls[layer] > 1:
            continue
        following = users.get(id(node.outputs[0]), [])
        if id(node.outputs[0]) in results or len(following) != 1 or calls[following[0]] > 1:
            continue
        activation = _text(following[0])
        if activation and _are_plain(layer, following[0]):
            pairs[layer] = following[0], activation
    return pairs


def _text(layer: Any) -> str:
    """What a layer of Keras does, as a text of ours; "" where it is no such activation."""
    kind = type(layer)
    if kind is keras.layers.Activation:
        return {keras.activations.relu: "relu", keras.activations.relu6: "relu6"}.get(layer.activation, "")
    if kind is keras.layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6: "relu6"}.get(layer.max_value, "")
    if kind is keras.layers.LeakyReLU:
        try:
            return text_of(LeakyRelu(layer.negative_slope))
        except (TypeError, ValueError):  # of which y does not tell the gradient
            return ""
    return ""


def _are_plain(layer: Any, activation: Any) -> bool:
    """Whether the calls of both are their classes' and nothing else, and pass on the same dtype."""
    return layer.compute_dtype == activation.compute_dtype and all(
        each.activity_regularizer is None and not {"call", "__call__"} & set(vars(each)) for each in (layer, activation)
    )
