"""`bnnumba.jax` beside jnp as Flax computes it: forward and backward through `jax.grad`; checked, and then timed.

As in `bench_batch_norm`, nothing is timed without --benchmark-only. Both are compiled by `jax.jit`, on the same arrays,
in recycled memory, and take turns; the shortest time of all turns counts. `test_overhead` times a call that has next to
nothing to do, beside an empty compiled function of the same arrays.
"""

import os
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pytest

from bench.cases import EPSILON
from bench.libraries import OURS
from bench.machine import CORES, THREADS
from bench.summary import Measured

if THREADS != CORES:
    os.environ["NPROC"] = str(THREADS)  # sets the size of XLA's thread pool

jax = pytest.importorskip("jax", exc_type=ModuleNotFoundError)
jnp = jax.numpy
batch_norm = pytest.importorskip("bnnumba.jax").batch_norm

SMALL = (((8, 4), -1), ((32, 64), -1), ((128, 512), -1))
SHAPES = (
    ((4096, 256), -1),
    ((32, 14, 14, 256), -1),
    ((32, 256, 14, 14), 1),
    ((32, 56, 56, 64), -1),
    ((32, 64, 56, 56), 1),
    ((100352, 64), -1),
    ((32, 7, 7, 2048), -1),
    ((65536, 256), -1),
    ((32, 112, 112, 64), -1),
    ((32, 64, 112, 112), 1),
)
STEPS = {  # what follows the normalization; whether there is a residual; our activation, which fuses both
    "alone": (lambda y, _: y, False, None),
    "relu": (lambda y, _: jax.nn.relu(y), False, "relu"),
    "residual relu": (lambda y, residual: jax.nn.relu(y + residual), True, "relu"),
}
TURNS = 4


def ours(step: str, axis: int, x: Any, residual: Any, gamma: Any, beta: Any) -> Any:
    _, adds, activation = STEPS[step]
    residual = residual if adds else None
    return batch_norm(x, gamma, beta, axis=axis, epsilon=EPSILON, activation=activation, residual=residual)


def flax(step: str, axis: int, x: Any, residual: Any, gamma: Any, beta: Any) -> Any:
    """What flax.linen.BatchNorm computes: the variance is E[x**2] - mean**2."""
    reduced = tuple(each for each in range(x.ndim) if each != axis % x.ndim)
    mean = x.mean(reduced)
    var = jnp.maximum((x * x).mean(reduced) - mean * mean, 0)
    mean_, var_, gamma_, beta_ = (jnp.expand_dims(each, reduced) for each in (mean, var, gamma, beta))
    y = (x - mean_) * (jax.lax.rsqrt(var_ + EPSILON) * gamma_) + beta_
    return STEPS[step][0](y, residual), mean, var


NAMES = {OURS: ours, "jax": flax}


@cache
def make_step(function: Callable, step: str, axis: int) -> Callable:
    """The compiled function that returns the gradients, y, mean and var."""

    def loss(x: Any, residual: Any, gamma: Any, beta: Any, dy: Any) -> Any:
        y, mean, var = function(step, axis, x, residual, gamma, beta)
        return jnp.sum(y * dy), (y, mean, var)

    return jax.jit(jax.grad(loss, (0, 1, 2, 3) if STEPS[step][1] else (0, 2, 3), has_aux=True))


@lru_cache(maxsize=1)
def make_problem(shape: tuple[int, ...], axis: int, step: str) -> tuple:
    """The arrays, and what jnp makes of them."""
    rng = np.random.default_rng(0)
    x, residual, dy = (jnp.asarray(rng.normal(size=shape).astype(np.float32)) for _ in range(3))
    gamma, beta = (jnp.asarray(rng.uniform(0.5, 1.5, shape[axis]).astype(np.float32)) for _ in range(2))
    given = x, residual, gamma, beta, dy
    return given, make_step(flax, step, axis)(*given)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.option
    metafunc.parametrize("turn", range(1 if option.benchmark_disable else TURNS))
    if "step" not in metafunc.fixturenames:
        return
    cases = SMALL[:2] if option.benchmark_disable else (*SMALL, *(SHAPES if option.all_cases else SHAPES[:3]))
    metafunc.parametrize("name", NAMES)
    metafunc.parametrize("step", STEPS)
    metafunc.parametrize("case", cases, ids=lambda case: f"{'x'.join(map(str, case[0]))}-axis{case[1]}")


def test_jax(benchmark: Callable, case: tuple, step: str, turn: int, name: str, measurements: list) -> None:
    shape, axis = case
    given, right = make_problem(shape, axis, step)
    run = make_step(NAMES[name], step, axis)
    for result, expected in zip(jax.tree.leaves(run(*given)), jax.tree.leaves(right), strict=True):
        error = jnp.linalg.norm((result - expected).ravel()) / jnp.linalg.norm(expected.ravel())
        assert error < 1e-3, f"off by {error:.2g} of the norm"  # a ReLU may pass an element or not, near 0

    benchmark.name, benchmark.group = f"{name}, turn {turn}", f"{shape} axis {axis}, {step}"
    benchmark(lambda: jax.block_until_ready(run(*given)))
    if benchmark.enabled:
        least = benchmark.stats.stats.min
        kind = f"small, {step}" if case in SMALL else step
        measurements.append(Measured(f"{shape} {axis}", kind, name, least))


@pytest.mark.parametrize("name", ["batch_norm", "empty"])
def test_overhead(benchmark: Callable, name: str, turn: int) -> None:
    x, gamma = jnp.ones((8, 4)), jnp.ones(4)
    empty = jax.jit(lambda x, gamma, beta: (x + 0, gamma + 0, beta + 0))
    run = {"batch_norm": jax.jit(partial(batch_norm, epsilon=EPSILON)), "empty": empty}[name]
    assert jax.tree.all(jax.tree.map(lambda a: bool(jnp.isfinite(a).all()), run(x, gamma, gamma)))
    benchmark.name, benchmark.group = f"{name}, turn {turn}", "overhead (8, 4)"
    benchmark(lambda: jax.block_until_ready(run(x, gamma, gamma)))
