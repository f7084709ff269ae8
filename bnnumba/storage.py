"""A layer in a file: an npz archive, as `numpy.load` reads it, without pickles, of these arrays.

| array | what it holds |
|---|---|
| format | "bnnumba.BatchNormalization", text of shape () |
| version | 1, int64 of shape () |
| config | JSON, text of shape (), of an object with the following five |
| | arguments: those of the constructor by name, less those that are arrays; what is left out is the default |
| | feature_shape: a list of sizes; null for a layer that is not built |
| | trainable, batches_seen: the layer's |
| | arrays: the names of the arrays that follow |
| gamma, beta, moving_mean, moving_variance, ... | the weights that there are, as they are in the layer |
| gamma_initializer, ... | the initializers that are arrays |

Any change to this table makes another version, but for arguments that the constructor gains.
"""

import json
import os
import secrets
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bnnumba import checks
from bnnumba.state import State

FORMAT, VERSION = "bnnumba.BatchNormalization", 1
HEADER = ("format", "version", "config")
INITIALIZER = "_initializer"

Layer = TypeVar("Layer")


def save(path: Any, state: State) -> None:
    """Write a layer to exactly this path, in place of what is there, whole or not at all.

    A callable initializer of a layer that is built has done its work, and is left out.
    """
    target = Path(os.path.realpath(checks.path(path)))  # a link stays, and what it names is replaced
    arrays = _arrays_of(state)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Any, make: Callable[[State], Layer]) -> Layer:
    """Make a layer of what `save` wrote; whatever is wrong with the content of the file is a ValueError."""
    path = checks.path(path)
    content = BytesIO(Path(path).read_bytes())
    with checks.content_of(path), zipfile.ZipFile(content) as archive:
        return make(_state_in(archive))


def _arrays_of(state: State) -> dict[str, Any]:
    initializers = {name: value for name, value in state.config.items() if name.endswith(INITIALIZER)}
    callables = {name: value for name, value in initializers.items() if callable(value)}
    checks.no_callables(callables, state.feature_shape)
    arrays = {name: value for name, value in initializers.items() if isinstance(value, np.ndarray)}
    config = {
        "arguments": {name: value for name, value in state.config.items() if name not in {*arrays, *callables}},
        "feature_shape": state.feature_shape,
        "trainable": state.trainable,
        "batches_seen": state.batches_seen,
        "arrays": [*state.weights, *arrays],
    }
    text = json.dumps(config, default=_number, allow_nan=False)
    return {**dict(zip(HEADER, (FORMAT, np.int64(VERSION), text), strict=True)), **state.weights, **arrays}


def _number(value: Any) -> int | float:
    """One of NumPy's, or a fraction, as Python's."""
    return int(value) if hasattr(value, "__index__") else float(value)


def _state_in(archive: zipfile.ZipFile) -> State:
    checks.saved_members(archive.infolist())
    checks.saved_as(_read(archive, "format"), FORMAT, _read(archive, "version"), VERSION)
    config = checks.saved_config(json.loads(_read(archive, "config").item()))
    checks.saved_names(archive.namelist(), [f"{name}.npy" for name in (*HEADER, *config["arrays"])])
    arrays = {name: _read(archive, name) for name in config["arrays"]}
    initializers = {name: array for name, array in arrays.items() if name.endswith(INITIALIZER)}
    weights = {name: array for name, array in arrays.items() if name not in initializers}
    arguments = dict(**config["arguments"], **initializers)
    if isinstance(arguments.get("axis"), list):
        arguments["axis"] = tuple(arguments["axis"])
    shape = None if config["feature_shape"] is None else tuple(config["feature_shape"])
    checks.saved_weights(weights, shape)
    return State(arguments, shape, weights, config["trainable"], config["batches_seen"])


def _read(archive: zipfile.ZipFile, name: str) -> Any:
    """An array of the archive, whose checksum is compared before its bytes are looked at."""
    return np.lib.format.read_array(BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
