"""Terms and values with a residual that is added, and with ReLU: y = max(gamma*x_hat + beta + residual, 0).

NaN passes, forward and backward: ReLU takes no NaN for less than 0, and lets the gradient through where y is NaN.
"""

from bnnumba._jit import loop
from bnnumba._types import Array, Arrays, Centre, Coefficients, Term, Vector
from bnnumba.kernels.formulas import differentiated, fetch, gradient_term, normalized, scaled
from bnnumba.kernels.simd import at_most, choose, less, load, narrow, splat

# ---- forward; the other is the residual


@loop
def normalized_relu(others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    return _relu(normalized((), x, i, n, ahead, coefficients), x)


@loop
def added(others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    return normalized((), x, i, n, ahead, coefficients) + fetch(others[0], i, n, ahead)


@loop
def added_relu(others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    return _relu(added(others, x, i, n, ahead, coefficients), x)


@loop
def _relu(values: Vector, like: Array) -> Vector:
    zero = narrow(splat(0.0), like)
    return choose(less(values, zero), zero, values)


# ---- backward; the others are dy and y


@loop
def relu_gradient_terms(others: Arrays, x: Array, i: int, n: int, ahead: int, centre: Centre) -> Term:
    """Do as `gradient_terms`, with dy behind the ReLU."""
    dy, y = others
    return gradient_term(_behind_relu(fetch(dy, i, n, ahead), y, i, n, ahead), x, i, n, ahead, centre)


@loop
def relu_input_gradient(others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    """Return what `input_gradient` does, of dy behind the ReLU."""
    dy, y = others
    return differentiated(_behind_relu(fetch(dy, i, n, ahead), y, i, n, ahead), x, i, n, ahead, coefficients)


# The other is dy, and y is made again from x.


@loop
def remade_relu_gradient_terms(others: Arrays, x: Array, i: int, n: int, ahead: int, centre: Centre) -> Term:
    mean_hi, power, scale, shift = centre
    y = scaled(load(x, i, n), mean_hi, power, scale, shift)
    return gradient_term(_where_positive(y, fetch(others[0], i, n, ahead), x), x, i, n, ahead, centre)


@loop
def remade_relu_input_gradient(
    others: Arrays, x: Array, i: int, n: int, ahead: int, coefficients: Coefficients
) -> Vector:
    mean_hi, power, scale, _, _, shift = coefficients
    y = scaled(load(x, i, n), mean_hi, power, scale, shift)
    return differentiated(_where_positive(y, fetch(others[0], i, n, ahead), x), x, i, n, ahead, coefficients)


# With dy in the place of x, and y the other.


@loop
def masked(others: Arrays, dy: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    """Return dy behind the ReLU."""
    return _behind_relu(fetch(dy, i, n, ahead), others[0], i, n, ahead)


@loop
def masked_scaled(others: Arrays, dy: Array, i: int, n: int, ahead: int, coefficients: Coefficients) -> Vector:
    """Return dy behind the ReLU, by the coefficients of `frozen_coefficients`."""
    return _behind_relu(normalized((), dy, i, n, ahead, coefficients), others[0], i, n, ahead)


@loop
def _behind_relu(dy: Vector, y: Array, i: int, n: int, ahead: int) -> Vector:
    return _where_positive(fetch(y, i, n, ahead), dy, y)


@loop
def _where_positive(y: Vector, dy: Vector, like: Array) -> Vector:
    zero = narrow(splat(0.0), like)
    return choose(at_most(y, zero), zero, dy)
