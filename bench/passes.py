"""The passes as a table. A pass is one row here, and a method of that name in each library that has it.

The memory sweeps that a pass needs are listed in `bnnumba.command.memory`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench import formulas
from bench.cases import Case


class Pass(NamedTuple):
    """One row.

    outputs: names of what the timed function returns, in this order.
    traffic: the least number of times that an array of x's size moves between memory and processor.
    expected: the formulas that the outputs are checked against.
    reported: whether `python -m bench` measures it by default.
    """

    outputs: tuple[str, ...]
    traffic: int
    expected: Callable[[Case], dict[str, np.ndarray]]
    reported: bool = True


GRADIENTS = ("dx", "dgamma", "dbeta")

PASSES = {
    "moments": Pass(("mean", "var"), 1, formulas.training, reported=False),
    "inference": Pass(("y",), 2, formulas.frozen),
    "training_forward": Pass(("y",), 2, formulas.training),
    "backward": Pass(GRADIENTS, 3, formulas.training),
    "frozen_backward": Pass(GRADIENTS, 3, formulas.frozen),
    "forward_backward": Pass(("y", *GRADIENTS), 5, formulas.training, reported=False),
    "residual_relu": Pass(("y", *GRADIENTS, "dresidual"), 8, formulas.residual_relu),  # forward and backward
    "double_backward": Pass(("ddy", "second dx", "second dgamma"), 5, formulas.second_order, reported=False),
}
