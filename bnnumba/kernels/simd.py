"""Vectors of LANES numbers, from which every loop over data is written.

A vector has the same LANES on every machine, and LLVM only splits it into the registers that there are: so a kernel's
sums are added in one order, and its bits depend neither on the vector width nor on what the optimizer makes of a loop.

    load(a, i, n)       a[i : i + n] in the first n lanes, 0 in the others; n >= LANES loads a whole vector
    load_double(a, i, n) the same, as float64
    element(a, i)       a[i] as float64
    store(a, i, n, v)   the first n lanes of v to a[i : i + n]; n >= LANES stores a whole vector
    stream(a, i, v)     store(a, i, LANES, v) past the cache, to whole lines or parts of one; complete after fence()
    address(a)          where a[0] is in memory
    from_element(t, n)  a named tuple, with each of its arrays from element n on: shapes stay, and pass an array's end
    prefetch(a, i)      bring what load(a, i, LANES) would read into cache; i may pass a's end
    splat(s)            the scalar s in every lane
    join(a, b, n)       a in the first n lanes, b in the others
    fma(a, b, c)        a * b + c of vectors or scalars, rounded once: the only fused operation there is
    fold(v)             the sum of all lanes: halves are added until one is left
    turn(v, k)          lane k of v first, and so on around; k is a literal
    first(v)            lane 0
    a + b, a - b, a * b, a / b, sqrt(v)   lane by lane
    binade(v)           the power of two in each float64 lane's binade: its sign and fraction cleared
    narrow(v, a)        v as load(a, ...) gives vectors, or as a vector a is; double(v) as float64
    is_double(a)        whether a holds float64
    new_values(shape, a)  a new array, whose elements are as load(a, ...) gives them
    less(a, b), at_most(a, b), equal(a, b)   the mask of lanes where it is so; a NaN never is
    choose(mask, a, b)  a where the mask is set, b elsewhere; any_lane(mask) tells whether it is set anywhere

`a` is a C-contiguous array, whose elements i counts in the order of memory; i + min(n, LANES) must not pass its end.
Of float32 and float64. Half precision comes as the integers of the same bits, since Numba has no such numbers: uint16
holds float16, int16 holds bfloat16. They are loaded as float32, and rounded to nearest even when they are stored.
"""

from typing import TYPE_CHECKING

from numba import config

if TYPE_CHECKING or config.DISABLE_JIT:
    from bnnumba.kernels._simd_numpy import *  # noqa: F403
else:
    from bnnumba.kernels._simd_llvm import *  # noqa: F403
