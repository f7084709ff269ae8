"""Large results are stored past the cache, in whole lines: the same bits as of small ones, and nothing beyond."""

import numpy as np
import pytest

from bnnumba import _past_cache
from bnnumba.kernels import serial, threaded
from tests.tools.problems import same_bits

PAST_CACHE_BYTES = 2**20
ELEMENTS = PAST_CACHE_BYTES // 8 + 1  # float32's x and y together reach it; half precision has twice as many
SHAPES = [(33, 1), (64, 1), (1000, 1), (2048, 1), (3, 149), (3, None)]
STARTS = {np.float32: (0, 5), np.float16: (5, 24)}  # elements behind a line's start: a line has 16, or 32
GUARD, LINE = 32, 64


@pytest.fixture(autouse=True)
def threshold(monkeypatch):
    monkeypatch.setattr(_past_cache.threshold, "value", PAST_CACHE_BYTES)


def guarded(shape, start, dtype):
    """An array that starts somewhere in a cache line, and the memory around it, all NaN."""
    size = int(np.prod(shape)) + 2 * GUARD
    memory = np.full(size + LINE, np.nan, dtype)
    memory = memory[-memory.ctypes.data % LINE // memory.itemsize :][:size]
    return memory[GUARD + start : start + size - GUARD].reshape(shape), memory


def bits(array):
    """The array as the kernels take it."""
    return array.view(np.uint16) if array.dtype == np.float16 else array


@pytest.mark.parametrize("form", [serial, threaded], ids=["serial", "threaded"])
@pytest.mark.parametrize("dtype", STARTS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(("feature", "inner"), SHAPES)
def test_parts_have_the_bits_of_the_whole(feature, inner, dtype, form):
    elements = ELEMENTS * 4 // np.dtype(dtype).itemsize
    shape = (elements // (feature * inner) + 1, feature, inner) if inner else (2, feature, elements)
    rng = np.random.default_rng(0)
    x, dy = (bits(rng.standard_normal(shape, np.float32).astype(dtype)) for _ in range(2))
    mean, var, gamma, beta, dgamma, dbeta = (rng.uniform(0.5, 2, feature) for _ in range(6))
    assert 2 * x.nbytes >= PAST_CACHE_BYTES
    for start in STARTS[dtype]:
        y, memory = guarded(shape, start, dtype)
        y = bits(y)
        form.normalize(x, mean, var, gamma, beta, 1e-3, y)
        untouched = np.isnan(memory)
        assert untouched[: GUARD + start].all()
        assert untouched[GUARD + start + x.size :].all()
        assert untouched.sum() == 2 * GUARD
        starts = 0, shape[0] // 4, shape[0] // 3, shape[0] // 2, shape[0] - 1
        for rows in (slice(start, start + 1) for start in starts):  # of one row only: small, and so in cache
            part = np.empty_like(x[rows][..., :1000])
            form.normalize(np.ascontiguousarray(x[rows][..., :1000]), mean, var, gamma, beta, 1e-3, part)
            assert same_bits(part, y[rows][..., :1000])
        in_place = x.copy()
        form.normalize(in_place, mean, var, gamma, beta, 1e-3, in_place)
        assert same_bits(in_place, y)
        dx, in_cache = bits(guarded(shape, start, dtype)[0]), dy.copy()
        form.input_gradient(dy, x, mean, var, gamma, dgamma, dbeta, 1e-3, dx)
        form.input_gradient(in_cache, x, mean, var, gamma, dgamma, dbeta, 1e-3, in_cache)
        assert same_bits(dx, in_cache)
