"""Wrong and odd arguments at random: a call gives the right result, or refuses with nothing written.

`pytest tests/test_fuzz_arguments.py --fuzz-cases 20000 --hypothesis-seed 1` runs longer.
"""

import decimal
import fractions

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import bnnumba
from bnnumba import BatchNormalization, Moments
from tests.tools.problems import LAYOUTS, same_bits

SHAPE, FEATURES = (4, 3), (3,)


class Index:
    """An int to whoever asks, as a library's own integers are."""

    def __index__(self):
        return 0


class Subclass(np.ndarray):
    """An array with a class of its own."""


class ArrayLike:
    """What could be made an array, and is none."""

    def __array__(self, dtype=None, copy=None):
        return data()


def data(shape=SHAPE, dtype=np.float32):
    """Sixteenths, so that all sums are exact: another memory order has another order of sums."""
    return (1 + np.arange(int(np.prod(shape))) / 16).reshape(shape).astype(dtype)


def locked(array):
    array.flags.writeable = False
    return array


def strided(shape, strides):
    return np.lib.stride_tricks.as_strided(data((64,)), shape, strides)


SCALARS = (
    None, True, False, 0, 1, -1, 2, -2, 3, 10**400, -(10**400), 0.0, -0.0, 0.5, 1.0, -0.5, 1e-300, 1e308, np.nan,
    np.inf, -np.inf, 1j, "text", "zeros", "ones", "float64", b"bytes", (), (0,), (1,), (-1,), (0, 1), (1, 0), (0, 0),
    (0, -2), (2,), (0.0,), (True,), ((0,),), (None,), [], [0], [1.0, 2.0, 3.0], {}, {"x": 1}, range(2), ...,
    NotImplemented, float, np.float32, object, slice(1), np.float32(0.5), np.float64(np.nan), np.int64(1), np.uint8(1),
    np.bool_(True), np.complex64(1), np.str_("a"), np.datetime64("2026-01-01"), decimal.Decimal("0.5"),
    decimal.Decimal("NaN"), fractions.Fraction(1, 2), np.exceptions.AxisError, Moments(1, 2, 3),
    Moments(None, None, None),
)  # fmt: skip

# Each is made anew for every call. Some are right for some arguments.
VALUES = {
    **{repr(value): lambda value=value: value for value in SCALARS},
    "an index": Index, "an array-like": ArrayLike, "an object": object, "a memoryview": lambda: memoryview(data()),
    "a generator": lambda: (value for value in (1.0, 2.0, 3.0)), "a callable": lambda: np.ones,
    **{f"{dtype} {shape}": lambda dtype=dtype, shape=shape: data(shape).astype(dtype)
       for dtype in ("f4", "f8", ">f4", ">f8", "f2", "g", "i4", "u8", "?", "c8", "O", "U3")
       for shape in (SHAPE, FEATURES, (3, 4), (1, 3), (4, 1), (0, 3), (4, 0), (2,), (), (12,), (1, 4, 3), (1,) * 40)},
    **{f"{layout} {dtype} {shape}": lambda layout=layout, dtype=dtype, shape=shape: LAYOUTS[layout](data(shape, dtype))
       for layout in LAYOUTS for dtype in ("f4", "f8") for shape in (SHAPE, FEATURES)},
    "datetimes": lambda: np.zeros(SHAPE, "M8[s]"), "records": lambda: np.zeros(SHAPE, [("a", "f4")]),
    "masked": lambda: np.ma.masked_array(data()), "masked features": lambda: np.ma.masked_array(data(FEATURES)),
    "a subclass": lambda: data().view(Subclass),
    "a subclass of features": lambda: data(FEATURES, "f8").view(Subclass),
    "NaN": lambda: np.full(SHAPE, np.nan, np.float32), "NaN features": lambda: np.full(FEATURES, np.nan),
    "infinite": lambda: np.full(SHAPE, -np.inf, np.float32), "negative features": lambda: -data(FEATURES, "f8"),
    "zero strides": lambda: strided(SHAPE, (0, 0)), "overlapping": lambda: strided(SHAPE, (4, 4)),
    "a column": lambda: strided(SHAPE, (12, 4))[:, :1], "zero strides of features": lambda: strided(FEATURES, (0,)),
    "locked features": lambda: locked(data(FEATURES, "f8")),
    "Moments": lambda: Moments(data(FEATURES, "f8"), data(FEATURES, "f8"), 4),
    "Moments of 2": lambda: Moments(data((2,), "f8"), data((2,), "f8"), 4),
    "Moments of none": lambda: Moments(data(FEATURES, "f8"), data(FEATURES, "f8"), 0),
    "Moments of a NaN count": lambda: Moments(data(FEATURES, "f8"), data(FEATURES, "f8"), np.nan),
    "Moments of float32": lambda: Moments(data(FEATURES), data(FEATURES), np.int64(4)),
}  # fmt: skip

# What is taken from the other arguments of the same call.
SHARED = {
    "x": lambda a: a.get("x"),
    "x reversed": lambda a: a["x"][::-1] if isinstance(a.get("x"), np.ndarray) and a["x"].ndim else None,
    "dy": lambda a: a.get("dy"),
    "mean": lambda a: a.get("mean"),
    "the moments' mean": lambda a: getattr(a.get("moments"), "mean", None),
    "moving_mean": lambda a: a.get("moving_mean"),
}


def right_arguments():
    """For every function, arguments that it takes."""
    x, dy, f = data(), data() - 1, lambda: data(FEATURES, "f8")
    common = {"feature_axis": -1, "epsilon": 1e-3, "out": None}
    behind = {"activation": "relu", "residual": data() - 2}
    weights = {"mask": None, "sample_weight": np.array([[1.0], [2.0], [0.0], [0.5]])}  # their sums are exact
    moments = Moments(f(), f(), 4)
    return {
        bnnumba.moments: {"x": x, "feature_axis": -1, **weights},
        bnnumba.merge_moments: {"a": moments, "b": Moments(f(), f(), 5)},
        bnnumba.normalize: {"x": x, "mean": f(), "var": f(), "gamma": f(), "beta": f(), **common, **behind},
        bnnumba.batch_norm: {"x": x, "gamma": f(), "beta": f(), **common, **behind, **weights},
        bnnumba.batch_norm_backward: {
            "dy": dy, "x": x, "mean": f(), "var": f(), "gamma": f(), **common, "frozen": False, "needs_dx": True,
            "y": data(), "activation": "relu", "residual": True, **weights,
        },
        bnnumba.batch_norm_double_backward: {
            "ddx": data() + 1, "ddgamma": f(), "ddbeta": f(), "dy": dy, "x": x, "mean": f(), "var": f(), "gamma": f(),
            "feature_axis": -1, "epsilon": 1e-3, "frozen": False,
        },
        bnnumba.update_moving: {
            "moving_mean": f(), "moving_var": f(), "moments": moments, "momentum": 0.9, "ddof": 0,
            "skip_nonfinite": False,
        },
        layer_step: {
            "axis": -1, "momentum": 0.9, "epsilon": 1e-3, "center": True, "scale": True, "beta_initializer": "zeros",
            "gamma_initializer": "ones", "moving_mean_initializer": 0.5, "moving_variance_initializer": data(FEATURES),
            "ddof": 0, "dtype": "float32", "skip_nonfinite": False, "renorm": False, "renorm_clipping": None,
            "renorm_momentum": 0.99, "activation": None, "input_shape": SHAPE, "x": x, "training": True,
            "residual": None, "weights_of_x": None, "dy": dy, "weights": [f(), f(), f(), f()],
        },
    }  # fmt: skip


def layer_step(input_shape, x, training, residual, weights_of_x, dy, weights, **options):
    """All that a layer does; returns all that it shows."""
    layer = BatchNormalization(**options)
    layer = BatchNormalization.from_config(layer.get_config())
    layer.build(input_shape)
    layer.set_weights(weights)
    before = layer.get_weights()
    try:
        y = layer(x, training=training, residual=residual, sample_weight=weights_of_x)
    except (TypeError, ValueError):
        assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), before, strict=True))
        raise
    dx = layer.backward(dy) if training else None
    return y, dx, layer.dgamma, layer.dbeta, *layer.get_weights()


FUNCTIONS = list(right_arguments())


def _plausible(argument):
    """The names of the values of the same type and shape as a right argument; of an array's, for None."""
    argument = data() if argument is None else argument
    return [
        name for name, make in VALUES.items()
        if isinstance(value := make(), type(argument)) and getattr(value, "shape", ()) == getattr(argument, "shape", ())
    ]  # fmt: skip


PLAUSIBLE = [{name: _plausible(value) for name, value in each.items()} for each in right_arguments().values()]


@st.composite
def calls(draw):
    """A function's number, and what replaces one to three of its arguments, by name."""
    number = draw(st.integers(0, len(FUNCTIONS) - 1))
    names = draw(st.lists(st.sampled_from(sorted(PLAUSIBLE[number])), min_size=1, max_size=3, unique=True))
    anything = st.sampled_from([*sorted(VALUES), *sorted(SHARED)])
    return number, {name: draw(st.one_of(st.sampled_from(PLAUSIBLE[number][name]), anything)) for name in names}


def arguments_of(number, replaced):
    arguments = list(right_arguments().values())[number]
    for name, value in replaced.items():
        arguments[name] = VALUES[value]() if value in VALUES else SHARED[value](arguments)
    return arguments


def arrays_in(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(part)


def contents(arrays):
    return [array.tobytes() if array.dtype != object else array.tolist() for array in arrays]


def plain(value):
    """The same argument as an ordinary array or number."""
    if isinstance(value, Moments):
        return Moments(plain(value.mean), plain(value.var), value.count)
    if isinstance(value, np.ndarray):
        return np.array(value, value.dtype.newbyteorder("="), order="C", subok=False)
    return [plain(part) for part in value] if isinstance(value, list) else value


def written(function, arguments, result):
    """The arrays that a call was to write."""
    if function is bnnumba.update_moving:
        return [arguments["moving_mean"], arguments["moving_var"]]
    return list(arrays_in(result))


@given(calls())
def test_right_or_refused(call):
    number, replaced = call
    function, arguments = FUNCTIONS[number], arguments_of(number, replaced)
    arrays = list(arrays_in(arguments))
    before = contents(arrays)
    ordinary = {name: plain(value) for name, value in arguments.items() if name != "out"}
    try:
        result = function(**arguments)
    except (TypeError, ValueError):
        assert contents(arrays) == before
        return
    expected = written(function, ordinary, function(**ordinary))
    found = written(function, arguments, result)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert same_bits(plain(one), plain(other))
    for array, kept in zip(arrays, before, strict=True):
        if not any(np.may_share_memory(array, one) for one in found):
            assert contents([array]) == [kept]
