"""Keep a signal's handler from breaking a compilation off, which leaves Numba in pieces for the whole process.

Ctrl-C is one such signal; the alarm of a timeout, whose handler raises an error, is another.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Do within what no signal must break off: those that come meanwhile are handled in the end, each once.

    Only the main thread is ever interrupted; handlers that are not Python's stay as they are.
    """
    if current_thread() is not main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    came: dict[int, Any] = {}
    for number in handlers:
        signal.signal(number, came.__setitem__)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        with ExitStack() as all_of_them:  # also where one raises
            for number in reversed(came):
                all_of_them.callback(handlers[signal.Signals(number)], number, came[number])
