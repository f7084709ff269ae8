"""What all libraries share: threads and memory."""

import ctypes
import os
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = int(os.environ.get("BENCH_THREADS", CORES))


def cache_sizes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """The sizes in KiB of the data caches that a core has or shares, as Linux has them; empty elsewhere."""
    sizes = {}
    for index in sorted(root.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            size = (index / "size").read_text().strip()
            sizes[f"L{(index / 'level').read_text().strip()}"] = int(size[:-1]) * {"K": 1, "M": 1024}[size[-1]]
    return sizes


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
