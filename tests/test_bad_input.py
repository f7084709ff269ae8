"""Each argument wrong in every way: the right error, in the right words, and nothing written."""

import copy
import re
from fractions import Fraction

import numpy as np
import pytest

import bnnumba
from tests.tools.problems import same_bits

AxisError = np.exceptions.AxisError
SHAPE, FEATURES = (4, 3), (3,)


def floats(shape=SHAPE, dtype=np.float32):
    return np.linspace(1, 2, int(np.prod(shape))).reshape(shape).astype(dtype)


def locked(array):
    array.flags.writeable = False
    return array


def overlapping_itself(array):
    return np.lib.stride_tricks.as_strided(array, array.shape, (0, array.itemsize))


def moments_of(mean, var, count=4):
    return bnnumba.Moments(mean, var, count)


# Per argument, rows of: what is given (or made from the other arguments), the error, the words in its message.

NO_ARRAY = [
    ([[1.0, 2.0, 3.0]] * 4, TypeError, r"array.*list"),
    (1.0, TypeError, r"array.*1\.0"),
    (None, TypeError, r"array.*None"),
    ("text", TypeError, r"array.*text"),
    (np.ma.masked_array(floats()), TypeError, r"array.*MaskedArray"),
]
BAD_NUMBERS = [
    *NO_ARRAY,
    *((floats().astype(dtype), TypeError, f"float32, float64.*{np.dtype(dtype)}")
      for dtype in (np.longdouble, np.complex64, object, "U3")),
    (np.zeros(4, [("field", np.float32)]), TypeError, r"float32, float64.*field"),
    (np.float32(1.0), TypeError, "array"),
    (np.array(1.0, np.float32), TypeError, r"axis.*0-d"),
]  # fmt: skip
BAD_DATA = [
    *BAD_NUMBERS,
    *((floats().astype(dtype), TypeError, f"{np.dtype(dtype)}: integers train only as floats: .*astype.np.float32")
      for dtype in (np.uint8, np.int32, np.int64, bool)),
]  # fmt: skip
BAD_DY = [
    *BAD_DATA,
    (floats((4, 4)), ValueError, r"\(4, 3\).*\(4, 4\)"),
    (floats((3, 4)), ValueError, r"\(4, 3\).*\(3, 4\)"),
    (floats((1, 3)), ValueError, r"\(4, 3\).*\(1, 3\)"),
    (floats(dtype=np.float64), TypeError, "float32.*float64"),
]
BAD_AXIS = [
    (2, AxisError, "2.*out of bounds.*2 axes"),
    (-3, AxisError, "-3.*out of bounds"),
    ((0, 5), AxisError, "5.*out of bounds"),
    ((0, 0), ValueError, r"repeat.*\(0, 0\)"),
    ((1, -1), ValueError, r"repeat.*\(1, -1\)"),
    *((value, TypeError, f"int.*{re.escape(str(value))}") for value in (1.0, "1", None, [0], True, 1j)),
    ((0, 1.0), TypeError, r"int.*1\.0"),
    ((0, "1"), TypeError, "int.*1"),
    ((True,), TypeError, "int.*True"),
    (np.array([0]), TypeError, "int"),
]
BAD_FEATURES = [
    ([1.0, 2.0, 3.0], TypeError, r"array.*list"),
    ("text", TypeError, r"array.*text"),
    (np.ma.masked_array(floats(FEATURES)), TypeError, r"array.*MaskedArray"),
    *((floats(FEATURES).astype(dtype), TypeError, f"float.*{np.dtype(dtype)}")
      for dtype in (np.int64, np.uint8, bool, np.complex128, object)),
    (floats((2,)), ValueError, r"\(3,\).*\(2,\)"),
    (floats((1, 3)), ValueError, r"\(3,\).*\(1, 3\)"),
    (floats((1,)), ValueError, r"\(3,\).*\(1,\)"),
    (floats(SHAPE), ValueError, r"\(3,\).*\(4, 3\)"),
    (np.array(1.0), ValueError, r"\(3,\).*\(\)"),
]  # fmt: skip
BAD_POLICY = [
    *((value, ValueError, "nan_policy must be one of propagate, .*raise, got") for value in ("ignore", None, True, 1)),
]
NO_NUMBER = [(value, TypeError, f"number.*{re.escape(repr(value))}") for value in ("0.5", None, 1j, [0.5], True)]
NOT_FINITE = [(value, ValueError, repr(value)[:20]) for value in (np.inf, -np.inf, np.nan, 10**400)]
BAD_EPSILON = [*NO_NUMBER, *NOT_FINITE, (-1e-9, ValueError, "0.*-1e-09"), (np.ones(3), TypeError, "number")]
BAD_MOMENTUM = [*NO_NUMBER, *NOT_FINITE, (-0.1, ValueError, r"\[0, 1\].*-0\.1"), (1.01, ValueError, r"\[0, 1\].*1\.01")]
BAD_DDOF = [*NO_NUMBER, *NOT_FINITE, *((value, ValueError, f"0 or 1.*{value}") for value in (2, -1, 0.5))]
BAD_FLAG = [(value, TypeError, f"True or False.*{re.escape(repr(value))}") for value in (1, 0, "yes", None)]
BAD_OUT = [
    (floats().tolist(), TypeError, "array.*list"),
    (np.ma.masked_array(floats()), TypeError, "array.*MaskedArray"),
    (floats(dtype=np.float64), TypeError, "float32.*float64"),
    (floats((4, 4)), ValueError, r"\(4, 3\).*\(4, 4\)"),
    (floats((3, 4)), ValueError, r"\(4, 3\).*\(3, 4\)"),
    (locked(floats()), ValueError, "writeable.*read-only"),
    (overlapping_itself(floats()), ValueError, "overlap itself"),
    (lambda a: a["x"][::-1], ValueError, "memory with x"),
    (lambda a: a["memory"][1:5], ValueError, "memory with x"),
    (lambda a: a["gamma"].base[:12].reshape(SHAPE), ValueError, "memory with gamma"),
]
BAD_OUT_FORWARD = [*BAD_OUT, (lambda a: a["residual"][::-1], ValueError, "memory with residual")]
BAD_OUT_BACKWARD = [
    *BAD_OUT,
    (lambda a: a["dy"][::-1], ValueError, "memory with dy"),
    (lambda a: a["y"], ValueError, "memory with y"),
]
BAD_ACTIVATION = [
    (value, ValueError, f"activation must be None, .*{re.escape(repr(value))}")
    for value in ("ReLU", "tanh", "", True, 0, ["relu"])
]
BAD_RESIDUAL = [row for row in BAD_DY if row[0] is not None]
BAD_POSITIONS = [
    *(row for row in NO_ARRAY if row[0] is not None and not isinstance(row[0], np.ma.MaskedArray)),
    *((np.ones(shape), ValueError, re.escape(f"broadcast to x's shape (4, 3), got {shape}"))
      for shape in ((4, 4), (5, 1), (1, 4, 1), (4,), (0, 1), (2, 3))),
]  # fmt: skip
BAD_MASK = [
    *((array.astype(bool) if isinstance(array, np.ndarray) else array, *row) for array, *row in BAD_POSITIONS),
    (np.ma.masked_array(floats((4, 1))), TypeError, "array.*MaskedArray"),
    *((np.ones((4, 1), dtype), TypeError, f"bool.*{np.dtype(dtype)}") for dtype in (int, np.float32, object, "U1")),
]
BAD_WEIGHT = [
    *BAD_POSITIONS,
    *((np.ones((4, 1), dtype), TypeError, f"real numbers.*{np.dtype(dtype)}") for dtype in (bool, complex, object)),
    *((np.array([[1.0], [value], [1.0], [0.0]]), ValueError, "finite and >= 0") for value in (np.nan, np.inf, -1e-9)),
    (np.full((4, 1), 1e308), ValueError, "finite sum"),
]
BAD_Y = [*BAD_RESIDUAL, (None, TypeError, "must be given where there is an activation")]
BAD_MOVING = [
    *NO_ARRAY,
    (np.ma.masked_array(floats(FEATURES)), TypeError, "array.*MaskedArray"),
    *((floats(FEATURES).astype(dtype), TypeError, f"float32 or float64.*{np.dtype(dtype)}")
      for dtype in (np.int64, np.float16, np.longdouble, np.complex64)),
    (floats((2,)), ValueError, r"\(3,\).*\(2,\)"),
    (floats((1, 3)), ValueError, r"\(3,\).*\(1, 3\)"),
    (locked(floats(FEATURES)), ValueError, "writeable.*read-only"),
    (np.lib.stride_tricks.as_strided(floats(FEATURES), FEATURES, (0,)), ValueError, "overlap itself"),
]  # fmt: skip
F = floats(FEATURES, np.float64)
BAD_MOMENTS = [
    ((F, F, 4), TypeError, "Moments.*tuple"),
    (None, TypeError, "Moments.*None"),
    (moments_of(F.tolist(), F), TypeError, "mean.*list"),
    (moments_of(F.astype(int), F), TypeError, "mean.*int64"),
    (moments_of(F, F[:2]), ValueError, r"var.*\(3,\).*\(2,\)"),
    (moments_of(F, F.astype(int)), TypeError, "var.*int64"),
    (moments_of(F, F, "4"), TypeError, "count.*4"),
    (moments_of(F, F, np.nan), ValueError, "count.*nan"),
    (moments_of(F, F, -0.5), ValueError, r"count.*-0\.5"),
    (moments_of(F, F, None), TypeError, "count.*None"),
    (moments_of(F, F, True), TypeError, "count.*True"),
    (moments_of(F, F, -1), ValueError, "count.*-1"),
    (moments_of(F, F, np.ones(2)), ValueError, r"count must be .* of the feature shape, got ndarray of shape \(2,\)"),
    (moments_of(F, F, -F), ValueError, "count must be finite and >= 0"),
]
OTHER_FEATURES = [(moments_of(F[:2], F[:2]), ValueError, r"\(3,\).*\(2,\)|\(2,\).*\(3,\)")]

DATA = {"x": BAD_DATA, "feature_axis": BAD_AXIS, "gamma": BAD_FEATURES, "epsilon": BAD_EPSILON}
STATISTICS = {name: [*BAD_FEATURES, (None, TypeError, "array.*None")] for name in ("mean", "var")}
WEIGHTS = {"mask": BAD_MASK, "sample_weight": BAD_WEIGHT}
BEHIND = {"activation": BAD_ACTIVATION, "residual": BAD_RESIDUAL}
FUNCTIONS = {
    bnnumba.moments: {"x": BAD_NUMBERS, "feature_axis": BAD_AXIS, "nan_policy": BAD_POLICY, **WEIGHTS},
    bnnumba.normalize: {
        **DATA, "x": BAD_NUMBERS, **STATISTICS, **BEHIND, "beta": BAD_FEATURES, "out": BAD_OUT_FORWARD,
        "nan_policy": [*BAD_POLICY, ("omit", ValueError, "nan_policy must be one of propagate, raise, got str 'omit'")],
        "dtype": [("float32", ValueError, "dtype is for integers only, and x is float32")],
    },
    bnnumba.batch_norm: {**DATA, **BEHIND, **WEIGHTS, "beta": BAD_FEATURES, "out": BAD_OUT_FORWARD},
    bnnumba.batch_norm_backward: {
        **DATA, **STATISTICS, "dy": BAD_DY, "frozen": BAD_FLAG, "needs_dx": BAD_FLAG, "out": BAD_OUT_BACKWARD,
        "y": BAD_Y, "activation": BAD_ACTIVATION, "residual": BAD_FLAG, **WEIGHTS,
    },
    bnnumba.merge_moments: {"a": [*BAD_MOMENTS, *OTHER_FEATURES], "b": [*BAD_MOMENTS, *OTHER_FEATURES]},
    bnnumba.update_moving: {
        "moving_mean": [*BAD_MOVING, (lambda a: a["moving_var"], ValueError, "memory with moving_var")],
        "moving_var": [*BAD_MOVING, (lambda a: a["moments"].mean, ValueError, "memory with moments.mean")],
        "moments": BAD_MOMENTS,
        "momentum": BAD_MOMENTUM,
        "ddof": BAD_DDOF,
        "skip_nonfinite": BAD_FLAG,
    },
}  # fmt: skip
CASES = [
    pytest.param(function, name, *row, id=f"{function.__name__}-{name}-{i}")
    for function, arguments in FUNCTIONS.items()
    for name, rows in arguments.items()
    for i, row in enumerate(rows)
]


def right_arguments(function, names):
    """Arguments that the function accepts, and the larger arrays that they are parts of."""
    memory, features = floats((6, 3)), floats((12,), np.float32)
    known = {
        "x": memory[:4], "dy": floats(), "out": np.zeros(SHAPE, np.float32), "feature_axis": -1, "epsilon": 1e-3,
        "mean": F.copy(), "var": F.copy(), "gamma": features[:3], "beta": F.copy(), "frozen": False, "needs_dx": True,
        "moving_mean": F.copy(), "moving_var": F.copy(), "moments": moments_of(F.copy(), F.copy()), "momentum": 0.9,
        "ddof": 0, "skip_nonfinite": False, "a": moments_of(F.copy(), F.copy()), "b": moments_of(F.copy(), F.copy()),
    }  # fmt: skip
    known["y"], known["activation"] = floats(), "relu"
    known["mask"], known["sample_weight"] = None, floats((4, 1))
    known["nan_policy"], known["dtype"] = "propagate", None
    known["residual"] = False if function is bnnumba.batch_norm_backward else floats()
    return {name: known[name] for name in names}, {"memory": memory}


def check_refused(call, error, name, words):
    with pytest.raises(error, match=f"(?s).*{words}") as caught:
        call()
    assert name in str(caught.value)
    assert error is not TypeError or caught.type is TypeError


def arrays_in(values):
    for value in values:
        if isinstance(value, bnnumba.Moments):
            yield from arrays_in(value)
        elif isinstance(value, np.ndarray) and value.dtype.char in "fd":
            yield value


@pytest.mark.parametrize(("function", "name", "given", "error", "words"), CASES)
def test_functions_refuse(function, name, given, error, words):
    arguments, parts = right_arguments(function, FUNCTIONS[function])
    if callable(given):
        given = given({**arguments, **parts})
    arguments[name] = given
    if name == "mask":
        arguments["sample_weight"] = None
    arrays = list(arrays_in(arguments.values()))
    before = [array.copy() for array in arrays]
    check_refused(lambda: function(**arguments), error, name, words)
    assert all(same_bits(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_accept_the_right_arguments(function):
    """Each row above changes one thing only in a call that works."""
    arguments, _ = right_arguments(function, FUNCTIONS[function])
    function(**arguments)


@pytest.mark.parametrize("function", [function for function in FUNCTIONS if "mask" in FUNCTIONS[function]])
def test_a_mask_and_weights_are_refused(function):
    arguments, _ = right_arguments(function, FUNCTIONS[function])
    with pytest.raises(ValueError, match="mask must be None where sample_weight is given"):
        function(**{**arguments, "mask": np.ones((4, 1), bool)})


def test_out_without_dx_is_refused():
    arguments, _ = right_arguments(bnnumba.batch_norm_backward, FUNCTIONS[bnnumba.batch_norm_backward])
    with pytest.raises(ValueError, match="out must be None"):
        bnnumba.batch_norm_backward(**{**arguments, "needs_dx": False})


# ---- the layer

BAD_INITIALIZER = [
    (value, ValueError, words)
    for value, words in (
        ("glorot", "zeros.*glorot"), (None, "None"), (np.nan, "nan"), (np.inf, "inf"), (1j, "1j"), ([1.0], "list"),
        (10**400, "int"),
        (True, "True"), (np.ones(3, complex), "complex"), (np.array(["a"]), "<U1"), (np.ma.ones(3), "MaskedArray"),
    )
]  # fmt: skip
BAD_DTYPE = [
    (value, (TypeError, ValueError), "float32 or float64") for value in ("float16", int, None, "text", 3, ">f3")
]
INITIALIZERS = [f"{name}_initializer" for name in ("beta", "gamma", "moving_mean", "moving_variance")]
CONSTRUCTOR = {
    "axis": [row for row in BAD_AXIS if row[1] is TypeError] + [((0, 0), ValueError, r"repeat.*\(0, 0\)")],
    "momentum": [row for row in BAD_MOMENTUM if row[0] is not None],
    "epsilon": BAD_EPSILON,
    "ddof": BAD_DDOF,
    "center": BAD_FLAG,
    "scale": BAD_FLAG,
    "skip_nonfinite": BAD_FLAG,
    "activation": BAD_ACTIVATION,
    "dtype": BAD_DTYPE,
    **dict.fromkeys(INITIALIZERS, BAD_INITIALIZER),
}


def rows(table):
    return [pytest.param(name, *row, id=f"{name}-{i}") for name, rows in table.items() for i, row in enumerate(rows)]


@pytest.mark.parametrize(("name", "given", "error", "words"), rows(CONSTRUCTOR))
def test_the_layer_refuses_when_it_is_made(name, given, error, words):
    check_refused(lambda: bnnumba.BatchNormalization(**{name: given}), error, name, words)


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.ones(2), r"\(3,\).*\(2,\)"),
        (np.ones((1, 3)), r"\(3,\).*\(1, 3\)"),
        (lambda shape: np.ones(2), r"\(3,\).*\(2,\)"),
        (lambda shape: 1.0, r"\(3,\).*\(\)"),
        (lambda shape: np.ones(shape, complex), "real.*complex"),
        (lambda shape: None, "real.*object"),
    ],
)
def test_initializers_of_another_shape_leave_the_layer_unbuilt(name, given, words):
    layer = bnnumba.BatchNormalization(**{name: given})
    for build in (lambda: layer.build(SHAPE), lambda: layer(floats())):
        check_refused(build, ValueError, name, words)
        assert layer.get_weights() == []


@pytest.mark.parametrize("name", ["beta_initializer", "gamma_initializer"])
def test_initializers_beyond_the_dtype(name):
    layer = bnnumba.BatchNormalization(**{name: 1e39})
    check_refused(lambda: layer.build(SHAPE), ValueError, name, "fit float32")
    bnnumba.BatchNormalization(**{name: 1e39}, dtype="float64").build(SHAPE)
    bnnumba.BatchNormalization(**{name: np.full(3, np.inf)}).build(SHAPE)  # asked for


@pytest.mark.parametrize(
    ("axis", "error"), [(2, AxisError), (-3, AxisError), ((0, 4), AxisError), ((1, -1), ValueError)]
)
def test_axis_beyond_the_data(axis, error):
    layer = bnnumba.BatchNormalization(axis)
    for call in (lambda: layer(floats()), lambda: layer.build(SHAPE), lambda: layer(floats(), training=True)):
        check_refused(call, error, "axis", r"out of bounds|repeat")
        assert layer.get_weights() == []


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        (None, TypeError, "None"), (3, TypeError, "3"), ("43", TypeError, "43"), ((4.0, 3), TypeError, r"4\.0"),
        ((4, True), TypeError, "True"), ((4, -3), ValueError, "-3"), ((), ValueError, r"\(\)"),
        ((4, None), ValueError, "None"),
    ],
)  # fmt: skip
def test_build_refuses(shape, error, words):
    layer = bnnumba.BatchNormalization()
    with pytest.raises(error, match=words):
        layer.build(shape)
    assert layer.get_weights() == []


def trained_layer():
    layer = bnnumba.BatchNormalization()
    layer(floats(), training=True)
    return layer


def check_same_state(layer, before):
    assert all(same_bits(a, b) for a, b in zip(layer.get_weights(), before.get_weights(), strict=True))
    for name in ("dgamma", "dbeta"):
        assert getattr(layer, name) is None


LAYER_CALLS = {
    "x": BAD_DATA,
    "training": BAD_FLAG,
    "residual": BAD_RESIDUAL,
    # Other numbers of axes mean something else to a layer, as in Keras.
    **{name: [row for row in WEIGHTS[name] if np.ndim(row[0]) == 2 or not hasattr(row[0], "ndim")] for name in WEIGHTS},
    "feature shape": [(floats((4, 5)), ValueError, r"feature shape \(3,\).*\(5,\)")],
}


@pytest.mark.parametrize(("name", "given", "error", "words"), rows(LAYER_CALLS))
def test_a_refused_call_leaves_the_layer(name, given, error, words):
    layer = trained_layer()
    before = copy.deepcopy(layer)
    arguments = {"x": floats(), "training": True, "x" if name == "feature shape" else name: given}
    check_refused(lambda: layer(**arguments), error, name, words)
    check_same_state(layer, before)
    layer.backward(floats())  # still that of the call before


@pytest.mark.parametrize(("name", "given", "error", "words"), rows({"dy": BAD_DY}))
def test_a_refused_backward_may_be_called_again(name, given, error, words):
    layer = trained_layer()
    before = copy.deepcopy(layer)
    check_refused(lambda: layer.backward(given), error, name, words)
    check_same_state(layer, before)
    assert layer.backward(floats()).shape == SHAPE


GOOD_WEIGHTS = [np.full(3, value) for value in (5.0, 6.0, 7.0, 8.0)]
BAD_WEIGHTS = [
    (GOOD_WEIGHTS[:3], ValueError, "4 arrays.*gamma.*3"),
    ([*GOOD_WEIGHTS, GOOD_WEIGHTS[0]], ValueError, "4 arrays.*5"),
    (None, TypeError, "None"),
    (np.ones((4, 3)), TypeError, "ndarray"),
    ([*GOOD_WEIGHTS[:3], np.ones(2)], ValueError, r"moving_variance.*\(3,\).*\(2,\)"),
    ([*GOOD_WEIGHTS[:3], np.ones(3, int)], TypeError, "moving_variance.*int64"),
    ([*GOOD_WEIGHTS[:3], [1.0, 2.0, 3.0]], TypeError, "moving_variance.*list"),
]


@pytest.mark.parametrize(("given", "error", "words"), BAD_WEIGHTS)
def test_refused_weights_change_none(given, error, words):
    layer = trained_layer()
    before = copy.deepcopy(layer)
    check_refused(lambda: layer.set_weights(given), error, "", words)
    check_same_state(layer, before)


def test_weights_of_a_layer_that_is_not_built():
    with pytest.raises(ValueError, match="built"):
        bnnumba.BatchNormalization().set_weights(GOOD_WEIGHTS)


def test_an_unknown_argument_of_a_config():
    with pytest.raises(TypeError, match="synchronized"):
        bnnumba.BatchNormalization.from_config({"synchronized": True})


class Hostile:
    """What must not be asked to write itself."""

    def __repr__(self):
        raise RuntimeError("__repr__ was called")


class Lying(np.ndarray):
    shape = dtype = property(lambda self: (_ for _ in ()).throw(KeyError("no")))


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


STRANGE = {
    "a raising repr": Hostile(),
    "a raising repr inside": [Hostile()],
    "a raising repr of a class": type("Odd", (type,), {"__repr__": lambda kind: 1 / 0})("Kind", (), {}),
    "deep": deep(),
    "long": [0.5] * 5_000_000,
    "a long text": "x" * 50_000_000,
    "many digits": 10**100_000,
    "a fraction of many digits": Fraction(10**100_000, 3),
    "a dict": dict.fromkeys(range(100_000)),
    "an array that lies": np.ones(3).view(Lying),
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_error_is_short_and_no_other(name):
    """Were all of the value written, this would take a minute."""
    value = STRANGE[name]
    for call in (
        lambda: bnnumba.moments(value),
        lambda: bnnumba.moments(floats(), value),
        lambda: bnnumba.batch_norm(floats(), value),
        lambda: bnnumba.batch_norm(floats(), epsilon=value),
        lambda: bnnumba.batch_norm(floats(), activation=value),
        lambda: bnnumba.update_moving(np.ones(3), np.ones(3), value),
        lambda: bnnumba.BatchNormalization(momentum=value),
        lambda: bnnumba.BatchNormalization(gamma_initializer=value).build((None, 2)),
        lambda: bnnumba.BatchNormalization(center=value),
        lambda: bnnumba.BatchNormalization(renorm=True, renorm_clipping=value),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert len(str(caught.value)) < 400


class Frame:
    def to_numpy(self):
        """As pandas has it."""


def test_the_cure_is_named():
    x = floats()
    found = bnnumba.moments(x)
    for call, words in [
        (lambda: bnnumba.moments([[1.0]]), r"x must be a NumPy array, got list .*: use np.asarray\(x\)$"),
        (lambda: bnnumba.moments(Frame()), r"got Frame: use x.to_numpy\(\)$"),
        (lambda: bnnumba.moments(np.ma.masked_array(x)), r"got MaskedArray .*: use x.data, and mask=$"),
        (
            lambda: bnnumba.normalize(x, *found),
            r"gamma must be .* got int 4: of Moments, give mean and var alone, as \*mom",
        ),
        (
            lambda: bnnumba.normalize(x, found, found.var),
            r"mean must be .*: of Moments, give mean and var, as \*moments",
        ),
    ]:
        with pytest.raises(TypeError, match=words):
            call()


def test_the_cure_for_tensors():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"x must be a NumPy array, got Tensor: use x.numpy\(\), or bnnumba.torch"):
        bnnumba.moments(torch.ones(4, 3))


OTHER_NAMES = [
    (lambda x: bnnumba.moments(x, axis=1), "moments() has no argument 'axis': the name here is feature_axis, which"),
    (
        lambda x: bnnumba.batch_norm(x, np.ones(3), eps=1e-5),
        "batch_norm() has no argument 'eps': the name here is epsilon",
    ),
    (lambda x: bnnumba.batch_norm(x, weight=np.ones(3)), "the name here is gamma"),
    (lambda x: bnnumba.normalize(x, np.ones(3), np.ones(3), bias=np.ones(3)), "the name here is beta"),
    (lambda x: bnnumba.batch_norm_backward(x, x, np.ones(3), np.ones(3), training=True), "is frozen, which is its"),
    (lambda x: bnnumba.population_moments([x], dim=0), "population_moments() has no argument 'dim': the name here is"),
    (lambda x: bnnumba.moments(x, weight=np.ones(3)), "the name here is sample_weight"),
    (lambda x: bnnumba.population_moments([x], mask=1), "the name here is masks"),
    (lambda x: bnnumba.moments(x, training=True), "moments() has no argument 'training'"),
    (lambda x: bnnumba.moments(x, colour=1), "moments() has no argument 'colour'"),
]


@pytest.mark.parametrize(("call", "words"), OTHER_NAMES)
def test_names_of_other_libraries(call, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        call(floats())


def test_features_of_another_axis():
    x = floats((4, 8, 5, 3))
    with pytest.raises(
        ValueError, match=r"gamma must have shape \(3,\), got \(8,\): did you mean feature_axis=1\? x has"
    ):
        bnnumba.batch_norm(x, np.ones(8))
    for sizes in ((4, 8, 8, 3), (4, 7, 5, 3)):  # where two axes fit, or none
        with pytest.raises(ValueError, match=r"mean must have shape \(3,\), got \(8,\)$"):
            bnnumba.normalize(floats(sizes), np.ones(8), np.ones(8))


def test_one_weight_for_each_row():
    x = floats((5, 4, 3))
    with pytest.raises(ValueError, match=r"got \(5,\): for one value a row, give mask.reshape\(-1, 1, 1\)"):
        bnnumba.moments(x, mask=np.ones(5, bool))
