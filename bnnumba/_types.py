"""Type aliases that several modules share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
SampleWeight = npt.NDArray[np.floating[Any] | np.integer[Any]]

# Arguments of the kernels: `_guards` tells what each is.
Data = Array
Numbers = Array
Result = Array
Change = Array
Weights = Array
Cells = Array
Features = Array
FeatureResult = Array
Moving = Array
Rows = Array
RowsResult = Array
Act = Any  # an instance of a class in `activations`

# Inside the kernels.
Vector = Array  # LANES numbers, see `kernels.simd`
Term = tuple[Vector, Vector, Vector, Vector]  # a, b, and behind each what rounding took from it
Totals = tuple[Vector, Vector, Vector, Vector]  # the sums of a and of a*b, and the excess of each
Coefficients = tuple[Vector, ...]  # some of x_power, mean_hi, power, scale, offset, a, b, dy_power, factor; or a pivot
Take = Callable[[Array, int, int, int], Vector]  # of coefficients a row's n numbers for a place
