"""The threaded form of the kernels: the bits of the serial form, from all of Numba's threads."""

from bnnumba._jit import compile_form
from bnnumba.kernels import passes, threads

FORM = compile_form(passes, passes.KERNELS, "threaded", **threads.TOGETHER)

moments_into = FORM["moments_into"]
normalize = FORM["normalize"]
batch_norm_into = FORM["batch_norm_into"]
gradient_sums_into = FORM["gradient_sums_into"]
input_gradient = FORM["input_gradient"]
frozen_input_gradient = FORM["frozen_input_gradient"]
batch_norm_backward_into = FORM["batch_norm_backward_into"]
frozen_backward_into = FORM["frozen_backward_into"]
update_moving = FORM["update_moving"]
update_moving_finite = FORM["update_moving_finite"]
moments = FORM["moments"]
batch_norm = FORM["batch_norm"]
gradient_sums = FORM["gradient_sums"]
batch_norm_backward = FORM["batch_norm_backward"]
frozen_backward = FORM["frozen_backward"]
