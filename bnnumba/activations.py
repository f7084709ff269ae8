"""What may stand behind the normalization: y = act(gamma*x_hat + beta + residual).

A class for each, of which an instance goes to functions, layers and kernels as `activation`:

    forward(v)         act(v)
    gradient(y, dy)    dy * act'(v), told by y = act(v)

v, y and dy are vectors of the data (see `kernels.simd`). All let NaN through, forward and backward.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, Self, get_args

from bnnumba import checks
from bnnumba._jit import loop
from bnnumba._types import Vector
from bnnumba.kernels.simd import at_most, choose, less, narrow, splat


class Relu(NamedTuple):
    """max(v, 0); its gradient is dy where y > 0, else 0."""

    @loop
    def forward(self, v: Vector) -> Vector:
        """Return max(v, 0)."""
        zero = narrow(splat(0.0), v)
        return choose(less(v, zero), zero, v)

    @loop
    def gradient(self, y: Vector, dy: Vector) -> Vector:
        """Return dy where y > 0, else 0."""
        zero = narrow(splat(0.0), y)
        return choose(at_most(y, zero), zero, dy)


class Relu6(NamedTuple):
    """min(max(v, 0), 6); its gradient is dy where 0 < y < 6, else 0."""

    @loop
    def forward(self, v: Vector) -> Vector:
        """Return min(max(v, 0), 6)."""
        zero, six = narrow(splat(0.0), v), narrow(splat(6.0), v)
        positive = choose(less(v, zero), zero, v)
        return choose(less(six, positive), six, positive)

    @loop
    def gradient(self, y: Vector, dy: Vector) -> Vector:
        """Return dy where 0 < y < 6, else 0."""
        zero, six = narrow(splat(0.0), y), narrow(splat(6.0), y)
        return choose(at_most(y, zero), zero, choose(at_most(six, y), zero, dy))


class _NegativeSlope(NamedTuple):
    negative_slope: float


class LeakyRelu(_NegativeSlope):
    """v where v > 0, else negative_slope*v; its gradient is dy where y > 0, else negative_slope*dy.

    Parameters
    ----------
    negative_slope : real number from 2**-126 to 2**127, the normal numbers of float32
        Of a slope that is not positive, y could not tell the gradient.

    Raises
    ------
    TypeError, ValueError
        If negative_slope is not as above.
    """

    def __new__(cls, negative_slope: float = 0.01) -> Self:
        """Check the slope."""
        slope = checks.real("negative_slope", negative_slope)
        given = checks.shown(negative_slope)
        if slope <= 0:
            raise ValueError(f"negative_slope must be > 0, or y could not tell the gradient, got {given}")
        if not 2.0**-126 <= slope <= 2.0**127:
            raise ValueError(f"negative_slope must be a normal number of float32, got {given}")
        return super().__new__(cls, slope)

    @classmethod
    def _make(cls, iterable: Iterable[float]) -> Self:  # type: ignore[override]
        """As a named tuple's, which `_replace` calls, but checked."""
        return cls(*iterable)

    @loop
    def forward(self, v: Vector) -> Vector:
        """Return v where v > 0, else negative_slope*v."""
        zero, slope = narrow(splat(0.0), v), narrow(splat(self.negative_slope), v)
        return choose(less(v, zero), slope * v, v)

    @loop
    def gradient(self, y: Vector, dy: Vector) -> Vector:
        """Return dy where y > 0, else negative_slope*dy."""
        zero, slope = narrow(splat(0.0), y), narrow(splat(self.negative_slope), y)
        return choose(at_most(y, zero), slope * dy, dy)


Act = Relu | Relu6 | LeakyRelu
Activation = Literal["relu", "relu6"] | Act

NAMED: dict[str, Act] = {"relu": Relu(), "relu6": Relu6()}
CLASSES: dict[str, type[Act]] = {each.__name__: each for each in get_args(Act)}

LONGEST = 200  # of texts that are read
_WRITTEN = re.compile(r"(\w+)\(([-+.e\d]+(?:, [-+.e\d]+)*)\)")


def activation_of(value: object) -> Act | None:
    """Return the instance that an argument `activation` means: itself, by name, or by a text of `text_of`."""
    if value is None or type(value) in CLASSES.values():
        return value  # type: ignore[return-value]
    act = _of_text(value) if isinstance(value, str) and len(value) < LONGEST else None
    if act is None:
        expected = ", ".join([*map(repr, NAMED), *(name for name, each in CLASSES.items() if each._fields)])
        raise ValueError(f"activation must be None, {expected}, got {checks.described(value)}")
    return act


def public(value: object) -> Activation | None:
    """Check an activation, and return it as a caller reads it: by its name, where it has one."""
    act = activation_of(value)
    for name, instance in NAMED.items():
        if type(act) is type(instance):
            return name  # type: ignore[return-value]
    return act


def text_of(value: object) -> str:
    """Write an activation as a text that `activation_of` reads: its name, or as Python writes it; "" of None."""
    given = public(value)
    if given is None or isinstance(given, str):
        return given or ""
    return f"{type(given).__name__}({', '.join(map(repr, given))})"


@lru_cache
def _of_text(text: str) -> Act | None:
    if text in NAMED:
        return NAMED[text]
    written = _WRITTEN.fullmatch(text)
    kind = CLASSES.get(written[1]) if written else None
    if written is None or kind is None or len(kind._fields) != len(numbers := written[2].split(", ")):
        return None
    act = kind(*map(float, numbers))
    return act if text_of(act) == text else None
