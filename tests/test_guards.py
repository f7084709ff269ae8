"""Kernels called with arguments that they do not take: one readable line, and no memory read or written wrongly."""

import inspect

import numpy as np
import pytest
from numba import njit

from bnnumba.activations import LeakyRelu, Relu
from bnnumba.kernels import passes, serial, threaded
from tests.tools.subprocesses import run_python

X, F = np.ones((4, 3, 2), np.float32), np.ones(3)
STATISTICS = F, F, F, F, 1e-3
READ_ONLY = np.broadcast_to(X, X.shape).copy()
READ_ONLY.flags.writeable = False

REFUSED = {  # kernel, arguments, what the error says
    "rank": ("moments", (X[0],), r"^moments: x must be a C-contiguous array \(outer, feature, inner\) of float32"),
    "dtype": ("moments", (X.astype(np.complex64),), "x must be .*, got array\\(complex64, 3d, C\\)$"),
    "layout": ("moments", (np.asfortranarray(X),), "x must be a C-contiguous .*3d, F"),
    "strides": ("moments", (X[:, ::2],), "x must be a C-contiguous"),
    "features": ("moments_into", (X, F.astype(np.float32), F), r"mean must be .* \(feature,\) of float64, got"),
    "two dtypes": ("normalize", (X, *STATISTICS, X.astype(float)), "y must have the dtype of x, float32, got float64"),
    "change": (
        "subtract_weighted",
        (X, np.ones((4, 1, 2)), X.astype(float)),
        "change must have the dtype of dy, float32",
    ),
    "read-only": ("normalize", (X, *STATISTICS, READ_ONLY), "y must be a C-contiguous writeable array"),
    "number": ("normalize", (X, F, F, F, F, "1e-3", X), "epsilon must be a float, got unicode_type"),
    "int": ("normalize", (X, F, F, F, F, 1, X), "epsilon must be a float, got int64"),
    "name": ("normalize", (X, *STATISTICS, X, None, "relu"), "activation must be an instance of a class in bnnumba"),
    "class": ("normalize", (X, *STATISTICS, X, None, LeakyRelu), "activation must be an instance of a class in bnnum"),
    "residual": ("normalize", (X, *STATISTICS, X, F), "residual must be"),
    "none": ("normalize", (X, *STATISTICS, None), "y must be .*, got none"),
    "no y": ("frozen_backward", (X, X, F, F, F, 1e-3, X, None, Relu()), "frozen_backward: y must be given with an act"),
    "weights": ("weighted_moments_into", (X, np.ones((4, 2)), F, F), r"weights must be .* \(outer, 1, inner\)"),
    "count": ("update_moving", (F, F, F, F, 1.5, 0.9, 0), "count must be an int, got float64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_one_line(case):
    kernel, arguments, message = REFUSED[case]
    with pytest.raises(TypeError, match=message) as error:
        getattr(serial, kernel)(*arguments)
    assert "\n" not in str(error.value)


def test_in_compiled_code():
    @njit
    def of_a_table(x):
        return serial.moments(x)

    with pytest.raises(Exception, match=r"moments: x must be a C-contiguous array \(outer, feature, inner\)"):
        of_a_table(X[0])


SHAPES = """
import numpy as np
from numba import njit
from bnnumba.kernels import serial, threaded

x, f = np.ones((4, 3, 2)), np.ones(3)

@njit
def compiled(x, f, y):
    serial.normalize(x, f, f, f, f, 1e-3, y)

calls = [
    (serial.moments_into, x, f, np.ones(2)),
    (threaded.moments_into, x, np.ones(4), f),
    (compiled, x, f, np.ones((4, 3, 1))),
    (serial.weighted_moments_into, x, np.ones((4, 3, 2)), f, f),
    (serial.pool_into, f, np.ones((4, 3)), f, np.ones((4, 3)), np.ones((3, 3))),
]
for kernel, *arguments in calls:
    try:
        kernel(*arguments)
    except ValueError as error:
        print(error)
serial.moments_into(x, f, f)
"""


def test_shapes_are_checked_with_boundscheck():
    assert run_python("-c", SHAPES, NUMBA_BOUNDSCHECK="1").splitlines() == [
        "moments_into: var must have shape (feature,), as the arrays before it",
        "moments_into: mean must have shape (feature,), as the arrays before it",
        "normalize: y must have shape (outer, feature, inner), as the arrays before it",
        "weighted_moments_into: weights must have shape (outer, 1, inner), as the arrays before it",
        "pool_into: union must have shape (4, feature), as the arrays before it",
    ]


@pytest.mark.parametrize("form", [serial, threaded], ids=["serial", "threaded"])
def test_every_kernel_tells_its_arguments(form):
    assert set(form.FORM) == set(passes.__all__)
    for name, kernel in form.FORM.items():
        assert getattr(form, name) is kernel
        kinds = kernel.__doc__.rpartition("\n\n")[2]
        for parameter in inspect.signature(getattr(passes, name)).parameters:
            assert parameter in kinds
