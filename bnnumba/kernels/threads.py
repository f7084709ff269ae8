"""How kernels share out their work: once, by one thread, or to all of Numba's threads.

    each_thread(work, threads, arguments)   work(threads, thread, *arguments) for each thread

A work function does its share of what there is to do, and returns nothing. `passes` names only these two functions;
each form of the kernels has its own.
"""

from collections.abc import Callable
from typing import Any

from numba import config, types

from bnnumba._jit import helper, inlined, signed

if not config.DISABLE_JIT:
    from bnnumba.kernels._threads_llvm import launch


@helper
def one_thread() -> Any:
    return signed(1)


@inlined
def by_one_thread(work: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    work(threads, signed(0), *arguments)


@inlined
def within_work(work: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    """Do as `by_one_thread`, inside of a work function: there, Numba takes the same function for a recursion."""
    work(threads, signed(0), *arguments)


@inlined
def by_all_threads(work: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    """Do all work in one parallel region."""
    launch(work, threads, arguments)


# Numba's own get_num_threads, called in a kernel, keeps it out of the disk cache; the symbol behind it does not.
all_threads: Callable[[], int] = types.ExternalFunction("get_num_threads", types.intp())

EachThread = Callable[[Callable[..., None], int, tuple[Any, ...]], None]
thread_count, each_thread = one_thread, by_one_thread  # of a form, which names its own

ALONE = {"thread_count": one_thread, "each_thread": by_one_thread}
TOGETHER = ALONE if config.DISABLE_JIT else {"thread_count": all_threads, "each_thread": by_all_threads}
