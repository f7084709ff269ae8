"""Vectors of LANES numbers, from which every loop over data is written.

A vector has the same LANES on every machine, and LLVM only splits it into the registers that there are: so a kernel's
sums are added in one order, and its bits depend neither on the vector width nor on what the optimizer makes of a loop.

    load(a, i, n)       a[i : i + n] in the first n lanes, 0 in the others; n >= LANES loads a whole vector
    store(a, i, n, v)   the first n lanes of v to a[i : i + n]; n >= LANES stores a whole vector
    stream(a, i, v)     store(a, i, LANES, v) past the cache, where a[i] starts a cache line; complete after fence()
    to_line(a, i)       how many elements from a[i] the next cache line starts
    same_start(a, b)    whether a[0] and b[0] are the same memory
    prefetch(a, i)      bring what load(a, i, LANES) would read into cache; i may pass a's end
    splat(s)            the scalar s in every lane
    widen(v)            v as float64
    keep(v, n)          v in the first n lanes, 0 in the others
    fma(a, b, c)        a * b + c of vectors or scalars, rounded once: the only fused operation there is
    fold(v)             the sum of all lanes: halves are added until one is left
    turn(v, k)          lane k of v first, and so on around; k is a literal
    first(v)            lane 0
    a + b, a - b, a * b lane by lane

`a` is a one-dimensional C-contiguous array; i + min(n, LANES) must not pass its end.
"""

from typing import TYPE_CHECKING

from numba import config

if TYPE_CHECKING or config.DISABLE_JIT:
    from bnnumba.kernels._simd_numpy import (
        CAN_STREAM,
        LANES,
        fence,
        first,
        fma,
        fold,
        keep,
        load,
        prefetch,
        same_start,
        splat,
        store,
        stream,
        to_line,
        turn,
        widen,
    )
else:
    from bnnumba.kernels._simd_llvm import (
        CAN_STREAM,
        LANES,
        fence,
        first,
        fma,
        fold,
        keep,
        load,
        prefetch,
        same_start,
        splat,
        store,
        stream,
        to_line,
        turn,
        widen,
    )

__all__ = [
    "CAN_STREAM",
    "LANES",
    "fence",
    "first",
    "fma",
    "fold",
    "keep",
    "load",
    "prefetch",
    "same_start",
    "splat",
    "store",
    "stream",
    "to_line",
    "turn",
    "widen",
]
