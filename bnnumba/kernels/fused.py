"""The kernels that add a residual, apply ReLU, or both; written once, as those in `passes` are.

    y = act(gamma*x_hat + beta + residual)    dresidual = dy where y > 0, else 0

Their backward takes the forward's y, and is `passes`' of dresidual in the place of dy. Without a residual y can be made
again from x, with the same bits, which is a read less.
"""

from bnnumba._types import Array
from bnnumba.kernels.activation import (
    added,
    added_relu,
    masked,
    masked_scaled,
    normalized_relu,
    relu_gradient_terms,
    relu_input_gradient,
    remade_relu_gradient_terms,
    remade_relu_input_gradient,
)
from bnnumba.kernels.formulas import input_gradient
from bnnumba.kernels.grid import make_grid
from bnnumba.kernels.parts import adding, adding_and_filling, filling
from bnnumba.kernels.passes import differentiate, scale
from bnnumba.kernels.plan import plan_of
from bnnumba.kernels.statistics import new_coefficients
from bnnumba.kernels.steps import (
    adding_up,
    adding_up_and_masking,
    differentiating_groups,
    fill_backward,
    fill_batch_norm,
    fill_frozen,
    fill_gradient_sums,
    fill_in_groups,
    fill_in_one_sweep,
    fill_input_gradient,
    fill_normalized,
    new_frozen_coefficients,
    normalizing_groups,
)
from bnnumba.kernels.threads import each_thread, thread_count

scale_relu, add, add_relu = filling(normalized_relu), filling(added), filling(added_relu)
relu_groups, add_groups, add_relu_groups = (
    normalizing_groups(normalized_relu),
    normalizing_groups(added),
    normalizing_groups(added_relu),
)
sum_gradients, differentiate_relu = adding(relu_gradient_terms), filling(relu_input_gradient)
sum_gradients_and_mask = adding_and_filling(relu_gradient_terms, masked)
sum_gradients_and_scale = adding_and_filling(relu_gradient_terms, masked_scaled)
differentiate_groups = differentiating_groups(adding_up(sum_gradients), relu_input_gradient)
sum_remade, differentiate_remade = adding(remade_relu_gradient_terms), filling(remade_relu_input_gradient)
remade_groups = differentiating_groups(adding_up(sum_remade), remade_relu_input_gradient)
mask_groups = differentiating_groups(adding_up_and_masking(sum_gradients_and_mask), input_gradient)


def normalize_relu(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> None:
    """Fill y = max(gamma*x_hat + beta, 0)."""
    fill_normalized(each_thread, thread_count(), scale_relu, (), x, mean, var, gamma, beta, epsilon, y)


def normalize_add(
    x: Array, residual: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array
) -> None:
    """Fill y = gamma*x_hat + beta + residual."""
    fill_normalized(each_thread, thread_count(), add, (residual,), x, mean, var, gamma, beta, epsilon, y)


def normalize_add_relu(
    x: Array, residual: Array, mean: Array, var: Array, gamma: Array, beta: Array, epsilon: float, y: Array
) -> None:
    """Fill y = max(gamma*x_hat + beta + residual, 0)."""
    fill_normalized(each_thread, thread_count(), add_relu, (residual,), x, mean, var, gamma, beta, epsilon, y)


def batch_norm_relu_into(
    x: Array, gamma: Array, beta: Array, epsilon: float, y: Array, mean: Array, var: Array
) -> None:
    """Fill mean and var of x, and `normalize_relu` by them."""
    each, threads = each_thread, thread_count()
    fill_batch_norm(each, threads, relu_groups, scale_relu, (), x, gamma, beta, epsilon, y, mean, var)


def batch_norm_add_into(
    x: Array, residual: Array, gamma: Array, beta: Array, epsilon: float, y: Array, mean: Array, var: Array
) -> None:
    """Fill mean and var of x, and `normalize_add` by them."""
    each, threads = each_thread, thread_count()
    fill_batch_norm(each, threads, add_groups, add, (residual,), x, gamma, beta, epsilon, y, mean, var)


def batch_norm_add_relu_into(
    x: Array, residual: Array, gamma: Array, beta: Array, epsilon: float, y: Array, mean: Array, var: Array
) -> None:
    """Fill mean and var of x, and `normalize_add_relu` by them."""
    each, threads = each_thread, thread_count()
    fill_batch_norm(each, threads, add_relu_groups, add_relu, (residual,), x, gamma, beta, epsilon, y, mean, var)


def relu_gradient_sums_into(
    dy: Array, y: Array, x: Array, mean: Array, var: Array, epsilon: float, dgamma: Array, dbeta: Array
) -> None:
    """Fill dgamma = sum(dresidual * x_hat) and dbeta = sum(dresidual)."""
    fill_gradient_sums(each_thread, thread_count(), sum_gradients, (dy, y), x, mean, var, (), epsilon, dgamma, dbeta)


def add_relu_gradient_sums_into(
    dy: Array,
    y: Array,
    x: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    dresidual: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill dresidual and the same sums in one sweep."""
    each, threads, others = each_thread, thread_count(), (dy, y)
    unused = new_coefficients(make_grid(x.shape), x)
    work = sum_gradients_and_mask
    fill_in_one_sweep(each, threads, work, others, x, mean, var, epsilon, unused, dresidual, dgamma, dbeta)


def relu_backward_into(
    dy: Array,
    y: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill the training backward of dresidual, which is not kept."""
    each, threads, groups = each_thread, thread_count(), differentiate_groups
    add, fill = sum_gradients, differentiate_relu
    fill_backward(each, threads, groups, add, fill, (dy, y), x, mean, var, gamma, (), epsilon, dx, dgamma, dbeta)


def remade_relu_backward_into(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Do as `relu_backward_into`, with y made again; half precision's is not rounded, and may be 0 no longer."""
    each, threads, affine = each_thread, thread_count(), (gamma, beta)
    groups, add = remade_groups, sum_remade
    fill = differentiate_remade
    fill_backward(each, threads, groups, add, fill, (dy,), x, mean, var, gamma, affine, epsilon, dx, dgamma, dbeta)


def add_relu_backward_into(
    dy: Array,
    y: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    dx: Array,
    dresidual: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill dresidual, and the training backward of it."""
    each, threads = each_thread, thread_count()
    if x.size and plan_of(x, threads)[1].whole:
        work = mask_groups
        results = dx, dresidual
        fill_in_groups(each, threads, work, (dy, y), x, mean, var, gamma, (), epsilon, results, dgamma, dbeta)
        return
    add_relu_gradient_sums_into(dy, y, x, mean, var, epsilon, dresidual, dgamma, dbeta)
    fill, others = differentiate, (dresidual,)
    fill_input_gradient(each, threads, fill, others, x, mean, var, gamma, (), dgamma, dbeta, epsilon, dx)


def frozen_relu_backward_into(
    dy: Array,
    y: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill the frozen backward of dresidual, which is not kept."""
    each, threads, others = each_thread, thread_count(), (dy, y)
    coefficients = new_frozen_coefficients(var, gamma, epsilon, x)
    work = sum_gradients_and_scale
    fill_in_one_sweep(each, threads, work, others, x, mean, var, epsilon, coefficients, dx, dgamma, dbeta)


def frozen_add_relu_backward_into(
    dy: Array,
    y: Array,
    x: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    epsilon: float,
    dx: Array,
    dresidual: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Fill dresidual, and the frozen backward of it."""
    add_relu_gradient_sums_into(dy, y, x, mean, var, epsilon, dresidual, dgamma, dbeta)
    fill_frozen(each_thread, thread_count(), scale, dresidual, var, gamma, epsilon, dx)


KERNELS = (
    "normalize_relu",
    "normalize_add",
    "normalize_add_relu",
    "batch_norm_relu_into",
    "batch_norm_add_into",
    "batch_norm_add_relu_into",
    "relu_gradient_sums_into",
    "add_relu_gradient_sums_into",
    "relu_backward_into",
    "remade_relu_backward_into",
    "add_relu_backward_into",
    "frozen_relu_backward_into",
    "frozen_add_relu_backward_into",
)
