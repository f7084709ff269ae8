"""Random problems for the fuzzers: shapes, axes, layouts, magnitudes, what is not finite, where results go."""

from typing import NamedTuple

import numba
import numpy as np
from hypothesis import strategies as st

from tests.tools import oracle
from tests.tools.problems import FLOATS, LAYOUTS, Problem

EPSILONS = (0.0, 1e-5, 1e-3, 2.0)
OFFSETS = (0.0, -0.5, 1e2, 1e4, -1e6)  # mean/std
# Data up to scale*(offset + 5): float32 from its subnormal numbers to 1e37, float64 as far as var reaches.
SCALES = {np.float32: (1e-38, 1e-35, 1e-8, 1.0, 3e3, 1e30), np.float64: (1e-140, 1e-8, 1.0, 3e3, 1e140)}
# Of dy and gamma: mostly ordinary; and near the ends of their dtypes.
DY_SIZES = {np.float32: (1e-43, 1e-38, 1e-25, 1e25, 1e37), np.float64: (1e-290, 1e-100, 1e200, 1e300)}
GAMMA_SIZES = {np.float32: (1e-40, 1e-10, 1e10, 1e38), np.float64: (1e-315, 1e-100, 1e100, 1e307)}
NOT_FINITE = (np.nan, np.inf, -np.inf)
OUTPUTS = ("new", "fresh", "strided", "x", "dy")


def _mixed(rng, shape):
    """Magnitudes from 1e-6 to 1e2 within a feature."""
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 2, shape)


KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-2, 2, shape),
    "few integers": lambda rng, shape: rng.integers(-3, 4, shape).astype(float),
    "constant": lambda rng, shape: np.full(shape, rng.uniform(-2, 2)),
    "mixed magnitudes": _mixed,
}


class Case(NamedTuple):
    """A problem, and how it is put to the functions. bad: the places of x that are not finite, flat."""

    problem: Problem
    feature_axis: tuple[int, ...]
    epsilon: float
    x_layout: str
    dy_layout: str
    output: str
    threads: int
    bad: tuple[tuple[int, float], ...]
    activation: str | None
    residual: np.ndarray | None
    weights: dict[str, np.ndarray]


def shapes():
    """Mostly small ones, some with a long axis, a few that threads share."""
    small = st.lists(st.integers(0, 7), min_size=1, max_size=6)
    long = st.tuples(
        st.lists(st.integers(1, 5), max_size=3), st.integers(8, 2000), st.lists(st.integers(1, 5), max_size=2)
    )
    large = st.sampled_from([(3000, 60), (2, 9, 9001), (700, 257), (40, 12, 16, 20), (140_000,), (9000, 16)])
    long = long.map(lambda parts: [*parts[0], parts[1], *parts[2]])
    return st.one_of(*[small] * 10, *[long] * 9, large).map(tuple)


@st.composite
def cases(draw):
    dtype, shape = draw(st.sampled_from(FLOATS)), draw(shapes())
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape)))]
    feature_axis = tuple(axis - len(shape) * draw(st.booleans()) for axis in axes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale, kind = draw(st.sampled_from(SCALES[dtype])), draw(st.sampled_from(sorted(KINDS)))
    x = (scale * (draw(st.sampled_from(OFFSETS)) + KINDS[kind](rng, shape))).astype(dtype)
    features = oracle.feature_shape(shape, feature_axis)
    weights = {} if draw(st.booleans()) else _weights(draw, rng, oracle.position_shape(shape, feature_axis))
    dy_size, gamma_size = (draw(_sizes(sizes[dtype])) for sizes in (DY_SIZES, GAMMA_SIZES))
    dy = (dy_size * (0.5 + rng.standard_normal(shape)).astype(oracle.WIDE)).astype(dtype)
    problem = Problem(x, dy, gamma_size * rng.uniform(-2, 2, features), rng.uniform(-2, 2, features))
    place = st.tuples(st.integers(0, max(x.size - 1, 0)), st.sampled_from(NOT_FINITE))
    bad = draw(st.one_of(st.just([]), st.lists(place, min_size=1, max_size=3))) if x.size and not weights else []
    layouts = st.sampled_from(sorted(LAYOUTS))
    return Case(
        problem,
        feature_axis,
        draw(st.sampled_from(EPSILONS)),
        draw(layouts),
        draw(layouts),
        draw(st.sampled_from(OUTPUTS)),
        draw(st.integers(1, numba.config.NUMBA_NUM_THREADS)),
        tuple(bad),
        draw(st.sampled_from([None, "relu"])),
        draw(st.sampled_from([None, (2 * rng.standard_normal(shape)).astype(dtype)])),
        weights,
    )


def _sizes(extremes):
    return st.one_of(*[st.just(1.0)] * 3, st.sampled_from(extremes))


def _weights(draw, rng, shape):
    """None at all, a mask, or weights: some of them 0; of any size, which may be the same along any axis."""
    w = rng.random([draw(st.sampled_from([1, size])) for size in shape])
    kept = w < draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))
    weights = np.where(kept, 10.0 ** rng.uniform(-3, 3, w.shape) * draw(st.sampled_from([1e-300, 1.0, 1e290])), 0.0)
    return draw(st.sampled_from([{}, {"mask": kept}, {"sample_weight": weights}]))
