"""Where results are stored: in cache, or past it.

An ordinary store first reads the line that it writes to. Results that will not stay in cache anyway are stored past it,
which saves that read, a third of an inference's traffic; results that will stay are read again sooner from the cache.
"""

from bnnumba._jit import helper, inlined
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import CAN_STREAM, same_start, store, stream, to_line

PAST_CACHE_BYTES = 20 * 2**20  # measured where two cores share an L3 cache of 32 MiB


@helper
def goes_past_cache(y: Array, *inputs: Array) -> bool:
    """Whether y should be stored past the cache: it is large, and is none of the inputs, whose lines are in cache."""
    for array in inputs:
        if same_start(y, array):
            return False
    return CAN_STREAM and y.size * y.itemsize >= PAST_CACHE_BYTES


@inlined
def lead(y: Array, i: int, end: int, past_cache: bool) -> int:
    """How many elements to store in cache before y[i] starts a line and can be stored past it."""
    return min(to_line(y, i), end - i) if past_cache else 0


@inlined
def put(y: Array, i: int, n: int, past_cache: bool, vector: Vector) -> None:
    """Store n lanes; past the cache, all of them."""
    if past_cache:
        stream(y, i, vector)
    else:
        store(y, i, n, vector)
