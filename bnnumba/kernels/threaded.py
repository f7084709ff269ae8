"""The threaded form of the kernels: the bits of the serial form, from all of Numba's threads."""

from bnnumba._jit import compile_form
from bnnumba.kernels import fused, passes, threads

FORM = {
    **compile_form(passes, passes.KERNELS, "threaded", **threads.TOGETHER),
    **compile_form(fused, fused.KERNELS, "threaded", **threads.TOGETHER),
}

moments_into = FORM["moments_into"]
moments_and_rest_into = FORM["moments_and_rest_into"]
weighted_moments_into = FORM["weighted_moments_into"]
normalize = FORM["normalize"]
batch_norm_into = FORM["batch_norm_into"]
gradient_sums_into = FORM["gradient_sums_into"]
input_gradient = FORM["input_gradient"]
frozen_input_gradient = FORM["frozen_input_gradient"]
batch_norm_backward_into = FORM["batch_norm_backward_into"]
frozen_backward_into = FORM["frozen_backward_into"]
subtract_weighted = FORM["subtract_weighted"]
pool_into = FORM["pool_into"]
update_moving = FORM["update_moving"]
update_moving_finite = FORM["update_moving_finite"]
moments = FORM["moments"]
batch_norm = FORM["batch_norm"]
gradient_sums = FORM["gradient_sums"]
batch_norm_backward = FORM["batch_norm_backward"]
frozen_backward = FORM["frozen_backward"]
normalize_relu = FORM["normalize_relu"]
normalize_add = FORM["normalize_add"]
normalize_add_relu = FORM["normalize_add_relu"]
batch_norm_relu_into = FORM["batch_norm_relu_into"]
batch_norm_add_into = FORM["batch_norm_add_into"]
batch_norm_add_relu_into = FORM["batch_norm_add_relu_into"]
relu_gradient_sums_into = FORM["relu_gradient_sums_into"]
add_relu_gradient_sums_into = FORM["add_relu_gradient_sums_into"]
relu_backward_into = FORM["relu_backward_into"]
remade_relu_backward_into = FORM["remade_relu_backward_into"]
add_relu_backward_into = FORM["add_relu_backward_into"]
frozen_relu_backward_into = FORM["frozen_relu_backward_into"]
frozen_add_relu_backward_into = FORM["frozen_add_relu_backward_into"]
