"""Where results are stored: in cache, or past it.

An ordinary store first reads the line that it writes to. Results that will not stay in cache anyway are stored past it,
which saves that read, a third of an inference's traffic; results that will stay are read again sooner from the cache.
"""

from typing import Any, NamedTuple

from bnnumba._jit import helper, loop, method
from bnnumba._past_cache import past_cache_bytes
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import CAN_STREAM, LANES, LINE, address, store, stream


class Sweep(NamedTuple):
    """A result, and what fills it: `values(inputs, i, n, ahead, own)`, by the coefficients of its columns."""

    inputs: Any  # see `formulas`
    coefficients: Array
    past_cache: bool
    out: Array


values = method("values")


@helper
def goes_past_cache(out: Array, a: Array, b: Array | None = None, c: Array | None = None) -> bool:
    """Whether out should be stored past the cache: the arrays are large in total, and it is no input (thus cached)."""
    if shared(out, a) or shared(out, b) or shared(out, c):
        return False
    return CAN_STREAM and (2 + _one(b) + _one(c)) * out.size * out.itemsize >= past_cache_bytes()


@helper
def shared(out: Array, array: Array | None) -> bool:
    """Whether out is in the place of an array."""
    return False if array is None else address(out) == address(array)


@helper
def _one(array: Array | None) -> int:
    return 0 if array is None else 1


@loop
def lead(sweep: Sweep, i: int, end: int) -> int:
    """Return how many elements to store in cache, less than a vector, before the result can be stored past it."""
    out = sweep.out
    step = min(LANES, LINE // out.itemsize)
    return min(-(address(out) // out.itemsize + i) % step, end - i) if sweep.past_cache else 0


@helper
def line_start(out: Array, i: int) -> int:
    """Return the last element up to out[i] that starts a cache line."""
    return i - (address(out) // out.itemsize + i) % (LINE // out.itemsize)


@loop
def put(sweep: Sweep, i: int, n: int, vector: Vector) -> None:
    """Store n lanes of the result; whole vectors past the cache, where the sweep says so."""
    if sweep.past_cache and n == LANES:
        stream(sweep.out, i, vector)
    else:
        store(sweep.out, i, n, vector)
