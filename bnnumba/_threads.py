"""The threads of `kernels.workers`: how many there may be, and how they are started, when a kernel first wants them.

They are no threads of Python's: they run compiled code alone, and sleep on locks of Python's C library.
"""

import atexit
import ctypes
import math
import os
from ctypes import c_int64, c_void_p
from functools import cache
from threading import RLock

from llvmlite import binding
from numba import config, types
from numba.np.ufunc import parallel

from bnnumba._addresses import address_of
from bnnumba._jit import compile_form
from bnnumba._quota import cpu_quota
from bnnumba.kernels import workers
from bnnumba.kernels.workers import ALL, COUNT, EACH, END, LINE, LOCK, START, USUAL, WORKERS, state

SIGNATURE = (types.int64,)  # of `work_on`

_starting = RLock()


def start(threads: int) -> None:
    """Start threads of a job, of which one is the caller; or more than there were."""
    with _starting:
        if state[COUNT // 8] == 0:
            parallel._launch_threads()  # which reads Numba's settings
            _put_lock(0)
            state[COUNT // 8] = binding.address_of_symbol("get_num_threads")
        for worker in range(state[WORKERS // 8] + 1, threads):
            _put_lock(worker)
            ctypes.pythonapi.PyThread_start_new_thread(c_void_p(_work_address()), c_void_p(worker))
            state[WORKERS // 8] = worker


def usual_threads() -> int:
    """How many threads a job has by default: one for each core, and no more than the CPU quota, rounded up."""
    most: int = config.NUMBA_NUM_THREADS
    quota = math.inf if "NUMBA_NUM_THREADS" in os.environ else cpu_quota()
    return max(1, math.ceil(min(most, quota)))


def _put_lock(worker: int) -> None:
    """Make a worker's lock, or the caller's; it is taken: who takes it too sleeps until it is released."""
    lock = _allocate_lock()
    ctypes.pythonapi.PyThread_acquire_lock(c_void_p(lock), 1)
    state[(EACH + LINE * worker + LOCK) // 8] = lock


@cache
def _work_address() -> int:
    return address_of(FORM["work_on"], SIGNATURE, from_c=True)


def _begin() -> None:
    """Begin as a process does, also as a forked child, which has none of its parent's threads."""
    global _starting  # noqa: PLW0603  # a thread that is not there may hold it
    _starting = RLock()
    ctypes.memset(state, 0, ctypes.sizeof(state))
    state[START // 8] = ctypes.cast(_start_from_c, c_void_p).value or 0
    state[ALL // 8], state[USUAL // 8] = config.NUMBA_NUM_THREADS, usual_threads()


def _end() -> None:
    state[END // 8] = 1


_allocate_lock = ctypes.PYFUNCTYPE(c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
_start_from_c = ctypes.CFUNCTYPE(None, c_int64)(start)
FORM = compile_form(workers, "worker", {})
_begin()
atexit.register(_end)
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_begin)
