"""Where results are stored: in cache, or past it.

An ordinary store first reads the line that it writes to. Results that will not stay in cache anyway are stored past it,
which saves that read, a third of an inference's traffic; results that will stay are read again sooner from the cache.
"""

from llvmlite.binding import get_host_cpu_name

from bnnumba._jit import PAST_CACHE_SETTING, helper, loop
from bnnumba._types import Array, Vector
from bnnumba.kernels.simd import CAN_STREAM, same_start, store, stream, to_stream

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


@helper
def goes_past_cache(y: Array, *inputs: Array) -> bool:
    """Whether y should be stored past the cache: all is large, and y no input, whose lines are in cache."""
    for array in inputs:
        if same_start(y, array):
            return False
    return CAN_STREAM and (1 + len(inputs)) * y.size * y.itemsize >= PAST_CACHE_BYTES


@loop
def lead(y: Array, i: int, end: int, past_cache: bool) -> int:
    """How many elements to store in cache, less than a vector, before y can be stored past it."""
    return min(to_stream(y, i), end - i) if past_cache else 0


@loop
def put(y: Array, i: int, n: int, past_cache: bool, vector: Vector) -> None:
    """Store n lanes; past the cache, all of them."""
    if past_cache:
        stream(y, i, vector)
    else:
        store(y, i, n, vector)
