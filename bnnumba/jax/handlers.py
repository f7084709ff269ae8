"""What XLA calls: functions of C that find arrays in a call frame, check them, and run a kernel, without Python.

Each takes the frame's address, and returns 0, or the address of an error that XLA has made; `frame` says what buffers
are. The attributes, which XLA sorts by name, are epsilon and slope, float64. `targets` compiles these functions once
for each kernel, dtype and activation, each time with other functions and numbers in the place of those under "what a
target has of its own".
"""

from typing import Any

import numpy as np

from bnnumba._addresses import ran
from bnnumba._jit import helper, signed
from bnnumba._types import Array
from bnnumba.jax.frame import (
    ALONE,
    COUNTS,
    DONE,
    MEMORY,
    MISSING,
    OF_ATTRIBUTES,
    OF_DATA,
    OF_FEATURES,
    OF_ROWS,
    SINGLE,
    THREADED_BYTES,
    TOGETHER,
    WORDS,
    answer,
    are_features,
    argument,
    array_of,
    array_or_none,
    attribute,
    has_attributes,
    has_buffers,
    is_buffer,
    is_buffer_or_none,
    is_call,
    read_features,
    result,
    rows_of,
    shape_of,
    word,
    write_features,
)

__all__ = ["backward", "behind_activation", "forward", "inference"]

# ---- what a target has of its own: for each kind of target, `targets` puts others here

LIKE, CODE = np.float32(0), SINGLE  # 0 in the dtype that kernels know the data's by; XLA's number of it
EXTRA_ARGUMENTS = EXTRA_RESULTS = 0  # the residual, or y; dresidual


@helper
def place() -> int:
    """Return the address of the target's numbers."""
    return 0


@helper
def no_activation(slope: float) -> None:
    return None


@helper
def absent(frame: int, index: int) -> None:
    return None


@helper
def nothing(beta: Array) -> None:
    return None


@helper
def nothing_behind(*parts: Any) -> tuple[()]:
    return ()


@helper
def itself(beta: Array) -> Array:
    return beta


activation, extra_argument, extra_result, behind, to_remake = no_activation, absent, absent, nothing_behind, itself


@helper
def forward_behind(residual: Array | None, act: Any) -> Any:
    return residual, act


@helper
def frozen_behind(dresidual: Array | None, act: Any, y: Array | None, beta: Array | None) -> Any:
    return dresidual, act, y


@helper
def backward_behind(dresidual: Array | None, act: Any, y: Array | None, beta: Array | None) -> Any:
    return dresidual, act, y, beta


# ---- the handlers


def forward(frame: int) -> int:
    """Run `batch_norm_into`: x, gamma, beta, a residual -> y, rows (mean, var, gamma, beta), mean, var."""
    return answer(frame, place(), _forward(frame) if is_call(frame) else DONE)


def inference(frame: int) -> int:
    """Run `normalize`: x, mean, var, gamma, beta, a residual -> y, rows (mean, var, gamma, beta)."""
    return answer(frame, place(), _inference(frame) if is_call(frame) else DONE)


def backward(frame: int) -> int:
    """Run `batch_norm_backward_into`, or `frozen_backward_into`.

    dy, x, rows (mean, var, gamma, beta), y -> dx, rows (dgamma, dbeta), dgamma, dbeta, dresidual.
    """
    return answer(frame, place(), _backward(frame) if is_call(frame) else DONE)


def behind_activation(frame: int) -> int:
    """Run `activation_gradient`: dy, y -> dresidual."""
    return answer(frame, place(), _behind_activation(frame) if is_call(frame) else DONE)


def _forward(frame: int) -> int:
    if not has_buffers(frame, 3 + EXTRA_ARGUMENTS, 4):
        return COUNTS
    x, gamma, beta, residual = argument(frame, 0), argument(frame, 1), argument(frame, 2), extra_argument(frame, 3)
    y, rows, mean, var = result(frame, 0), result(frame, 1), result(frame, 2), result(frame, 3)
    status = _checked(frame, x, y, residual, rows)
    shape = shape_of(x)
    feature = shape[1]
    if status != DONE:
        return status
    if not (are_features(gamma, feature) and are_features(beta, feature)):
        return OF_FEATURES
    if not (are_features(mean, feature) and are_features(var, feature)):
        return OF_FEATURES
    by = rows_of(rows, signed(4), feature)
    read_features(gamma, by[2])
    read_features(beta, by[3])
    data, out = array_of(x, LIKE, shape), array_of(y, LIKE, shape)
    added = behind(array_or_none(residual, LIKE, shape), activation(attribute(frame, 1)))
    status = _run(data.nbytes, (data, by[2], by[3], attribute(frame, 0), out, by[0], by[1], *added))
    write_features(by[0], mean)
    write_features(by[1], var)
    return status


def _inference(frame: int) -> int:
    if not has_buffers(frame, 5 + EXTRA_ARGUMENTS, 2):
        return COUNTS
    x, residual, y, rows = argument(frame, 0), extra_argument(frame, 5), result(frame, 0), result(frame, 1)
    status = _checked(frame, x, y, residual, rows)
    shape = shape_of(x)
    if status != DONE:
        return status
    by = rows_of(rows, signed(4), shape[1])
    for each in range(4):
        if not are_features(argument(frame, 1 + each), shape[1]):
            return OF_FEATURES
        read_features(argument(frame, 1 + each), by[each])
    data, out = array_of(x, LIKE, shape), array_of(y, LIKE, shape)
    added = behind(array_or_none(residual, LIKE, shape), activation(attribute(frame, 1)))
    return _run(data.nbytes, (data, by[0], by[1], by[2], by[3], attribute(frame, 0), out, *added))


def _backward(frame: int) -> int:
    if not has_buffers(frame, 3 + EXTRA_ARGUMENTS, 4 + EXTRA_RESULTS):
        return COUNTS
    dy, x, rows, y = argument(frame, 0), argument(frame, 1), argument(frame, 2), extra_argument(frame, 3)
    dx, sums, dgamma, dbeta = result(frame, 0), result(frame, 1), result(frame, 2), result(frame, 3)
    dresidual = extra_result(frame, 4)
    status = _checked(frame, x, dx, y, rows)
    shape = shape_of(x)
    feature = shape[1]
    if status != DONE:
        return status
    if not (is_buffer(dy, CODE, shape) and is_buffer_or_none(dresidual, CODE, shape)):
        return OF_DATA
    if not is_buffer(sums, WORDS, (signed(2), feature, signed(2))):
        return OF_ROWS
    if not (are_features(dgamma, feature) and are_features(dbeta, feature)):
        return OF_FEATURES
    by, found = rows_of(rows, signed(4), feature), rows_of(sums, signed(2), feature)
    data, out = array_of(x, LIKE, shape), array_of(dx, LIKE, shape)
    after = behind(
        array_or_none(dresidual, LIKE, shape),
        activation(attribute(frame, 1)),
        array_or_none(y, LIKE, shape),
        to_remake(by[3]),
    )
    inputs = array_of(dy, LIKE, shape), data, by[0], by[1], by[2], attribute(frame, 0)
    status = _run(data.nbytes, (*inputs, out, found[0], found[1], *after))
    write_features(found[0], dgamma)
    write_features(found[1], dbeta)
    return status


def _behind_activation(frame: int) -> int:
    if not has_buffers(frame, 2, 1):
        return COUNTS
    dy, y, dresidual = argument(frame, 0), argument(frame, 1), result(frame, 0)
    shape = shape_of(y)
    if not (is_buffer(dy, CODE, shape) and is_buffer(y, CODE, shape) and is_buffer(dresidual, CODE, shape)):
        return OF_DATA
    if not has_attributes(frame):
        return OF_ATTRIBUTES
    given, out = array_of(y, LIKE, shape), array_of(dresidual, LIKE, shape)
    return _run(given.nbytes, (array_of(dy, LIKE, shape), given, activation(attribute(frame, 1)), out))


def _checked(frame: int, x: int, out: int, extra: Any, rows: int) -> int:
    """Check what all have: x, a result like it, what there may be of its shape, rows and attributes."""
    shape = shape_of(x)
    if not (is_buffer(x, CODE, shape) and is_buffer(out, CODE, shape) and is_buffer_or_none(extra, CODE, shape)):
        return OF_DATA
    if not is_buffer(rows, WORDS, (signed(4), shape[1], signed(2))):
        return OF_ROWS
    return DONE if has_attributes(frame) else OF_ATTRIBUTES


def _run(nbytes: int, arguments: Any) -> int:
    """Run the target's kernel, in the form for so many bytes of data."""
    kernel = word(place(), ALONE if nbytes < word(place(), THREADED_BYTES) else TOGETHER)
    if kernel == 0:
        return MISSING
    return DONE if ran(kernel, arguments) else MEMORY
