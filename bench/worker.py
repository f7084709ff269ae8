"""One library in a process of its own, so that it shares no threads, memory or caches with another."""

from multiprocessing.connection import Connection
from typing import Any

from bench.cases import case_of, make_problem
from bench.library import LeftOutError, Library, load
from bench.machine import recycle_memory
from bnnumba.command.timing import least_time


class Worker:
    """A library with the entries of one case. The report asks for its public methods."""

    def __init__(self, name: str) -> None:
        self.name, self.case_name = name, ""
        self.library: Library | None = None
        self.entries: dict[str, Any] = {}

    def prepare(self, case_name: str, pass_name: str) -> Any:
        """Set up an entry and run it once: its version and results, or the LeftOutError that says why not."""
        try:
            loaded = load(self.name, case_of(case_name), pass_name)
        except LeftOutError as reason:
            return reason
        if self.library is None or case_name != self.case_name:
            self.entries, self.library = {}, None  # release the last case's memory before this case takes its own
            self.library, self.case_name = loaded(make_problem(case_of(case_name))), case_name
            make_problem.cache_clear()  # most libraries hold a copy of their own
        self.entries[pass_name] = getattr(self.library, pass_name)()
        return loaded.version, self.library.results(pass_name, self.entries[pass_name]())

    def time(self, pass_name: str, seconds: float) -> float:
        return least_time(self.entries[pass_name], seconds)


def serve(connection: Connection, name: str) -> None:
    """Answer requests until the other end is closed. A request is a method's name and its arguments."""
    recycle_memory()
    worker = Worker(name)
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        connection.send(getattr(worker, method)(*arguments))
