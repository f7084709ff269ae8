"""The threaded form of the kernels: the bits of the serial form, from all threads."""

from bnnumba import _guards, _threads  # noqa: F401  # it starts them
from bnnumba._jit import compile_form
from bnnumba.kernels import passes, threads
from bnnumba.kernels.passes import *  # noqa: F403

FORM = compile_form(passes, "threaded", threads.TOGETHER, _guards)
globals().update(FORM)


def __dir__() -> list[str]:
    return sorted(FORM)
