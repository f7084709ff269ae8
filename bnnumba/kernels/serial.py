"""The serial form of the kernels: no threads, for small data and for use inside a caller's own `prange`."""

from bnnumba import _guards
from bnnumba._jit import compile_form
from bnnumba.kernels import passes, threads
from bnnumba.kernels.passes import *  # noqa: F403

FORM = compile_form(passes, "serial", threads.ALONE, _guards)
globals().update(FORM)


def __dir__() -> list[str]:
    return sorted(FORM)
