"""Large results are stored past the cache, in whole lines: the same bits as of small ones, and nothing beyond."""

import numpy as np
import pytest

from bnnumba.kernels import serial, threaded
from bnnumba.kernels.stores import PAST_CACHE_BYTES
from tests.problems import same_bits

ELEMENTS = PAST_CACHE_BYTES // 8 + 1  # x and y together reach it
SHAPES = [
    (ELEMENTS // 33 + 1, 33, 1),
    (ELEMENTS // 1000 + 1, 1000, 1),
    (ELEMENTS // (3 * 149) + 1, 3, 149),
    (2, 3, ELEMENTS),
]
GUARD = 32


def guarded(shape, start):
    """An array that starts somewhere in a cache line, and the memory around it, all NaN."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, np.nan, np.float32)
    return memory[GUARD + start : GUARD + start + size].reshape(shape), memory


@pytest.mark.parametrize("form", [serial, threaded], ids=["serial", "threaded"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parts_have_the_bits_of_the_whole(shape, form):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32) for _ in range(2))
    features = [rng.uniform(0.5, 2, shape[1]) for _ in range(6)]
    mean, var, gamma, beta, dgamma, dbeta = features
    assert 2 * x.nbytes >= PAST_CACHE_BYTES
    for start in (0, 5):
        y, memory = guarded(shape, start)
        form.normalize(x, mean, var, gamma, beta, 1e-3, y)
        untouched = np.isnan(memory)
        assert untouched[: GUARD + start].all()
        assert untouched[GUARD + start + x.size :].all()
        assert untouched.sum() == 2 * GUARD
        for rows in (slice(0, 1), slice(-1, None)):  # of one row only: small, and so in cache
            part = np.empty_like(x[rows][..., :1000])
            form.normalize(np.ascontiguousarray(x[rows][..., :1000]), mean, var, gamma, beta, 1e-3, part)
            assert same_bits(part, y[rows][..., :1000])
        in_place = x.copy()
        form.normalize(in_place, mean, var, gamma, beta, 1e-3, in_place)
        assert same_bits(in_place, y)
        dx, in_cache = guarded(shape, start)[0], dy.copy()
        form.input_gradient(dy, x, mean, var, gamma, dgamma, dbeta, 1e-3, dx)
        form.input_gradient(in_cache, x, mean, var, gamma, dgamma, dbeta, 1e-3, in_cache)
        assert same_bits(dx, in_cache)
