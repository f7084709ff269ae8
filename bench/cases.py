"""The cases as a table: a case is one row. Also the data that a case is measured with."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

EPSILON = 1e-3
OWN = "own"  # the kind of a case that is not in the table
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Case:
    """One shape of data. quick: whether a benchmark runs it by default."""

    kind: str
    shape: tuple[int, ...]
    feature_axis: int | tuple[int, ...] = -1
    quick: bool = False
    dtype: str = "float32"

    def __str__(self) -> str:
        """Kind and sizes: the name in tables and in pytest's ids. It tells all of a case that is not in the table."""
        name = f"{self.kind}-{'x'.join(map(str, self.shape))}"
        axes = self.feature_axis if isinstance(self.feature_axis, tuple) else (self.feature_axis,)
        name += f"-axis{','.join(map(str, axes))}" if self.kind == OWN else ""
        return name if self.dtype == "float32" else f"{name}-{self.dtype}"

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The feature axes, counted from 0."""
        given = self.feature_axis if isinstance(self.feature_axis, tuple) else (self.feature_axis,)
        return tuple(axis % len(self.shape) for axis in given)

    @cached_property
    def reduced(self) -> tuple[int, ...]:
        """All the other axes."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.kept)

    @property
    def count(self) -> int:
        return prod(self.shape[axis] for axis in self.reduced)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.kept)

    @property
    def nbytes(self) -> int:
        return np.dtype(self.dtype).itemsize * prod(self.shape)

    @property
    def channels_last(self) -> bool:
        return self.kept[-1] == len(self.shape) - 1

    @property
    def single_axis(self) -> tuple[tuple[int, ...], int]:
        """The shape with its (adjacent) feature axes merged into one, and that axis: many libraries take only one."""
        first, last = self.kept[0], self.kept[-1]
        return (*self.shape[:first], prod(self.feature_shape), *self.shape[last + 1 :]), first


_CASES = (
    Case("dense", (32, 64), quick=True),
    Case("dense", (128, 512)),
    Case("dense", (4096, 256), quick=True),
    Case("dense", (65536, 256), quick=True),
    Case("dense", (1_000_000, 32)),
    Case("last", (32, 14, 14, 256)),
    Case("last", (32, 56, 56, 64), quick=True),
    Case("last", (32, 112, 112, 64)),
    Case("last", (32, 7, 7, 2048)),
    Case("last", (4, 57, 57, 96)),  # a DenseNet's odd plane: no row of it is a whole number of cache lines
    Case("first", (32, 256, 14, 14), 1),
    Case("first", (32, 64, 56, 56), 1, quick=True),
    Case("first", (32, 64, 112, 112), 1),
    Case("first", (32, 2048, 7, 7), 1),
    Case("first", (4, 96, 57, 57), 1),
    Case("1d", (32, 128, 1000), 1),
    Case("3d", (8, 64, 16, 28, 28), 1),
    Case("tuple", (32, 12, 64, 128), (1, 2)),  # a statistic for each head and each of its channels
)

CASES = {str(case): case for case in _CASES}
SMALLEST = min(_CASES, key=lambda case: case.nbytes)


def case_of(name: str) -> Case:
    """The case of a name: of the table, or of a shape of the user's own, as `str` writes it."""
    table_name = name.removesuffix("-float64")
    dtype = "float32" if table_name == name else "float64"
    if table_name in CASES:
        return replace(CASES[table_name], dtype=dtype)
    kind, shape, axes = table_name.split("-", 2)
    axis = tuple(map(int, axes.removeprefix("axis").split(",")))
    return Case(kind, tuple(map(int, shape.split("x"))), axis[0] if len(axis) == 1 else axis, dtype=dtype)


def selected(timed: bool, every: bool) -> list[str]:
    """The cases that a benchmark runs: the quick ones or every one; only the smallest where nothing is timed."""
    if not timed:
        return [str(SMALLEST)]
    return [name for name, case in CASES.items() if every or case.quick]


class Problem(NamedTuple):
    """A case's data, in its dtype, the same for every library. mean and var are the moving statistics."""

    case: Case
    x: np.ndarray
    dy: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    var: np.ndarray

    @property
    def features(self) -> tuple[np.ndarray, ...]:
        """What has one value per feature: gamma, beta, mean and var."""
        return self.gamma, self.beta, self.mean, self.var

    @property
    def ddx(self) -> np.ndarray:
        """A new array, correlated with dy, so that no result is a small difference of large numbers."""
        return np.flip(self.x) + self.dy

    @property
    def residual(self) -> np.ndarray:
        """A new array of random sign. It is so large that rounding never decides whether ReLU passes an element."""
        return np.where(np.flip(self.dy) > 0.5, 32, -32).astype(self.x.dtype)


@lru_cache(maxsize=1)  # the largest take several hundred megabytes
def make_problem(case: Case) -> Problem:
    rng, dtype = np.random.default_rng(0), np.dtype(case.dtype).type
    x = rng.standard_normal(case.shape, dtype)
    dy = rng.standard_normal(case.shape, dtype)
    # dy has a mean and is correlated with x: no term of dx is lost in rounding, so the check notices a wrong one.
    dy += x
    dy += 0.5
    x += 2.0
    gamma, var = (rng.uniform(0.5, 1.5, case.feature_shape).astype(dtype) for _ in range(2))
    beta, mean = (rng.standard_normal(case.feature_shape, dtype) for _ in range(2))
    return Problem(case, x, dy, gamma, beta, mean, var)
