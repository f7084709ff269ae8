"""Type aliases that several modules share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
SampleWeight = npt.NDArray[np.floating[Any] | np.integer[Any]]
Arrays = tuple[Array, ...]
Vector = Array  # LANES numbers, see kernels.simd
Term = tuple[Vector, Vector, Vector, Vector]  # a, b, and behind each what rounding took from it
Centre = tuple[Vector, Vector, Vector, Vector]  # rows of centres, see kernels.statistics
Terms = Callable[[Arrays, Array, int, int, int, Centre], Term]
Sums = tuple[Vector, Vector, Vector, Vector]  # of a, of a*b, and the excess of each
Coefficients = tuple[Vector, Vector, Vector, Vector, Vector, Vector]
Values = Callable[[Arrays, Array, int, int, int, Coefficients], Vector]
