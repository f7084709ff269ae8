"""Forks and threads after use, which may take a process down.

`python -m tests.processes.hostile_processes [SCENARIO ...]` runs all scenarios, or those that are named, one after the
other. Every worker makes the forward and the backward of each shape, and compares all bits with what the parent made
alone. These are printed first, as JSON, and then a line for each scenario that went well.
"""

import argparse
import json
import multiprocessing
import os
import threading

import numba
import numpy as np
from numba import njit, prange

import bnnumba
from tests.processes.kernel_results import digest
from tests.tools.problems import problem

# Serial and threaded, by column and by run, with whole features and without.
PROBLEMS = [
    (problem(shape, axis), axis)
    for shape, axis in [((32, 64), -1), ((2100, 64), -1), ((20, 6, 37), 1), ((40, 16, 400), 1), ((3, 2, 40_000), 1)]
]


def step(p, axis):
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis)
    inference = bnnumba.normalize(p.x, moments.mean, moments.var, p.gamma, p.beta, axis)
    trained, frozen = (
        bnnumba.batch_norm_backward(p.dy, p.x, moments.mean, moments.var, p.gamma, axis, frozen=frozen)
        for frozen in (False, True)
    )
    arrays = [y, moments.mean, moments.var, inference, *trained[:3], *frozen[:3]]
    return digest(dict(enumerate(arrays)))


EXPECTED = []


def right(_=None):
    """Whether a step on every problem gives the parent's bits."""
    return [step(*each) for each in PROBLEMS] == EXPECTED


def alone():
    """Nothing hostile: what the bits are, with any number of threads that may be set."""
    for number in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        numba.set_num_threads(number)
        assert right()


def fork():
    """A child of os.fork, and its own child."""
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if right() else 1)
        below = os.waitpid(grandchild, 0)[1]
        os._exit(0 if below == 0 and right() else 1)
    assert os.waitpid(child, 0)[1] == 0


def process():
    """A process of multiprocessing's fork context."""
    child = multiprocessing.get_context("fork").Process(target=_exit_by_result)
    child.start()
    child.join()
    assert child.exitcode == 0


def _exit_by_result():
    raise SystemExit(0 if right() else 1)


def pool():
    """A pool of 4 forked workers."""
    with multiprocessing.get_context("fork").Pool(4) as workers:
        assert all(workers.map(right, range(16)))


def threads(number=8, steps=60):
    """Threads that call at once, each the problems in an order of its own."""
    wrong = []

    def call(thread):
        order = np.random.default_rng(thread).integers(len(PROBLEMS), size=steps)
        wrong.extend(k for k in order if step(*PROBLEMS[k]) != EXPECTED[k])

    workers = [threading.Thread(target=call, args=(thread,)) for thread in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@njit(parallel=True)
def _double(x):
    for i in prange(x.size):
        x[i] *= 2.0


def users(steps=60):
    """A user's own parallel function, in another thread: in Numba's layer "workqueue", two at once end the process."""
    x, stop = np.ones(10_000), threading.Event()

    def call():
        while not stop.is_set():
            _double(x)

    other = threading.Thread(target=call)
    other.start()
    try:
        assert all(right() for _ in range(steps))
    finally:
        stop.set()
        other.join()


SCENARIOS = {scenario.__name__: scenario for scenario in (alone, fork, process, pool, threads, users)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    EXPECTED[:] = [step(*each) for each in PROBLEMS]
    print(json.dumps(EXPECTED), flush=True)  # before any fork, which would print it again
    for name in parser.parse_args().scenarios:
        SCENARIOS[name]()
        assert right(), f"the parent is harmed by {name}"
        print(f"{name}: right", flush=True)
