"""What the memory allows: its rates, and the least time that a pass needs at these rates."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from bnnumba._types import Array
from bnnumba.command.timing import least_time
from bnnumba.kernels.simd import LANES, fence, fold, load, splat, store, stream

# How many times an array's size moves between memory and processor.
RATES = {"read": 1, "copy": 2, "copy_streamed": 2, "add": 3, "add_streamed": 3}

# The sweeps that a pass needs: channels first, a feature's slice stays in cache from the sums to the result ...
_SWEEPS: dict[str, tuple[str, ...]] = {
    "moments": ("read",),
    "inference": ("copy",),
    "training_forward": ("copy",),
    "backward": ("add",),
    "frozen_backward": ("add",),
    "forward_backward": ("copy", "add"),
    "residual_relu": ("add", "add", "copy"),
    "double_backward": ("add", "copy"),
}
# ... and channels last, all features are complete only after a sweep over everything.
_SUMS_FIRST: dict[str, tuple[str, ...]] = {
    "training_forward": ("read",),
    "backward": ("read", "read"),
    "forward_backward": ("read", "read", "read"),
    "residual_relu": ("read", "read", "read"),
    "double_backward": ("read", "read", "read"),
}

_TRIAL = 0.02  # seconds


def least_seconds(nbytes: int, channels_last: bool, pass_name: str, rates: Mapping[str, float]) -> float:
    """The time that a pass needs at the given rates, in GB/s, with the better kind of stores; nbytes is x's size."""
    best = {"read": rates["read"]} | {name: max(rates[name], rates[f"{name}_streamed"]) for name in ("copy", "add")}
    sweeps = _SWEEPS[pass_name] + (_SUMS_FIRST.get(pass_name, ()) if channels_last else ())
    return sum(RATES[sweep] * nbytes / (1e9 * best[sweep]) for sweep in sweeps)


def gigabytes_per_second(nbytes: int, rate: str, seconds: float) -> float:
    return RATES[rate] * nbytes / (1e9 * seconds)


class Arrays:
    """Arrays that a sweep reads (x and dy) and fills (y, and for "read" a total for each thread).

    They start a cache line and are whole lines, as the stores past the cache need it.
    """

    def __init__(self, x: Array, dy: Array, threads: int) -> None:
        self.x, self.dy, self.y = (_aligned(array) for array in (x, dy, x))
        self.totals = np.zeros(threads, np.float32)

    def sweep(self, rate: str) -> Callable[[], Array]:
        """A sweep that measures the rate, by one thread or by all, whichever is faster; it returns what it filled."""
        result = self.totals if rate == "read" else self.y

        def entry(compiled: Callable[..., None]) -> Callable[[], Array]:
            def run() -> Array:
                compiled(self.x, self.dy, self.y, self.totals)
                return result

            return run

        chosen = min(map(entry, _compiled(rate)), key=lambda run: least_time(run, _TRIAL))
        self.y.fill(np.nan)  # what the trials left must not pass for a result
        self.totals.fill(0)
        return chosen


def _aligned(array: Array) -> Array:
    line = 64 // array.itemsize
    size = array.size // line * line
    room = np.empty(size + line, array.dtype)
    start = -room.ctypes.data // array.itemsize % line
    room[start : start + size] = array.ravel()[:size]
    return room[start : start + size]


def _read(x: Array, dy: Array, y: Array, start: int, stop: int) -> Any:
    """Add up in eight vectors: so many additions must be under way to keep up with the first cache."""
    zero: Any = x.dtype.type(0)
    a = b = c = d = e = f = g = h = splat(zero)
    whole = stop - (stop - start) % (8 * LANES)
    for i in range(start, whole, 8 * LANES):
        a = a + load(x, i, LANES)
        b = b + load(x, i + LANES, LANES)
        c = c + load(x, i + 2 * LANES, LANES)
        d = d + load(x, i + 3 * LANES, LANES)
        e = e + load(x, i + 4 * LANES, LANES)
        f = f + load(x, i + 5 * LANES, LANES)
        g = g + load(x, i + 6 * LANES, LANES)
        h = h + load(x, i + 7 * LANES, LANES)
    for i in range(whole, stop, LANES):
        a = a + load(x, i, LANES)
    return fold(((a + b) + (c + d)) + ((e + f) + (g + h)))


def _copy(x: Array, dy: Array, y: Array, start: int, stop: int) -> Any:
    one: Any = x.dtype.type(1)  # without an operation, LLVM would call memcpy, which chooses its stores itself
    for i in range(start, stop, LANES):
        store(y, i, LANES, load(x, i, LANES) * splat(one))
    return 0


def _copy_streamed(x: Array, dy: Array, y: Array, start: int, stop: int) -> Any:
    for i in range(start, stop, LANES):
        stream(y, i, load(x, i, LANES))
    fence()
    return 0


def _add(x: Array, dy: Array, y: Array, start: int, stop: int) -> Any:
    for i in range(start, stop, LANES):
        store(y, i, LANES, load(x, i, LANES) + load(dy, i, LANES))
    return 0


def _add_streamed(x: Array, dy: Array, y: Array, start: int, stop: int) -> Any:
    for i in range(start, stop, LANES):
        stream(y, i, load(x, i, LANES) + load(dy, i, LANES))
    fence()
    return 0


_WRITTEN = {"read": _read, "copy": _copy, "copy_streamed": _copy_streamed, "add": _add, "add_streamed": _add_streamed}


@cache
def _compiled(rate: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """A sweep by one thread, and by all: each a block of whole vectors, so that every block starts a cache line."""
    sweep = njit(_WRITTEN[rate])

    @njit
    def alone(x: Array, dy: Array, y: Array, totals: Array) -> None:
        totals[0] = sweep(x, dy, y, 0, x.size)

    @njit(parallel=True)
    def together(x: Array, dy: Array, y: Array, totals: Array) -> None:
        blocks, vectors = len(totals), x.size // LANES
        for number in prange(blocks):
            block = np.int64(number)  # the index is unsigned, which would make floats of the bounds
            totals[block] = sweep(x, dy, y, vectors * block // blocks * LANES, vectors * (block + 1) // blocks * LANES)

    return alone, together
