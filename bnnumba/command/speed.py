"""How fast this machine is: its memory, and a training step beside NumPy's and beside what the memory allows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

import bnnumba
from bnnumba.command.memory import RATES, Arrays, gigabytes_per_second, least_seconds
from bnnumba.command.timing import least_time
from bnnumba.command.whole_arrays import WholeArrays

EPSILON = 1e-3
BURST = 0.15  # seconds, twice for each, in turn

# float32: a small one, and one of 25.7 MB in each layout.
CASES = [((32, 64), -1), ((32, 56, 56, 64), -1), ((32, 64, 56, 56), 1)]
RATE_SIZES = {"4 MB": 10**6, "100 MB": 25 * 10**6}  # elements of each array


class Measured(NamedTuple):
    """Seconds of a pass: ours, NumPy's, and the least that the memory allows."""

    case: str
    name: str
    ours: float
    numpy: float
    limit: float


def memory_rates(elements: int) -> dict[str, float]:
    """GB/s of each kind of sweep over float32 arrays of this number of elements."""
    x = np.ones(elements, np.float32)
    return _rates(x, x)


def training_steps(shape: tuple[int, ...], axis: int) -> list[Measured]:
    """A forward and a backward pass, checked against each other before they are timed."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32) for _ in range(2))
    gamma, beta = (rng.uniform(0.5, 1.5, shape[axis]).astype(np.float32) for _ in range(2))
    y, dx = np.empty_like(x), np.empty_like(x)
    reduced = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    theirs = WholeArrays(x, dy, np.expand_dims(gamma, reduced), np.expand_dims(beta, reduced), reduced, EPSILON)
    _, moments = bnnumba.batch_norm(x, gamma, beta, axis, epsilon=EPSILON, out=y)
    numpy_y, mean, var = theirs.train()

    def forward() -> Any:
        return bnnumba.batch_norm(x, gamma, beta, axis, epsilon=EPSILON, out=y)

    def backward() -> Any:
        return bnnumba.batch_norm_backward(dy, x, *moments[:2], gamma, axis, epsilon=EPSILON, out=dx)

    backward()
    for found, right in ((y, numpy_y), (dx, theirs.differentiate(mean, var)[0])):
        np.testing.assert_allclose(found, right, rtol=1e-2, atol=1e-4)
    rates, last = _rates(x, dy), axis == -1
    case = f"channels {'last' if last else 'first'}, {'x'.join(map(str, shape))}"
    passes: list[tuple[str, str, Callable[[], Any], Callable[[], Any]]] = [
        ("forward", "training_forward", forward, theirs.train),
        ("backward", "backward", backward, lambda: theirs.differentiate(mean, var)),
    ]
    measured = []
    for name, pass_name, our_run, numpy_run in passes:
        ours, numpys = _in_turn(our_run, numpy_run)
        measured.append(Measured(case, name, ours, numpys, least_seconds(x.nbytes, last, pass_name, rates)))
    return measured


def _rates(x: Any, dy: Any) -> dict[str, float]:
    arrays = Arrays(x, dy, numba.get_num_threads())
    return {rate: gigabytes_per_second(x.nbytes, rate, least_time(arrays.sweep(rate), BURST)) for rate in RATES}


def _in_turn(*runs: Callable[[], Any]) -> list[float]:
    return [min(times) for times in zip(*([least_time(run, BURST) for run in runs] for _ in range(2)), strict=True)]
