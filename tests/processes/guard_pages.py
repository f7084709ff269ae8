"""Arrays between pages that nobody may touch: `python -m tests.processes.guard_pages`.

It runs every kernel, in both forms and dtypes, on them; stored past the cache from where it pays, and always. A load or
store past an array's end that has a protected page behind it, or before its start, ends the process; the bytes on its
other side are canaries. Results are poisoned first. What is printed, as JSON, is the digests that each shape and dtype
gave: of all forms and places, they should be one.
"""

import ctypes
import itertools
import json
import mmap

import numpy as np

from bnnumba import _past_cache
from bnnumba.kernels import serial, threaded
from tests.processes.kernel_results import EMPTY, SHAPES, digest, every_result, label
from tests.tools.problems import FLOATS, problem

PAGE = mmap.PAGESIZE
CANARY = 0xA5
NO_ACCESS = 0  # PROT_NONE
_C = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """Copies of arrays, each at the end or at the start of the memory between two protected pages."""

    def __init__(self, at_end):
        self.at_end = at_end
        self.places = []  # bytes in between, and which of them belong to the array

    def copy(self, array):
        room = -(-max(array.nbytes, 1) // PAGE) * PAGE
        memory = np.frombuffer(mmap.mmap(-1, room + 2 * PAGE), np.uint8)
        for page in (0, PAGE + room):
            if _C.mprotect(ctypes.c_void_p(memory.ctypes.data + page), ctypes.c_size_t(PAGE), NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        between = memory[PAGE : PAGE + room]
        between[:] = CANARY
        own = slice(room - array.nbytes, room) if self.at_end else slice(0, array.nbytes)
        guarded = between[own].view(array.dtype).reshape(array.shape)
        guarded[...] = array
        self.places.append((between, own))
        return guarded

    def check(self):
        for between, own in self.places:
            assert (between[: own.start] == CANARY).all()
            assert (between[own.stop :] == CANARY).all()


def main():
    found = {label(shape, dtype): set() for shape in SHAPES + EMPTY for dtype in FLOATS}
    for threshold, form, dtype in itertools.product((_past_cache.past_cache_bytes(), 0), (serial, threaded), FLOATS):
        _past_cache.threshold.value = threshold
        for shape in SHAPES + EMPTY:
            p = problem(shape, 1, dtype, offset=100.0)
            for at_end in (True, False):
                guarded = Guarded(at_end)
                found[label(shape, dtype)].add(digest(every_result(form, p, guarded.copy)))
                guarded.check()
    print(json.dumps({name: sorted(digests) for name, digests in found.items()}))


if __name__ == "__main__":
    main()
