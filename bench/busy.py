"""Calls beside other programs: each of k of these keeps a core busy; by all threads, and by one, in turns."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import numpy as np

import bnnumba
from bench.machine import CORES, THREADS

SIZES = {"256 KiB": 2**18, "1 MiB": 2**20, "6 MiB": 6 * 2**20, "50 MiB": 50 * 2**20}  # of x
FEATURES = 256
SECONDS = 1.0  # for each row
TURN = 2e-3  # seconds, about, that a number of threads has before the other's turn

Times = tuple[list[float], list[float]]


def table() -> Iterator[str]:
    """The table as lines: medians and 95th percentiles."""
    yield "microseconds of a call, median / 95 of 100, beside k busy programs; and by all threads, over by one"
    yield f"{'k':2}{'x':>9} {'pass':12}{'by one thread':>20}{f'by {THREADS}':>20}{'median':>9}{'95 of 100':>11}"
    for programs in range(min(2, CORES) + 1):
        with _busy(programs):
            for size, nbytes in SIZES.items():
                for name, call in _calls(nbytes).items():
                    (one, one_late), (all_, all_late) = (np.percentile(times, (50, 95)) for times in _measured(call))
                    cells = (f"{1e6 * a:.0f} / {1e6 * b:.0f}" for a, b in ((one, one_late), (all_, all_late)))
                    yield (
                        f"{programs:<2}{size:>9} {name:12}"
                        + "".join(f"{cell:>20}" for cell in cells)
                        + (f"{all_ / one:>9.2f}{all_late / one_late:>11.2f}")
                    )


@contextmanager
def _busy(programs: int) -> Iterator[None]:
    """Other programs at full load, each on a core of its own."""
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM, str(core)]) for core in range(programs)]
    try:
        time.sleep(0.5 if programs else 0.0)
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


PROGRAM = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[int(sys.argv[1])]])
while True:
    pass
"""


def _calls(nbytes: int) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((nbytes // 4 // FEATURES, FEATURES), np.float32) for _ in range(2))
    out, mean, var = np.empty_like(x), np.zeros(FEATURES), np.ones(FEATURES)
    return {
        "normalize": lambda: bnnumba.normalize(x, mean, var, out=out),
        "batch_norm": lambda: bnnumba.batch_norm(x, out=out),
        "backward": lambda: bnnumba.batch_norm_backward(dy, x, mean, var, out=out),
    }


def _measured(call: Callable[[], object]) -> Times:
    """Seconds of calls by one thread, and by all."""
    times: Times = ([], [])
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for threads, taken in zip((1, THREADS), times, strict=True):
            numba.set_num_threads(threads)
            call()  # the first after the other's turn does not count
            turn = time.perf_counter() + TURN
            while time.perf_counter() < turn or len(taken) < 3:
                begin = time.perf_counter()
                call()
                taken.append(time.perf_counter() - begin)
    return times
