"""What `warm-up` does: compilations, shared out to processes, as each compiles on one core alone."""

import os
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from bnnumba.command.steps import HALVES, half_precision, of_pytorch
from bnnumba.command.warm_up import DTYPES, jobs

SLICES = 2  # for each process: one that is done early takes another


def tasks(dtypes: Collection[str], torch: bool) -> list[Callable[[], object]]:
    """All compilations for some dtypes; those of a dtype, which have most helpers in common, follow each other."""
    steps = [step for each in dtypes if each in HALVES for step in half_precision(each)]
    steps += [step for each in dtypes if torch for step in of_pytorch(each)]
    shared, own = jobs([]), [jobs([each]) for each in dtypes if each in DTYPES]
    chosen = shared + [job for each in own for job in each[len(shared) :]]
    return [*(job.compile for job in chosen), *(run for _, run in steps)]


def compile_slice(dtypes: Collection[str], torch: bool, first: int, last: int) -> int:
    """Do some of the tasks; return their number."""
    chosen = tasks(dtypes, torch)[first:last]
    for task in chosen:
        task()
    return len(chosen)


def compile_all(dtypes: Collection[str], torch: bool, advance: Callable[[int], object]) -> None:
    """Do all tasks, in a process for each core; call `advance` with a number of them that is done."""
    number, processes = len(tasks(dtypes, torch)), os.cpu_count() or 1
    slices = min(number, SLICES * processes)
    bounds = [(number * k // slices, number * (k + 1) // slices) for k in range(slices)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(compile_slice, dtypes, torch, *each) for each in bounds]):
            advance(done.result())
