"""What all libraries share: threads and memory."""

import ctypes
import os

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = int(os.environ.get("BENCH_THREADS", CORES))


def recycle_memory() -> bool:
    """Make this process keep the memory that its libraries release; return whether it will.

    Otherwise a library that can only return new arrays takes new pages from the system for each large array, and
    filling these costs more than the arithmetic. Long-running programs reuse their memory, and here every library does.
    This works where the C library is glibc.
    """
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # as malloc.h numbers them
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(mmap_max, 0), mallopt(trim_threshold, -1), mallopt(top_pad, 2**28)])
