"""The equations on data, each once: a class says what a pass reads, what it sums of that, and what it fills with it.

    terms(inputs, i, n, ahead, own)    a and b, whose sums of a and of a*b are made (see `sums`)
    values(inputs, i, n, ahead, own)   what fills a result
    own(inputs, take, coefficients, place, n)    the coefficients that these two need, and no others: `take` takes a row

i counts elements in the order of memory; n <= LANES of them are loaded, and those that are `ahead` are fetched
meanwhile. own: the coefficients of these elements' features (see `coefficients`); moments have but a pivot. A
residual, a y or an activation that there is not is None, which Numba knows when it compiles.
"""

from typing import Any, NamedTuple

from bnnumba._jit import loop, method
from bnnumba._types import Act, Array, Coefficients, Take, Term, Vector
from bnnumba.kernels.simd import fma, is_double, join, load, load_double, narrow, prefetch, splat

activate, differentiate = method("forward"), method("gradient")  # of `activations`
own_of = method("own")


class Batch(NamedTuple):
    """What moments are made of: sums of d and d*d, with d = x - pivot in float64."""

    x: Array

    @loop
    def own(self, take: Take, pivots: Array, place: int, n: int) -> Coefficients:
        """Return the pivot."""
        return (take(pivots, 0, place, n),)

    @loop
    def terms(self, i: int, n: int, ahead: int, own: Coefficients) -> Term:
        """Return d twice, each with what rounding took from it."""
        bring(self.x, i, ahead)
        difference, low = difference_to(self.x, i, n, own[0])
        d: Vector = join(difference, splat(0.0), n)
        return d, low, d, low


@loop
def _of_scaled(take: Take, coefficients: Array, place: int, n: int) -> Coefficients:
    """Return mean_hi, power, scale and offset."""
    return (
        take(coefficients, 1, place, n),
        take(coefficients, 2, place, n),
        take(coefficients, 3, place, n),
        take(coefficients, 4, place, n),
    )


class Forward(NamedTuple):
    """y = act(gamma*x_hat + beta + residual)."""

    x: Array
    residual: Array | None
    activation: Act | None

    @loop
    def own(self, take: Take, coefficients: Array, place: int, n: int) -> Coefficients:
        """Return what `scaled` needs."""
        return _of_scaled(take, coefficients, place, n)

    @loop
    def values(self, i: int, n: int, ahead: int, own: Coefficients) -> Vector:
        """Return y."""
        v = _plus(self.residual, scaled(fetch(self.x, i, n, ahead), own), i, n, ahead)
        return _activated(self.activation, v)


class Backward(NamedTuple):
    """Sums of dresidual and of its product with x_hat, and dx by them.

    dresidual is dy behind the activation, told by y; where y is None, y is made again from x, without a residual.
    """

    x: Array
    dy: Array
    y: Array | None
    activation: Act | None

    @loop
    def own(self, take: Take, coefficients: Array, place: int, n: int) -> Coefficients:
        """Return all coefficients."""
        return (
            take(coefficients, 0, place, n),
            take(coefficients, 1, place, n),
            take(coefficients, 2, place, n),
            take(coefficients, 3, place, n),
            take(coefficients, 4, place, n),
            take(coefficients, 5, place, n),
            take(coefficients, 6, place, n),
            take(coefficients, 7, place, n),
            take(coefficients, 8, place, n),
        )

    @loop
    def terms(self, i: int, n: int, ahead: int, own: Coefficients) -> Term:
        """Return dresidual and (x - mean_hi)*x_power in the data's dtype; past the first n, zeros.

        Of float32 data, 4 of each are added before they become float64: within the promise, and twice as fast in cache.
        """
        zero = narrow(splat(0.0), self.x)
        term = dresidual(self.activation, self, i, n, ahead, own)
        return term, zero, join(fetch(self.x, i, n, ahead) - own[1], zero, n) * own[0], zero

    @loop
    def values(self, i: int, n: int, ahead: int, own: Coefficients) -> Vector:
        """Return dx = (dresidual*dy_power + (a + b*(x - mean_hi)*x_power))*factor."""
        x_power, mean_hi, _, _, _, a, b, dy_power, factor = own
        given = dresidual(self.activation, self, i, n, ahead, own)
        inner = fma(b, (fetch(self.x, i, n, ahead) - mean_hi) * x_power, a)
        result: Vector = fma(given, dy_power, inner) * factor
        return result


class Residual(NamedTuple):
    """dresidual: dy behind the activation."""

    dy: Array
    y: Array | None
    activation: Act | None

    @loop
    def own(self, take: Take, coefficients: Array, place: int, n: int) -> Coefficients:  # noqa: ARG002
        """Return none."""
        return ()

    @loop
    def values(self, i: int, n: int, ahead: int, own: Coefficients) -> Vector:  # noqa: ARG002  # as of the others
        """Return dresidual."""
        return _behind(self.activation, self.y, fetch(self.dy, i, n, ahead), i, n, ahead)


class Frozen(NamedTuple):
    """dx = gamma*rstd*dresidual."""

    dy: Array
    y: Array | None
    activation: Act | None

    @loop
    def own(self, take: Take, coefficients: Array, place: int, n: int) -> Coefficients:
        """Return what `scaled` needs."""
        return _of_scaled(take, coefficients, place, n)

    @loop
    def values(self, i: int, n: int, ahead: int, own: Coefficients) -> Vector:
        """Return dx."""
        return scaled(_behind(self.activation, self.y, fetch(self.dy, i, n, ahead), i, n, ahead), own)


@loop
def scaled(x: Vector, own: Coefficients) -> Vector:
    """Return (x - mean_hi)*power*scale + offset."""
    mean_hi, power, scale, offset = own
    result: Vector = fma((x - mean_hi) * power, scale, offset)
    return result


@loop
def _plus(residual: Array | None, v: Vector, i: int, n: int, ahead: int) -> Vector:
    if residual is None:
        return v
    return v + fetch(residual, i, n, ahead)


@loop
def _activated(activation: Act | None, v: Vector) -> Vector:
    if activation is None:
        return v
    result: Vector = activate(activation, v)
    return result


@loop
def dresidual(activation: Act | None, inputs: Backward, i: int, n: int, ahead: int, own: Coefficients) -> Vector:
    """Return dy behind the activation; of y made again, by the coefficients."""
    dy = fetch(inputs.dy, i, n, ahead)
    if activation is None:
        return dy
    result: Vector = differentiate(activation, _result(inputs.y, activation, inputs.x, i, n, ahead, own), dy)
    return result


@loop
def _result(y: Array | None, activation: Act, x: Array, i: int, n: int, ahead: int, own: Coefficients) -> Vector:
    if y is None:
        result: Vector = activate(activation, scaled(load(x, i, n), own[1:5]))
        return result
    return fetch(y, i, n, ahead)


@loop
def _behind(activation: Act | None, y: Any, dy: Vector, i: int, n: int, ahead: int) -> Vector:
    if activation is None:
        return dy
    result: Vector = differentiate(activation, fetch(y, i, n, ahead), dy)
    return result


@loop
def difference_to(x: Array, i: int, n: int, pivot: Vector) -> tuple[Vector, Vector]:
    """Return x - pivot, and what rounding took from it: nothing from float32 data, nor past the first n."""
    value = load_double(x, i, n)
    difference: Vector = value - pivot
    if not is_double(x):
        return difference, splat(0.0)
    part = difference - value
    return difference, (value - (difference - part)) - (pivot + part)  # (Knuth 1969)


@loop
def fetch(array: Array, i: int, n: int, ahead: int) -> Vector:
    """Load a vector, and meanwhile `bring` another."""
    bring(array, i, ahead)
    return load(array, i, n)


@loop
def bring(array: Array, i: int, ahead: int) -> None:
    """Bring the vector that is `ahead` into cache; with 0, none."""
    if ahead > 0:
        prefetch(array, i + ahead)
