"""The passes on arguments that `functional` has checked: views, kernels, and back.

Arrays of the data's size may be any that `axes` takes; those of features, and results, are as `View.parameter` gives
them: flat and float64.
"""

from collections.abc import Collection

from bnnumba import forms, weighted
from bnnumba._types import Array
from bnnumba.axes import View
from bnnumba.weighted import Weights


def normalize_into(
    view: View,
    inputs: Collection[Array],
    mean: Array,
    var: Array,
    scale: Array,
    shift: Array,
    epsilon: float,
    relu: bool,
    y: Array,
) -> Array:
    """Fill and return y; inputs are x, or x and a residual."""
    result = view.for_result(y)
    kernel = forms.NORMALIZE[relu, len(inputs) > 1]
    kernel(*[view.of(array) for array in inputs], mean, var, scale, shift, epsilon, result)
    return view.deliver(result, y)


def batch_norm_into(
    view: View,
    inputs: Collection[Array],
    scale: Array,
    shift: Array,
    epsilon: float,
    weights: Weights | None,
    relu: bool,
    y: Array,
) -> tuple[Array, Array, int | float]:
    """Fill y; return mean, var and count."""
    result = view.for_result(y)
    given, behind = [view.of(array) for array in inputs], (relu, len(inputs) > 1)
    mean, var = view.new_features()
    count: int | float = view.reduced
    if weights is None:
        forms.BATCH_NORM[behind](*given, scale, shift, epsilon, result, mean, var)
    else:
        count = weighted.moments_into(given[0], weights, mean, var)
        given[0] = weighted.counted(given[0], count)
        forms.NORMALIZE[behind](*given, mean, var, scale, shift, epsilon, result)
    view.deliver(result, y)
    return mean, var, count


def backward_into(
    view: View,
    inputs: Collection[Array],
    mean: Array,
    var: Array,
    scale: Array,
    epsilon: float,
    weights: Weights | None,
    frozen: bool,
    dx: Array | None,
    dresidual: Array | None,
) -> tuple[Array, Array]:
    """Fill dx and dresidual, those that are not None; return dgamma and dbeta.

    Inputs are dy and x, or behind a ReLU dy, y and x. Only there is dresidual another array than dy.
    """
    given = tuple(view.of(array) for array in inputs)
    into_dx, into_dresidual = (None if array is None else view.for_result(array) for array in (dx, dresidual))
    results = [array for array in (into_dx, into_dresidual) if array is not None]
    dgamma, dbeta = view.new_features()
    behind = len(inputs) == 3, dresidual is not None
    if weights is not None:
        weighted.backward_into(given, mean, var, scale, epsilon, weights, into_dx, into_dresidual, dgamma, dbeta)
    elif dx is not None:
        kernel = (forms.FROZEN_BACKWARD if frozen else forms.TRAINING_BACKWARD)[behind]
        kernel(*given, mean, var, scale, epsilon, *results, dgamma, dbeta)
    else:
        forms.GRADIENT_SUMS[behind](*given, mean, var, epsilon, *results, dgamma, dbeta)
    for array, result in ((dx, into_dx), (dresidual, into_dresidual)):
        if array is not None and result is not None:
            view.deliver(result, array)
    return dgamma, dbeta
