"""Numerical differentiation in extended precision."""

import numpy as np

from tests.tools import oracle

STEP = 2.0**-18  # small enough not to cross a ReLU's edge, large enough that roundings are some 1e-12


def gradient(value, point, which):
    """The gradient of `value(*point)` with respect to one of the arrays of `point`, by central differences."""
    point = [np.asarray(array, oracle.WIDE) for array in point]
    result = np.empty(point[which].shape, oracle.WIDE)

    def at(place, step):
        moved = [array.copy() for array in point]
        moved[which][place] += step
        return value(*moved)

    for place in np.ndindex(result.shape):
        result[place] = (at(place, STEP) - at(place, -STEP)) / (2 * STEP)
    return result
