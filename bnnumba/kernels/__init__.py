"""Kernels on canonical three-dimensional arrays, callable from Python and from a caller's own `@njit` code.

`bnnumba.kernels.serial` uses no threads and may be called inside a caller's own `prange`; `bnnumba.kernels.threaded`
has the same functions, gives the same bits, and uses the package's threads. The signatures are stable:

    moments(x) -> (mean, var)
    moments_into(x, mean, var)
    moments_and_rest_into(x, mean, var, rest)
    weighted_moments_into(x, weights, mean, var, rest=None) -> count
    cell_moments_into(x, mean, var, rest, count, omit, weights=None)
    pool_into(count_a, a, count_b, b, union)
    update_moving(moving_mean, moving_var, mean, var, count, momentum, ddof), and update_moving_finite
    normalize(x, mean, var, gamma, beta, epsilon, y, residual=None, activation=None)
    batch_norm(x, gamma, beta, epsilon, y, residual=None, activation=None) -> (mean, var)
    gradient_sums(dy, x, mean, var, epsilon, BEHIND) -> (dgamma, dbeta)
    input_gradient(dy, x, mean, var, gamma, dgamma, dbeta, epsilon, dx)
    frozen_input_gradient(dy, var, gamma, epsilon, dx)
    batch_norm_backward(dy, x, mean, var, gamma, epsilon, dx, BEHIND, beta=None) -> (dgamma, dbeta)
    frozen_backward(dy, x, mean, var, gamma, epsilon, dx, BEHIND) -> (dgamma, dbeta)
    activation_gradient(dy, y, activation, dresidual)
    subtract_weighted(dy, weights, change)

BEHIND is dresidual=None, activation=None, y=None. What a kernel returns, its form named `_into` fills instead:
batch_norm_into, gradient_sums_into, batch_norm_backward_into and frozen_backward_into take it after y or dx. Called
from Python, these are the better choice: an interrupt (Ctrl-C) during a call stays what it is, where Numba, about to
return arrays, makes a SystemError of it.

x, dy, y, dx, residual and dresidual are (outer, feature, inner), C-contiguous, all float32 or all float64; or of half
precision, as the integers of the same bits: uint16 for float16, int16 for bfloat16 (change is then float32). A result
may take an input's place: y that of x or of residual, dx that of dy or of x, dresidual none. Arrays of shape (feature,)
are float64 and C-contiguous, but moving_mean and moving_var may be float32. epsilon and momentum are floats, count and
ddof ints. Arrays of another rank, dtype or layout are a TypeError when a call is compiled. Shapes are not checked, and
a wrong one reads or writes outside an array, unless NUMBA_BOUNDSCHECK=1 is set before the import. The equations are
those of the functions of the same names; update_moving_finite leaves features whose mean or var is NaN or infinite.

activation is an instance of a class in `bnnumba.activations`, such as Relu() or LeakyRelu(0.2), or None. With one, the
backward pass needs the forward's y. dresidual, the gradient of the residual, is then dy * act'(v), and takes dy's place
in all equations; without an activation it is dy. batch_norm_backward with beta in place of y makes y again from x: no
residual, and a read less.

rest is what rounding took from the mean, which is mean + rest with twice the digits.

x of moments and of normalize may be integers, those of 16 bits as records of one field: x.view([("int16", "i2")]), or
"uint16". y is then of any of the floats above.

cell_moments_into fills each feature's own count: NaN does not count where omit is 1. Its weights are as x, float64.
Without them omit must be 1.

weights of the others is (outer, 1, inner), float64 and C-contiguous, of what is finite and not negative. Where it is 0,
x may be anything; count is the sum. subtract_weighted makes change = dy - weights*change, in place.

a, b and union are (4, feature), float64 and C-contiguous: mean, what rounding took from it, var, and what it took from
that, as `merge_moments` pools them; each feature has its own counts, float64.
"""

from bnnumba.kernels import serial, threaded

__all__ = ["serial", "threaded"]
