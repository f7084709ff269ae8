"""How one call is timed."""

from collections.abc import Callable
from time import perf_counter
from timeit import Timer
from typing import Any

BATCH = 2e-5  # seconds: reading the clock costs some 50 ns, so short calls are timed many at once


def least_time(run: Callable[[], Any], seconds: float) -> float:
    """The least time of one call among some seconds of calls, after three that wake the threads and fill the cache."""
    timer = Timer(run)
    calls = 1 + int(BATCH / min(timer.repeat(3, 1)))
    end, least = perf_counter() + seconds, float("inf")
    while least == float("inf") or perf_counter() < end:
        least = min(least, timer.timeit(calls) / calls)
    return least
