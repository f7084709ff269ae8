"""Where results are stored: in cache, or past it.

An ordinary store first reads the line that it writes to. Results that will not stay in cache anyway are stored past it,
which saves that read, a third of an inference's traffic; results that will stay are read again sooner from the cache.
"""

from typing import Any, NamedTuple

from llvmlite.binding import get_host_cpu_name

from bnnumba._jit import PAST_CACHE_SETTING, helper, loop, method
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import CAN_STREAM, LANES, LINE, address, store, stream

# From where on results are stored past the cache, in bytes of all the arrays that a pass reads and fills: what does not
# fit leaves the cache before it is read again. Measured with copies by two threads. Zen 4: the L3 cache of 32 MiB for 8
# cores takes ordinary stores at 85 to 150 GB/s, others at 55. Emerald Rapids, of one design with Sapphire Rapids: from
# beyond the L2 cache, ordinary stores reach 55 GB/s, others 72, however large the L3 cache is. Granite Rapids, which
# some virtual machines hide: both reach 58 up to 2 x 51 MB, at 2 x 103 MB 37 and 57. There, passes over arrays of 26 MB
# tell where to begin: over 2, stores in cache are 2 to 6 % faster; over 3, others are 3 to 9 %; over 5, 3 to 24 %.
# Zen 3, whose L3 cache of 32 MiB virtual machines share: a training forward over two arrays of 13 MB is 1.4 to 2 times
# as fast past it, over two of 10 MB 0.8 to 1.2 times; a step of PyTorch over 5 and 6 MB, which has more in the cache
# than its arrays, is 1.0 to 1.6 times as fast where stores go past it from 12 MiB on, and not from 24.
MEASURED = {"znver3": 12 * 2**20, "znver4": 40 * 2**20, "emeraldrapids": 6 * 2**20, "sapphirerapids": 6 * 2**20}
ELSEWHERE = 64 * 2**20
PAST_CACHE_BYTES = int(PAST_CACHE_SETTING or MEASURED.get(get_host_cpu_name(), ELSEWHERE))


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
    if _is(out, a) or _is(out, b) or _is(out, c):
        return False
    return CAN_STREAM and (2 + _one(b) + _one(c)) * out.size * out.itemsize >= PAST_CACHE_BYTES


@helper
def _is(out: Array, array: Array | None) -> bool:
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
