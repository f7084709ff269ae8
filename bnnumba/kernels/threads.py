"""How kernels share out their work: once, by one thread, or to all threads (see `workers`).

    each_thread(work, threads, arguments)   work(threads, thread, *arguments) for each thread

A work function does its share of what there is to do, and returns nothing. Kernels use the globals `thread_count` and
`each_thread`; each form of the kernels binds its own.
"""

from collections.abc import Callable
from typing import Any

from numba import config

from bnnumba._jit import helper, inlined, signed

if not config.DISABLE_JIT:
    from bnnumba.kernels._threads_llvm import launch
    from bnnumba.kernels.workers import worker_count


@helper
def one_thread() -> Any:
    return signed(1)


@inlined
def by_one_thread(work: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    work(threads, signed(0), *arguments)


@inlined
def within_work(work: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    """Do the same as `by_one_thread`, inside a work function: under one name Numba would see a recursion."""
    work(threads, signed(0), *arguments)


@inlined
def by_all_threads(work: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    launch(work, threads, arguments)


EachThread = Callable[[Callable[..., None], int, tuple[Any, ...]], None]
thread_count, each_thread = one_thread, by_one_thread  # each form binds its own

ALONE: dict[str, Any] = {"thread_count": one_thread, "each_thread": by_one_thread}
TOGETHER = ALONE if config.DISABLE_JIT else {"thread_count": worker_count, "each_thread": by_all_threads}
