"""Keep a signal's handler from breaking a compilation off, which leaves Numba in pieces for the whole process.

Ctrl-C is one such signal; the alarm of a timeout, whose handler raises an error, is another.
"""

import signal
from collections.abc import Iterator, Mapping
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
    try:
        for number in handlers:
            signal.signal(number, came.__setitem__)
        yield
    finally:
        _restore(handlers)
        with ExitStack() as all_of_them:  # also where one raises
            for number in reversed(came):
                all_of_them.callback(handlers[signal.Signals(number)], number, came[number])


def _restore(handlers: Mapping[Any, Any]) -> None:
    """Give all signals their handlers back, also where one of these raises meanwhile."""
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    except BaseException:
        _restore(handlers)
        raise
