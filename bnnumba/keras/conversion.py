"""Models whose BatchNormalization layers compute here, and back."""

from __future__ import annotations

import logging
from typing import Any

import keras

from bnnumba import checks
from bnnumba.keras.fusing import let_fuse
from bnnumba.keras.layer import BatchNormalization
from bnnumba.outputs import Change, write

FUNCTIONS = ("train_function", "test_function", "predict_function")

_log = logging.getLogger("bnnumba.keras")


def convert(model: Any, *, back: bool = False) -> Any:
    """Let the BatchNormalization layers of a model compute here, in place.

    Layers stay the objects that they are, with their weights, configuration and place in the model; only their class
    changes. So optimizers, checkpoints and other references to them stay good. What `compile` gave a model stays, too;
    its next `fit`, `evaluate` or `predict` traces it anew.

    Parameters
    ----------
    model : keras.Layer
        A model, Sequential, functional or subclassed, or a layer. Of its layers those of exactly the class
        keras.layers.BatchNormalization are converted, and not those with synchronized=True.
    back : bool
        True undoes that: layers of this package become Keras's. A layer that was made with an activation is left as it
        is.

    Returns
    -------
    keras.Layer
        The model itself.

    Raises
    ------
    TypeError
        If an argument is not as above.

    Notes
    -----
    The logger "bnnumba.keras" says at level INFO what was done.
    """
    checks.instance("model", model, keras.Layer)
    back = checks.flag("back", back)
    changes: list[Change] = []
    for layer in model._flatten_layers():
        kind = _kind(layer, back)
        if kind is not None:
            changes.append((object.__setattr__, layer, "__class__", kind))  # past Keras's own, which is Python's
        elif isinstance(layer, keras.Model):
            changes += let_fuse(layer, back)
            changes += [(setattr, layer, name, None) for name in FUNCTIONS if getattr(layer, name, None) is not None]
    write(changes)
    return model


def _kind(layer: Any, back: bool) -> Any:
    """The class that a layer is to have; None where that is its own."""
    if back:
        if type(layer) is not BatchNormalization:
            return None
        if layer.activation is not None:
            _log.info("%s: left as it is: it has an activation of its own", layer.path)
            return None
        _log.info("%s: BatchNormalization of Keras", layer.path)
        return keras.layers.BatchNormalization
    if type(layer) is not keras.layers.BatchNormalization:
        return None
    if layer.synchronized:
        _log.info("%s: left as it is: it is synchronized", layer.path)
        return None
    _log.info("%s: BatchNormalization of bnnumba", layer.path)
    return BatchNormalization
