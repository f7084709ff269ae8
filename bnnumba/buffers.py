"""The pool behind `recycle_buffers`: the memory of large outputs, reused once their last array has died.

Memory is lent through a chain of references: output -> `_Lease` -> a token, an array of the lent bytes. Every view,
memoryview or foreign holder of the output keeps the chain, and the token's death ends the loan. A weak reference to the
token sees that moment truly, where `__del__` or a weak reference to the lease would not: the garbage collector takes no
part in arrays, so a token dies by its reference count only, after whatever a finalizer may still have resurrected.
"""

from __future__ import annotations

import weakref
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnumba import checks
from bnnumba._types import Array

Bytes = npt.NDArray[np.uint8]

LEAST_BYTES = 2**20  # of an array: a loan costs 5 us, a seventh of the time that filling them takes
LINE = 64  # bytes of a cache line


def recycle_buffers(max_bytes: int) -> None:
    """Reuse the memory of large outputs once their last array has died.

    Off until it is called. A fresh large array costs more in page faults than the arithmetic that fills it: switch this
    on in a long training loop with large outputs and no `out=`. Leave it off where memory is tight, or where shapes
    vary all the time: memory is reused for outputs of the same number of bytes only.

    Parameters
    ----------
    max_bytes : int >= 0
        How many bytes of dead outputs the process keeps; beyond that, the oldest are freed. 0 turns recycling off and
        frees all that is kept. Arrays that are alive do not count, and are not touched.

    Raises
    ------
    TypeError, ValueError
        If max_bytes is not as above; nothing has then changed.

    Notes
    -----
    Outputs below 1 MiB come from NumPy as ever. The others start at a cache line, 64 bytes, and are views (`base` is
    not None). Whatever holds a reference to an output or to a view of it keeps its memory from being reused; a raw
    address, as of `ctypes.data`, keeps nothing, as with any array.
    """
    _pool.limit(_max_bytes(max_bytes))


def empty(size: int, dtype: np.dtype[Any]) -> Array:
    """A new flat array, uninitialised; its memory may have been another's."""
    return _pool.lend(size * dtype.itemsize).view(dtype) if _lends(size, dtype) else np.empty(size, dtype)


def empty_like(x: Array, dtype: np.dtype[Any]) -> Array:
    """Such an array of x's shape and memory order."""
    if not _lends(x.size, dtype):
        if x.flags.c_contiguous:
            return np.empty(x.shape, dtype)  # half the time of empty_like
        return np.empty_like(x, dtype=dtype, order="K", subok=False)
    flat = empty(x.size, dtype)
    if x.flags.c_contiguous:
        return flat.reshape(x.shape)
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return flat.reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))


def _lends(size: int, dtype: np.dtype[Any]) -> bool:
    return _pool.max_bytes > 0 and size * dtype.itemsize >= LEAST_BYTES


class _Lease:
    """Lent memory, as the base of arrays. NumPy shortens chains of bases; it cannot skip what is not an array."""

    __slots__ = ("__array_interface__", "token")

    def __init__(self, token: Bytes) -> None:
        self.token = token
        self.__array_interface__ = token.__array_interface__


class _Pool:
    """Memory that is lent, and memory that is kept, oldest first.

    Loans end at any moment in any thread, also inside these methods when the garbage collector runs. A lock could then
    wait for its own thread, or stay locked for ever in a forked child, so there is none: the dicts are the whole state,
    and are read and changed by single operations, each atomic (`list` of a dict is; of its values or items it is not,
    as the collector may run within). Who pops a key owns the memory. Who adds one, or lowers the bound, trims
    afterwards, so that the last to do so sees all there is.
    """

    def __init__(self) -> None:
        self.max_bytes = 0
        self._kept: dict[tuple[int, int], Bytes] = {}  # keys: age, bytes
        self._ages = count()
        # What weakref.finalize would do, but for its exit function, which daemon threads can make fail.
        self._lent: dict[int, tuple[weakref.ref[Bytes], Bytes]] = {}

    def limit(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._trim()

    def lend(self, nbytes: int) -> Bytes:
        memory = self._take(nbytes)
        token = memory[:]
        loan = weakref.ref(token, self._end)
        self._lent[id(loan)] = loan, memory
        return np.asarray(_Lease(token))

    def _end(self, loan: weakref.ref[Bytes]) -> None:
        _, memory = self._lent.pop(id(loan))
        if memory.nbytes <= self.max_bytes:
            self._kept[next(self._ages), memory.nbytes] = memory
            self._trim()

    def _take(self, nbytes: int) -> Bytes:
        for key in reversed(list(self._kept)):  # what died last may still be in cache
            if key[1] == nbytes:
                memory = self._kept.pop(key, None)
                if memory is not None:
                    return memory
        memory = np.empty(nbytes + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        return memory[start : start + nbytes]

    def _trim(self) -> None:
        keys = list(self._kept)
        excess = sum(nbytes for _, nbytes in keys) - self.max_bytes
        for key in keys:
            if excess <= 0:
                return
            self._kept.pop(key, None)
            excess -= key[1]


_pool = _Pool()


def _max_bytes(value: object) -> int:
    number = checks.whole("max_bytes", value)
    if number < 0:
        raise ValueError(f"max_bytes must be >= 0, got {checks.shown(value)}")
    return number
