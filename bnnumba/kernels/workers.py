"""The package's own threads: a job has parts, and each thread that is there takes one after the other.

The thread that calls takes parts too, and never waits for a thread that has taken none: where other programs keep the
cores busy, it does all the work itself. What it waits for are parts that others are at. In a forked child, which has no
threads but its own, that is none. One job at a time has the threads; of another, the caller does all parts.

Numba's own threads would do as well but for this: all of a parallel region's must have come to its end, though there is
nothing left to do, and its OpenMP layer's wait by spinning. `_threads` starts ours.
"""

from ctypes import addressof, c_int64
from typing import Any

from llvmlite import binding
from numba import config, types

from bnnumba._jit import helper, signed
from bnnumba.kernels._atomic_llvm import (
    STATE,
    add,
    count_by,
    exchanged,
    load,
    pause,
    put,
    start_by,
    state_address,
    work_part,
)

__all__ = ["work_on"]

LINE = 64  # bytes: what threads write often has a line of its own

# Where the numbers of the state are, in bytes. None depends on a setting: compiled kernels are kept for all.
BUSY, JOB, PENDING = 0, 1 * LINE, 2 * LINE  # whether there is a job; its number; its parts that are not done
WORK, PACKED, PARTS = 3 * LINE, 3 * LINE + 8, 3 * LINE + 16  # the address of the work; of its arguments; how many parts
COUNT, START = 4 * LINE, 4 * LINE + 8  # the addresses of Numba's get_num_threads, and of what starts workers
ALL, USUAL = 4 * LINE + 16, 4 * LINE + 24  # how many threads Numba has; how many a job has where all of these may run
WORKERS, END = 4 * LINE + 32, 4 * LINE + 40  # how many there are; whether the process ends
EACH = 5 * LINE  # from there, a line for each thread, of which the caller is the first, and for each part:
SLEEPS, LOCK, TAKEN = 0, 8, 16  # whether the thread sleeps, and on what lock; whether the part is taken

# How often to look again before sleeping, a pause of some 20 ns each: a worker for the next job, a caller for the end.
WORKER_SPINS, CALLER_SPINS = 10_000, 1_000

state = (c_int64 * ((EACH + config.NUMBA_NUM_THREADS * LINE) // 8))()
binding.add_symbol(STATE, addressof(state))

# Locks of Python's, for which no interpreter is needed.
_acquire: Any = types.ExternalFunction("PyThread_acquire_lock", types.int32(types.int64, types.int32))
_release: Any = types.ExternalFunction("PyThread_release_lock", types.void(types.int64))


@helper
def take_parts(state: int, own: int) -> None:
    """Do parts of the job that nobody has taken, the thread's own first: it may have that data in its cache."""
    parts = load(state + PARTS)
    for k in range(parts):
        part = (own + k) % parts
        taken = state + EACH + LINE * part + TAKEN
        if load(taken) == 0 and exchanged(taken, signed(0), signed(1)):
            work_part(load(state + WORK), load(state + PACKED), part)  # of the job at hand, which this part holds up
            if add(state + PENDING, signed(-1)) == 1:
                wake(state + EACH)


@helper
def wake(place: int) -> None:
    if load(place + SLEEPS) == 1 and exchanged(place + SLEEPS, signed(1), signed(0)):
        _release(load(place + LOCK))


@helper
def sleep_unless(place: int, address: int, value: int) -> None:
    """Sleep until somebody wakes this thread, if there is the value at the address, as there was."""
    put(place + SLEEPS, signed(1))
    if load(address) == value or not exchanged(place + SLEEPS, signed(1), signed(0)):
        _acquire(load(place + LOCK), 1)


def work_on(worker: int) -> None:
    """Do parts of one job after the other, while there is the process. worker: from 1 on."""
    state, seen = state_address(), signed(0)
    while load(state + END) == 0:
        spins = 0
        while load(state + JOB) == seen:
            spins += 1
            if spins > WORKER_SPINS or load(state + END) != 0:
                sleep_unless(state + EACH + LINE * worker, state + JOB, seen)
            pause()
        seen = load(state + JOB)
        if worker < load(state + PARTS):
            take_parts(state, worker)


@helper
def run_parts(work: int, packed: int, parts: int) -> None:
    """Call the work for each part, by all threads that are there."""
    state = state_address()
    if parts < 2 or not exchanged(state + BUSY, signed(0), signed(1)):
        for part in range(parts):
            work_part(work, packed, part)
        return
    put(state + WORK, work)
    put(state + PACKED, packed)
    put(state + PARTS, parts)
    put(state + PENDING, parts)
    for part in range(parts):
        put(state + EACH + LINE * part + TAKEN, signed(0))
    add(state + JOB, signed(1))
    for worker in range(1, min(parts, load(state + WORKERS) + 1)):
        wake(state + EACH + LINE * worker)
    take_parts(state, signed(0))
    spins = 0
    while True:
        pending = load(state + PENDING)
        if pending == 0:
            break
        spins += 1
        if spins > CALLER_SPINS:
            sleep_unless(state + EACH, state + PENDING, pending)
        pause()
    put(state + BUSY, signed(0))


@helper
def worker_count() -> int:
    """Return how many threads a job may have: what Numba's settings say, but by default no more than the CPU quota."""
    state = state_address()
    if load(state + COUNT) == 0:
        start_by(load(state + START), signed(1))
    if load(state + COUNT) == 0:  # it could not
        return 1
    threads: int = count_by(load(state + COUNT))
    if threads == load(state + ALL):
        threads = load(state + USUAL)
    if threads > load(state + WORKERS) + 1:
        start_by(load(state + START), threads)
    return threads
