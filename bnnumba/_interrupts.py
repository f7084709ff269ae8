"""Keep an interrupt (Ctrl-C) from breaking a compilation off, which leaves Numba in pieces for the whole process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Do within what an interrupt must not break off: one that comes meanwhile is handled in the end.

    Only the main thread is ever interrupted; a handler that is not Python's stays as it is.
    """
    handler = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda *interrupt: came.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[-1])
