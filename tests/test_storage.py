"""Saved layers: what comes back, what a damaged file says, and what a save that fails leaves."""

import copy
import fractions
import json
import os
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from bnnumba import BatchNormalization, storage
from tests.tools.problems import problem, same_bits

LAYERS = {
    "defaults": {},
    "every argument": {
        "axis": 1, "momentum": 0.1, "epsilon": 1 / 3, "beta_initializer": 2, "gamma_initializer": 0.1, "ddof": 1,
        "moving_mean_initializer": "ones", "moving_variance_initializer": 1e300, "dtype": "float64",
        "skip_nonfinite": True, "activation": "relu", "renorm_momentum": 0.7,
    },
    "no momentum": {"momentum": None},
    "without beta": {"center": False},
    "without both": {"center": False, "scale": False},
    "two axes": {"axis": (-1, 1)},
    "no axis": {"axis": ()},
    "renorm": {"axis": -2, "renorm": True, "renorm_clipping": {"rmin": 0.5, "rmax": None, "dmax": 10**300}},
    "arrays": {"gamma_initializer": np.array([1, 2, 3, 4], np.uint8), "beta_initializer": np.ones(4, np.float16)},
    "numbers of NumPy's": {
        "axis": np.int64(-1), "momentum": np.float32(0.1), "epsilon": fractions.Fraction(1, 3), "dtype": np.float64,
        "gamma_initializer": np.int8(3), "beta_initializer": np.float32(0.1), "scale": np.bool_(True),
        "renorm": np.bool_(True), "renorm_clipping": {"rmax": np.float32(2.5), "dmax": np.int64(3)},
    },
}  # fmt: skip
SHAPE = (6, 3, 4)


def layer_of(options, built=True, trained=True):
    layer = BatchNormalization(**options)
    if built:
        layer.build(SHAPE)
    if built and trained:
        for seed in range(3):
            layer(problem(SHAPE, layer.axis, seed=seed).x, training=True)
    return layer


def same_value(a, b):
    return same_bits(a, b) if isinstance(a, np.ndarray) else a == b and isinstance(b, type(a) | int | float)


def check_equal(a, b):
    config, other = a.get_config(), b.get_config()
    assert config.keys() == other.keys()
    assert all(same_value(value, other[name]) for name, value in config.items())
    assert all(same_bits(v, w) for v, w in zip(a.get_weights(), b.get_weights(), strict=True))
    assert (a.trainable, a.batches_seen) == (b.trainable, b.batches_seen)
    assert type(b.trainable) is bool
    assert type(b.batches_seen) is int


def saved(layer, folder, name="layer.npz"):
    layer.save(folder / name)
    return folder / name


# ---- round trips


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_round_trip(name, trained, tmp_path):
    layer = layer_of(LAYERS[name], trained=trained)
    layer.trainable = trained
    before = copy.deepcopy(layer)
    twin = BatchNormalization.load(saved(layer, tmp_path))
    check_equal(layer, twin)
    check_equal(layer, before)
    p = problem(SHAPE, layer.axis, seed=9)
    twin.trainable = layer.trainable = True
    assert same_bits(layer(p.x), twin(p.x))
    assert same_bits(layer(p.x, training=True), twin(p.x, training=True))
    assert same_bits(layer.backward(p.dy), twin.backward(p.dy))
    check_equal(layer, twin)


@pytest.mark.parametrize("name", LAYERS)
def test_round_trip_of_a_layer_that_is_not_built(name, tmp_path):
    layer = layer_of(LAYERS[name], built=False)
    twin = BatchNormalization.load(saved(layer, tmp_path))
    check_equal(layer, twin)
    assert twin.gamma is twin.moving_mean is None
    twin.build(SHAPE)
    layer.build(SHAPE)
    check_equal(layer, twin)


def test_every_bit_of_the_weights(tmp_path):
    """NaN with its payload, the sign of zero, infinities, subnormals; and the dtypes that a loop may have left."""
    layer = layer_of({})
    layer.gamma = np.array([np.nan, -0.0, np.inf, 5e-324])
    layer.gamma[:1].view(np.uint64)[...] |= 12345
    layer.moving_mean = np.array([-np.nan, 0.0, -np.inf, 1e-45], np.float32)
    check_equal(layer, BatchNormalization.load(saved(layer, tmp_path)))


def test_no_features_and_zero_axes(tmp_path):
    layer = BatchNormalization()
    layer.build((None, 0))
    check_equal(layer, BatchNormalization.load(saved(layer, tmp_path)))
    layer = layer_of({"axis": ()})
    layer.gamma = layer.gamma - 0.5  # which leaves a NumPy scalar
    assert BatchNormalization.load(saved(layer, tmp_path)).gamma == 0.5


def test_weights_are_the_layers_own(tmp_path):
    path = saved(layer_of({}), tmp_path)
    layer = BatchNormalization.load(path)
    layer.gamma += 1
    layer.backward(layer(np.ones(SHAPE), training=True))
    check_equal(layer_of({}), BatchNormalization.load(path))


def test_callable_initializers(tmp_path):
    layer = layer_of({"gamma_initializer": np.zeros, "beta_initializer": lambda shape: np.full(shape, 0.25)})
    twin = BatchNormalization.load(saved(layer, tmp_path))
    assert (twin.gamma_initializer, twin.beta_initializer) == ("ones", "zeros")
    assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), twin.get_weights(), strict=True))
    with pytest.raises(ValueError, match=r"gamma_initializer must be no callable.*not built"):
        BatchNormalization(gamma_initializer=np.zeros).save(tmp_path / "other")
    assert os.listdir(tmp_path) == ["layer.npz"]


class Layer(BatchNormalization):
    """A caller's own."""


def test_a_subclass_loads_its_own_kind(tmp_path):
    assert type(Layer.load(saved(layer_of({}), tmp_path))) is Layer


def test_the_file_is_as_documented(tmp_path):
    layer = layer_of(LAYERS["arrays"])
    layer.trainable = False
    with np.load(saved(layer, tmp_path), allow_pickle=False) as file:
        arrays = dict(file)
    config = json.loads(arrays.pop("config")[()])
    assert arrays.pop("format") == "bnnumba.BatchNormalization"
    assert arrays.pop("version") == 1
    assert config["feature_shape"] == [4]
    assert (config["trainable"], config["batches_seen"]) == (False, 3)
    assert config["arrays"] == list(arrays)
    names = ["gamma", "beta", "moving_mean", "moving_variance", "beta_initializer", "gamma_initializer"]
    assert list(arrays) == names
    assert config["arguments"] == {k: v for k, v in layer.get_config().items() if k not in names}
    assert all(same_bits(arrays[name], getattr(layer, name)) for name in names)
    for name in names + list(config):
        assert name.removesuffix("_initializer") in storage.__doc__


def test_one_layer_has_one_file(tmp_path):
    a, b = saved(layer_of({}), tmp_path, "a"), saved(layer_of({}), tmp_path, "b")
    assert a.read_bytes() == b.read_bytes()


# ---- files and paths


@pytest.mark.parametrize("name", ["layer.npz", "layer", "a.b.c", "ü 層", "x" * 255])
@pytest.mark.parametrize("kind", [Path, str])
def test_the_path_is_taken_as_it_is(kind, name, tmp_path):
    layer = layer_of({})
    layer.save(kind(tmp_path / name))
    assert os.listdir(tmp_path) == [name]
    check_equal(layer, BatchNormalization.load(kind(tmp_path / name)))


def test_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer_of({}).save("layer")
    check_equal(layer_of({}), BatchNormalization.load("layer"))
    assert os.listdir() == ["layer"]


@pytest.mark.parametrize("path", [None, 3, b"layer", 1.5, BytesIO()])
def test_what_is_no_path(path):
    for call in (layer_of({}).save, BatchNormalization.load):
        with pytest.raises(TypeError, match=r"path must be a str or an os\.PathLike, got"):
            call(path)


def test_files_that_cannot_be_opened(tmp_path):
    for path, error in ((tmp_path / "none", FileNotFoundError), (tmp_path, OSError)):
        with pytest.raises(error):
            BatchNormalization.load(path)
    for path in (tmp_path / "none" / "layer", tmp_path):
        with pytest.raises(OSError, match=r"\[Errno"):
            layer_of({}).save(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
def test_permissions_and_links(tmp_path):
    path = saved(layer_of({}), tmp_path)
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    link = tmp_path / "link"
    link.symlink_to(path)
    layer = layer_of({"momentum": 0.5})
    layer.save(link)
    assert link.is_symlink()
    check_equal(layer, BatchNormalization.load(path))


@pytest.mark.skipif(os.name != "posix", reason="modes and pipes are POSIX's")
def test_mode_and_owner_stay(tmp_path):
    layer, path = BatchNormalization(), tmp_path / "layer.npz"
    before = os.umask(0o027)
    try:
        layer.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in (0o600, 0o664):
        path.chmod(mode)
        layer.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    if os.getuid() == 0:
        os.chown(path, 12345, 23456)
        layer.save(path)
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.skipif(os.name != "posix", reason="modes and pipes are POSIX's")
def test_pipes_and_devices_are_no_files(tmp_path):
    """Reading of a pipe would wait for ever; a save would put a file in its place."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        for call in (BatchNormalization().save, BatchNormalization.load):
            with pytest.raises(ValueError, match="path must name a file"):
                call(path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(failing, tmp_path, monkeypatch):
    path = saved(layer_of({}), tmp_path)
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise KeyboardInterrupt

    target = {"write": (np.lib.format, "write_array"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[failing]
    monkeypatch.setattr(*target, fail)
    with pytest.raises(KeyboardInterrupt):
        layer_of({"momentum": 0.5}).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_the_old_file_is_there_until_the_new_one_is_written(tmp_path, monkeypatch):
    path = saved(layer_of({}), tmp_path)
    seen = []

    def look(number):
        seen.append(BatchNormalization.load(path).momentum)
        assert len(os.listdir(tmp_path)) == 2  # the new one is beside it, on the same file system

    monkeypatch.setattr(os, "fsync", look)
    layer_of({"momentum": 0.5}).save(path)
    assert [*seen, BatchNormalization.load(path).momentum] == [0.99, 0.5]
    assert os.listdir(tmp_path) == [path.name]


def test_what_cannot_be_saved_touches_no_file(tmp_path):
    for name, value in (("gamma", [1.0] * 4), ("moving_mean", np.ones(3)), ("beta", np.ones(4, int))):
        layer = layer_of({})
        setattr(layer, name, value)
        with pytest.raises((TypeError, ValueError), match=name):
            layer.save(tmp_path / "layer")
    assert os.listdir(tmp_path) == []


# ---- damaged and foreign files


def check_refused(path, words=None):
    with pytest.raises(ValueError, match=words) as caught:
        BatchNormalization.load(path)
    assert caught.type is ValueError
    assert str(caught.value).startswith("path must name a file that save wrote, whole; ")
    assert repr(str(path)) in str(caught.value)


def check_refused_or_equal(layer, path):
    """Whether the file was refused."""
    try:
        twin = BatchNormalization.load(path)
    except ValueError:
        check_refused(path)
        return True
    check_equal(layer, twin)
    return False


@pytest.mark.parametrize("name", ["defaults", "arrays"])
def test_a_file_cut_at_any_length(name, tmp_path):
    content = saved(layer_of(LAYERS[name]), tmp_path).read_bytes()
    path = tmp_path / "cut"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        check_refused(path)


@pytest.mark.parametrize("built", [True, False])
def test_a_file_with_any_byte_wrong(built, tmp_path):
    """Bytes that hold nothing, as times, leave the layer as it was; the rest is found."""
    layer = layer_of(LAYERS["arrays"], built=built)
    content = saved(layer, tmp_path).read_bytes()
    path = tmp_path / "wrong"
    refused = 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([~content[position] & 0xFF]) + content[position + 1 :])
        refused += check_refused_or_equal(layer, path)
    assert refused > 0.7 * len(content)


def test_a_file_with_much_wrong(tmp_path):
    layer = layer_of({})
    content = np.frombuffer(saved(layer, tmp_path).read_bytes(), np.uint8)
    path = tmp_path / "wrong"
    for seed in range(300):
        rng = np.random.default_rng(seed)
        wrong = content.copy()
        start, length = rng.integers(len(wrong)), rng.integers(1, 200)
        wrong[start : start + length] = rng.integers(0, 256, wrong[start : start + length].size)
        for damaged in (wrong, np.roll(content, length), np.delete(content, slice(start, start + length))):
            path.write_bytes(damaged.tobytes())
            check_refused_or_equal(layer, path)


def npy(array, allow_pickle=False):
    file = BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npz(**arrays):
    file = BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


FOREIGN = {
    "nothing": b"",
    "text": b"momentum: 0.99\n",
    "a npy file": npy(np.ones(3)),
    "an npz file": npz(x=np.ones(3)),
    "an empty npz file": npz(),
    "another format": npz(format="other", version=np.int64(1), config="{}"),
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind, tmp_path):
    path = tmp_path / "foreign"
    path.write_bytes(FOREIGN[kind])
    check_refused(path, {"an npz file": "format", "another format": "format must be.*got other"}.get(kind))


def edited(path, config=None, arrays=None, without=(), compression=zipfile.ZIP_STORED, extra=()):
    """A file with checksums that are right, and something else that is not."""
    with np.load(path) as file:
        content = dict(file)
    if config is not None:
        content["config"] = np.array(config(json.loads(content["config"][()])))
    content = {**content, **(arrays or {})}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in content.items():
            if name not in without:
                archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
        for name, data in extra:
            archive.writestr(name, data)


class Trap:
    """What must never be unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def changed(**values):
    return lambda config: json.dumps({**config, **values})


def argument(**values):
    return lambda config: json.dumps({**config, "arguments": {**config["arguments"], **values}})


HUGE = npy(np.ones(4)).replace(b"(4,), }" + 15 * b" ", b"(4000000000000000,), }")
EDITS = [
    ({"arrays": {"version": np.int64(2)}}, "version must be 1, got 2, of a later bnnumba"),
    ({"arrays": {"version": np.int64(0)}}, "version must be 1, got 0"),
    ({"arrays": {"version": np.int64(-1)}}, "version must be >= 0, got -1"),
    ({"arrays": {"version": np.float64(1)}}, "version must be an int"),
    ({"arrays": {"version": np.ones(1, int)}}, "version must be an int"),
    ({"arrays": {"format": np.array("other")}}, "format must be bnnumba.BatchNormalization, got other"),
    ({"arrays": {"format": np.array(["bnnumba.BatchNormalization"])}}, "format must be"),
    ({"arrays": {"format": np.float64(1)}}, "format must be"),
    *(({"without": [name]}, name) for name in ("format", "version", "config")),
    ({"without": ["gamma"]}, r"arrays must be.*gamma\.npy.*got"),
    ({"without": ["gamma_initializer"]}, r"arrays must be.*gamma_initializer\.npy.*got"),
    ({"arrays": {"other": np.ones(4)}}, r"arrays must be.*got.*other\.npy"),
    ({"extra": [("gamma", b"")]}, "arrays must be.*, gamma$"),
    ({"extra": [("gamma.npy", npy(np.ones(4)))]}, "gamma.npy must be there once"),
    ({"compression": zipfile.ZIP_DEFLATED}, "not compressed"),
    ({"compression": zipfile.ZIP_LZMA}, "not compressed"),
    ({"arrays": {"gamma": np.ones(3)}}, r"gamma must have shape \(4,\), got \(3,\)"),
    ({"arrays": {"gamma": np.ones((4, 1))}}, r"gamma must have shape \(4,\)"),
    ({"arrays": {"gamma": np.ones(4, int)}}, "gamma must be an array of real floats, got int64"),
    ({"arrays": {"gamma": np.ones(4, complex)}}, "gamma must be an array of real floats"),
    ({"arrays": {"gamma": npy(np.array([Trap()] * 4), allow_pickle=True)}}, "allow_pickle=False"),
    ({"arrays": {"config": npy(np.array([Trap()] * 4), allow_pickle=True)}}, "allow_pickle=False"),
    ({"arrays": {"gamma": b"\x80\x04K\x01."}}, "EOF|magic"),
    ({"arrays": {"gamma": npz(x=np.ones(4))}}, "magic"),
    ({"arrays": {"gamma": npy(np.ones(4))[:-1]}}, "EOF|fewer|expected"),
    ({"arrays": {"gamma": npy(np.ones(4)).replace(b"<f8", b"<q9")}}, "descr"),
    ({"arrays": {"gamma": HUGE}}, "allocate|EOF|expected"),
    ({"arrays": {"gamma_initializer": np.ones(3)}}, r"gamma_initializer must have the feature shape.*\(3,\)"),
    ({"arrays": {"gamma_initializer": np.ones(4, complex)}}, "gamma_initializer must be 'zeros'"),
    ({"arrays": {"config": np.array("{")}}, "property name"),
    ({"arrays": {"config": np.array("[" * 100_000)}}, "recursion|Expecting|[Ss]tack"),
    ({"arrays": {"config": np.array("[1]")}}, "config must be an object of arguments"),
    ({"arrays": {"config": np.float64(1)}}, "JSON"),
    ({"arrays": {"config": np.array(["{}", "{}"])}}, "size 1"),
    ({"config": lambda config: "{}"}, "config must be an object of arguments"),
    ({"config": changed(more=1)}, "config must be an object"),
    ({"config": changed(arguments=[])}, "arguments must not be list"),
    ({"config": changed(trainable=1)}, "trainable must not be int 1"),
    ({"config": changed(batches_seen=1.5)}, r"batches_seen must not be float 1\.5"),
    ({"config": changed(batches_seen=True)}, "batches_seen must be an int, got bool"),
    ({"config": changed(batches_seen=-1)}, "batches_seen must be >= 0, got -1"),
    ({"config": changed(batches_seen=10**30)}, "batches_seen must be an int"),
    ({"config": changed(feature_shape=None)}, "feature_shape must be that of the weights, got None"),
    ({"config": changed(feature_shape=4)}, "feature_shape must not be int 4"),
    ({"config": changed(feature_shape=[5])}, r"beta must have shape \(5,\)|gamma must have shape \(5,\)"),
    ({"config": changed(feature_shape=["4"])}, r"gamma must have shape \('4',\)"),
    ({"config": changed(arrays=["gamma"])}, "arrays must be"),
    ({"config": changed(arrays=[1])}, "arrays must be"),
    ({"config": changed(feature_shape=[10**9], arrays=[]), "without": ["gamma", "beta", "moving_mean",
      "moving_variance", "gamma_initializer", "beta_initializer"]}, "feature_shape must be that of the weights.*none"),
    ({"config": argument(momentum=2.0)}, r"momentum must be in \[0, 1\], got 2\.0"),
    ({"config": argument(momentum="0.9")}, "momentum must be a real number"),
    ({"config": argument(epsilon=float("nan"))}, "epsilon must be finite"),
    ({"config": argument(axis=[1, 1])}, "axis must not repeat"),
    ({"config": argument(axis=1.0)}, "axis must be an int"),
    ({"config": argument(dtype="float128")}, "dtype must be float32 or float64"),
    ({"config": argument(dtype="object")}, "dtype must be float32 or float64"),
    ({"config": argument(synchronized=True)}, "synchronized"),
    ({"config": argument(gamma_initializer="ones")}, "gamma_initializer"),
    ({"config": argument(scale=False)}, "weights must be beta"),
    ({"config": argument(renorm=True)}, "weights must be.*moving_stddev"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("edit", "words"), EDITS)
def test_a_file_that_is_whole_and_wrong(edit, words, tmp_path):
    path = saved(layer_of(LAYERS["arrays"]), tmp_path)
    edited(path, **edit)
    check_refused(path, f"(?s){words}")


def test_a_file_that_was_only_written_anew(tmp_path):
    """Each row above changes one thing only in a file that loads."""
    layer = layer_of(LAYERS["arrays"])
    path = saved(layer, tmp_path)
    edited(path, config=json.dumps)
    check_equal(layer, BatchNormalization.load(path))


def test_arguments_of_a_later_release_have_their_defaults_in_older_files(tmp_path):
    path = saved(layer_of({}), tmp_path)

    def older(config):
        del config["arguments"]["renorm_momentum"]
        return json.dumps(config)

    edited(path, config=older)
    assert BatchNormalization.load(path).renorm_momentum == 0.99
