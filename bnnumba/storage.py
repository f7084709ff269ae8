"""A layer in a file: an npz archive, as `numpy.load` reads it, without pickles, of these arrays.

| array | what it holds |
|---|---|
| format | "bnnumba.BatchNormalization", text of shape () |
| version | 1, int64 of shape () |
| config | JSON, text of shape (), of an object with the following five |
| | arguments: those of the constructor by name, less those that are arrays; what is left out is the default; |
| | an activation is null, its name, or as Python writes it: "LeakyRelu(0.2)" |
| | feature_shape: a list of sizes; null for a layer that is not built |
| | trainable, batches_seen: the layer's |
| | arrays: the names of the arrays that follow |
| gamma, beta, moving_mean, moving_variance, ... | the weights that there are, as they are in the layer |
| gamma_initializer, ... | the initializers that are arrays |

Any change to this table makes another version, but for arguments that the constructor gains.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.state import State, Stateful

FORMAT, VERSION = "bnnumba.BatchNormalization", 1
HEADER = ("format", "version", "config")
INITIALIZER = "_initializer"


class Stored(Stateful):
    """A layer that is saved to files, and made of them."""

    def save(self, path: str | PathLike[str]) -> None:
        """Save the layer, built or not, to exactly this path: the npz file that `bnnumba.storage` describes.

        A file that is there is replaced when all is written, and its mode and owner stay. What a training call keeps
        for `backward` is not saved, nor is a callable initializer of a layer that is built: it becomes the default.

        Raises
        ------
        TypeError, ValueError, OSError
            If path is no path, or names something else than a file, or the layer is not built and has a callable
            initializer, or the file cannot be written.
        """
        _write(_path_text(path), _arrays_of(self._state()))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """A new layer with the arguments, weights (to the bit), trainable and batches_seen of the one that was saved.

        Raises
        ------
        TypeError, OSError
            If path is no path, or the file cannot be read.
        ValueError
            If the file is damaged, or none that `save` wrote, or of a later version: nothing in it is ever run.
        """
        path = _path_text(path)
        _regular(Path(path))
        content = BytesIO(Path(path).read_bytes())
        with _content_of(path), zipfile.ZipFile(content) as archive:
            return cls._of(_state_in(archive))


def _write(path: str, arrays: dict[str, Any]) -> None:
    """Write arrays to exactly this path, in place of what is there, whole or not at all."""
    target = Path(os.path.realpath(path))  # a link stays, and what it names is replaced
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    before = _regular(target) if target.exists() else None
    mode = 0o666 if before is None else 0o600  # of a new file the umask decides; nobody else sees one in the making
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            own = temporary.stat()
            if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
                shutil.chown(temporary, before.st_uid, before.st_gid)
            temporary.chmod(stat.S_IMODE(before.st_mode))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _regular(path: Path) -> os.stat_result:
    """Tell what the system says of a file; refuse a pipe or a device, of which reading may never end."""
    said = path.stat()
    if not stat.S_ISREG(said.st_mode) and not stat.S_ISDIR(said.st_mode):  # of a folder, opening says it
        raise ValueError(f"path must name a file, {str(path)!r} is none")
    return said


def _arrays_of(state: State) -> dict[str, Any]:
    """What the file holds; a callable initializer of a layer that is built has done its work, and is left out."""
    initializers = {name: value for name, value in state.config.items() if name.endswith(INITIALIZER)}
    callables = {name: value for name, value in initializers.items() if callable(value)}
    _check_no_callables(callables, state.feature_shape)
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
    _check_members(archive.infolist())
    _check_format(_read(archive, "format"), FORMAT, _read(archive, "version"), VERSION)
    config = _checked_config(json.loads(_read(archive, "config").item()))
    _check_names(archive.namelist(), [f"{name}.npy" for name in (*HEADER, *config["arrays"])])
    arrays = {name: _read(archive, name) for name in config["arrays"]}
    initializers = {name: array for name, array in arrays.items() if name.endswith(INITIALIZER)}
    weights = {name: array for name, array in arrays.items() if name not in initializers}
    arguments = dict(**config["arguments"], **initializers)
    if isinstance(arguments.get("axis"), list):
        arguments["axis"] = tuple(arguments["axis"])
    shape = None if config["feature_shape"] is None else tuple(config["feature_shape"])
    _check_weights(weights, shape)
    return State(arguments, shape, weights, config["trainable"], config["batches_seen"])


def _read(archive: zipfile.ZipFile, name: str) -> Any:
    """An array of the archive, whose checksum is compared before its bytes are looked at."""
    return np.lib.format.read_array(BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)


def _path_text(value: object) -> str:
    """A path as text."""
    if not isinstance(value, str | PathLike):
        raise TypeError(f"path must be a str or an os.PathLike, got {checks.described(value)}")
    return os.fsdecode(value)


def _check_no_callables(callables: Mapping[str, object], shape: tuple[int, ...] | None) -> None:
    """Refuse to save what only a program has, where it is still needed."""
    for name, value in callables.items():
        if shape is None:
            got = checks.described(value)
            raise ValueError(f"{name} must be no callable to save a layer that is not built, got {got}")


@contextmanager
def _content_of(path: str) -> Iterator[None]:
    """Turn whatever is raised, since damaged bytes may raise any error, into one that names the file."""
    try:
        yield
    except Exception as error:
        what = str(error) or type(error).__name__
        raise ValueError(f"path must name a file that save wrote, whole; {path!r} is none: {what}") from error


def _check_members(members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse what could be more than the file: arrays that are compressed, or there twice."""
    names = set()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.filename in names:
            raise ValueError(f"{member.filename} must be there once, and not compressed")
        names.add(member.filename)


def _check_format(form: Array, expected: str, version: Array, newest: int) -> None:
    """The format and the version of a file."""
    if form.shape != () or form != expected:
        raise ValueError(f"format must be {expected}, got {form}")
    if checks.batches("version", version) > newest:
        raise ValueError(f"version must be {newest}, got {version}, of a later bnnumba")
    if version != newest:
        raise ValueError(f"version must be {newest}, got {version}")


def _checked_config(config: Any) -> dict[str, Any]:
    """What a file says of a layer, beside its arrays."""
    expected = {"arguments": dict, "feature_shape": list | None, "trainable": bool, "batches_seen": int, "arrays": list}
    if not isinstance(config, dict) or set(config) != set(expected):
        raise ValueError(f"config must be an object of {', '.join(expected)}, got {checks.described(config)}")
    for name, kind in expected.items():
        if not isinstance(config[name], kind):
            raise ValueError(f"{name} must not be {checks.described(config[name])}")
    checks.batches("batches_seen", config["batches_seen"])
    return config


def _check_names(came: list[str], expected: list[str]) -> None:
    """Refuse a file with arrays missing, or others."""
    if sorted(came) != sorted(expected):
        raise ValueError(f"the arrays must be {', '.join(expected)}, got {', '.join(came)}")


def _check_weights(values: dict[str, Array], shape: tuple[int, ...] | None) -> None:
    """Refuse weights without a feature shape, of another one, and none where there is one."""
    if (shape is None) != (not values):
        raise ValueError(f"feature_shape must be that of the weights, got {shape} for {', '.join(values) or 'none'}")
    for name, value in values.items():
        checks.features(name, value, shape or ())
