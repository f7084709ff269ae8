"""Measure libraries in turn, so that all see the same machine even where its speed drifts.

Every case has several rounds. In a round, each library runs a burst of calls of each pass. The shortest time of all
rounds counts, because noise only adds. One more process measures the memory's rates in the same way.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from statistics import median
from typing import Any, NamedTuple

from rich.progress import Progress

from bench import check, limits
from bench.cases import case_of
from bench.library import MEMORY, LeftOutError
from bench.worker import serve

# OpenMP's threads spin for some time after a call (6 ms here). They must not disturb the next library.
PAUSE = 0.02  # seconds


class Plan(NamedTuple):
    """What to measure: names from the three tables. seconds: the length of a burst."""

    cases: Sequence[str]
    passes: Sequence[str]
    libraries: Sequence[str]
    rounds: int
    seconds: float
    threads: int


class Outcome(NamedTuple):
    """The shortest seconds of a call, by case, pass and library. Each rate of the memory is a pass, too.

    left_out: the reasons why libraries have no entry, each with the number of entries.
    load: how many processes ran before the measurement.
    spread: how much longer a round took than the best: the median round, of the median entry.
    """

    seconds: dict[str, dict[str, dict[str, float]]]
    versions: dict[str, str]
    left_out: dict[str, int]
    load: float = 0.0
    spread: float = 1.0


class Process:
    """The parent's end of a worker."""

    def __init__(self, library: str) -> None:
        context = get_context("spawn")  # a forked child would inherit this process's threads and memory
        self.library = library
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, library), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *request: Any) -> Any:
        try:
            self.connection.send(request)
            return self.connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise RuntimeError(f"the process of {self.library} ended at {request}; its own message is above") from error

    def close(self) -> None:
        self.connection.close()
        self.process.join()


def measure(plan: Plan) -> Outcome:
    outcome, spreads = Outcome({}, {}, Counter(), _load()), []
    with _processes(plan) as processes, Progress() as bar:
        task = bar.add_task("", total=len(plan.cases) * plan.rounds)
        for case_name in plan.cases:
            bar.update(task, description=case_name)
            entries = _prepare(processes, case_name, plan.passes, outcome)
            rounds = defaultdict(lambda: defaultdict(list))
            for number in range(plan.rounds):
                for pass_name, process in _turns(entries, number):
                    time.sleep(PAUSE)
                    rounds[pass_name][process.library].append(process.ask("time", pass_name, plan.seconds))
                bar.advance(task)
            outcome.seconds[case_name] = {
                pass_name: {library: min(times) for library, times in of_pass.items()}
                for pass_name, of_pass in rounds.items()
            }
            spreads += [median(times) / min(times) for of_pass in rounds.values() for times in of_pass.values()]
    return outcome._replace(spread=median(spreads))


def _load() -> float:
    """How many processes ran lately; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


@contextmanager
def _processes(plan: Plan) -> Iterator[list[Process]]:
    """One process for each library, and one for the memory. They read the number of threads when they start."""
    threads = dict.fromkeys(("BENCH_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), str(plan.threads))
    os.environ.update(threads)
    processes = [Process(library) for library in (*plan.libraries, MEMORY)]
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


def _prepare(
    processes: list[Process], case_name: str, passes: Sequence[str], outcome: Outcome
) -> dict[str, list[Process]]:
    """Set up all entries of a case and check what each returns: the processes that take part, by pass."""
    entries = defaultdict(list)
    for process in processes:
        of_memory = process.library == MEMORY
        for pass_name in limits.RATES if of_memory else passes:
            reply = process.ask("prepare", case_name, pass_name)
            if isinstance(reply, LeftOutError):
                outcome.left_out[str(reply)] += 1
                continue
            outcome.versions[process.library], results = reply
            try:
                (limits if of_memory else check).check(case_of(case_name), pass_name, results)
            except AssertionError as wrong:
                wrong.add_note(f"by {process.library}, for {case_name}")
                raise
            entries[pass_name].append(process)
    return entries


def _turns(entries: dict[str, list[Process]], number: int) -> Iterator[tuple[str, Process]]:
    """The bursts of a round. Each round begins with another library."""
    for pass_name, processes in entries.items():
        start = number % len(processes)
        for process in processes[start:] + processes[:start]:
            yield pass_name, process
