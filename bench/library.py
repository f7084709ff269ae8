"""What a file of `bench.libraries` defines, and how its class is found."""

from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from bench.cases import Case, Problem
from bench.libraries import PEERS
from bench.passes import PASSES

MEMORY = "memory"  # no library, but measured like one
_PATHS = {name: f"bench.libraries.{peer.path}" for name, peer in PEERS.items()} | {MEMORY: "bench.limits:Rates"}


class Library:
    """One library with the data of one problem, held in the library's own arrays.

    A method named after a pass of `bench.passes` returns a function without arguments. This function is timed. It does
    the pass and nothing else, and returns the pass's outputs in their order. The method itself does the rest before:
    it converts, allocates, traces and compiles. Outputs go to recycled memory: to the same array in every call where
    the library takes one, otherwise to what `bench.machine.recycle_memory` keeps. A pass without a method is left out.

    version: the library's.
    missing: the reason why a pass is left out, by pass.
    dtypes: of the data that the library is compared with.
    """

    version: str
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    missing: ClassVar[dict[str, str]] = {}

    def __init__(self, problem: Problem) -> None:
        raise NotImplementedError

    @classmethod
    def refuses(cls, case: Case) -> str:
        """Why the library cannot take the case; empty where it can."""
        del case
        return ""

    def fetch(self, value: Any) -> np.ndarray:
        """One output as a NumPy array of the problem's shape, or of as many elements in the same order."""
        return np.asarray(value)

    def results(self, pass_name: str, returned: Any) -> dict[str, np.ndarray]:
        """What a timed function returned, by name."""
        values = returned if isinstance(returned, (tuple, list)) else (returned,)
        return {name: self.fetch(value) for name, value in zip(PASSES[pass_name].outputs, values, strict=False)}


class LeftOutError(Exception):
    """A library is not installed, or cannot do what is asked. The message says which library and why."""


def load(name: str, case: Case, pass_name: str) -> type[Library]:
    """Import a library's class, or raise LeftOutError."""
    module, class_name = _PATHS[name].split(":")
    try:
        library = getattr(import_module(module), class_name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in {"bench", "bnnumba"}:
            raise
        raise LeftOutError(f"{name}: {error.name} is not installed") from error
    reason = library.missing.get(pass_name) or library.refuses(case)
    if case.dtype not in library.dtypes:
        reason = f"{case.dtype} is not compared"
    if not reason and not hasattr(library, pass_name):
        reason = f"{pass_name} is not compared"
    if reason:
        raise LeftOutError(f"{name}: {reason}")
    return library
