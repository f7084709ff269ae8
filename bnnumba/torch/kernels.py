"""The kernels of `addresses`, compiled: in both forms, or serial where there is too little work for threads."""

from bnnumba._jit import compile_form, linked
from bnnumba.kernels import serial, threaded, threads
from bnnumba.torch import addresses

_SERIAL = compile_form(addresses, "serial", threads.ALONE | linked(serial.FORM))
_THREADED = compile_form(addresses, "threaded", threads.TOGETHER | linked(threaded.FORM))

BATCH_NORM_AT = _SERIAL["batch_norm_at"], _THREADED["batch_norm_at"]
BACKWARD_AT = _SERIAL["backward_at"], _THREADED["backward_at"]
BEHIND_AT = _SERIAL["behind_at"], _THREADED["behind_at"]
move_at = _SERIAL["move_at"]
