"""From what size on results are stored past the cache: a number of the process, which kernels read when they run."""

import os
from ctypes import addressof, c_int64
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import lower_builtin, type_callable

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
threshold = c_int64(
    int(os.environ.get("BNNUMBA_PAST_CACHE_BYTES") or MEASURED.get(binding.get_host_cpu_name(), ELSEWHERE))
)
_SYMBOL = "bnnumba_past_cache_bytes"
binding.add_symbol(_SYMBOL, addressof(threshold))


def past_cache_bytes() -> int:
    """Return that threshold. Kernels read it when they run: compiled and cached, they fit every CPU and setting."""
    return threshold.value


@type_callable(past_cache_bytes)  # type: ignore[untyped-decorator]  # Numba has no types
def _type(context: Any) -> Any:  # noqa: ARG001  # what Numba calls
    return lambda: types.int64


@lower_builtin(past_cache_bytes)  # type: ignore[untyped-decorator]
def _read(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
    return builder.load(context.get_c_value(builder, ir.IntType(64), _SYMBOL))
